#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Somebody on the wire: takes real datagrams of a pair and sends them again in every way that they
were not meant.

  intruder.py capture DEVICE COUNT FILE   datagrams of the data plane that arrive at DEVICE
  intruder.py attack DEVICE FILE          sent out of DEVICE as if its site had: the other site
                                          gets them. Prints "NAME SENT" for each kind of attack

To be run inside the network namespace of a site, as root. What was captured at one site is sent
from the other. No attack knows a key; everything that needs none is forged as well as can be:
lengths and checksums of the headers are right unless they are the lie.
"""
import hashlib
import json
import random
import socket
import struct
import sys
import time

ETHERNET, IPV4, UDP = 14, 20, 8
HEADERS = ETHERNET + IPV4 + UDP
WIRE_HEADER, TAG, SHARD_TEXT = 24, 16, 112
SHARD = 16
HELLO, COOKIE, STREAM, ACK, CLOSE = 1, 2, 3, 4, 5
CONTROL_HEADER, HELLO_BYTES, COOKIE_BYTES = 36, 1200, 32
BURST, PAUSE_S = 32, 0.004

rng = random.Random(7)


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Frame:
    """A UDP datagram with its headers; each field may be made to lie before it is packed."""

    def __init__(self, frame):
        self.destination, self.source = frame[:6], frame[6:12]
        self.source_ip, self.destination_ip = frame[26:30], frame[30:34]
        self.source_port, self.destination_port = struct.unpack("!HH", frame[34:38])
        udp_length = struct.unpack("!H", frame[38:40])[0]
        self.payload = frame[HEADERS:ETHERNET + IPV4 + udp_length]

    def copy(self, **changes):
        other = Frame.__new__(Frame)
        other.__dict__.update(self.__dict__)
        other.__dict__.update(changes)
        return other

    def pack(self, ip_lie=0, udp_lie=0, sum_lie=0, udp_sum=0):
        length = UDP + len(self.payload)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, IPV4 + length + ip_lie, 0, 0x4000, 64, 17,
                         0, self.source_ip, self.destination_ip)
        ip = ip[:10] + struct.pack("!H", checksum(ip) ^ sum_lie) + ip[12:]
        udp = struct.pack("!HHHH", self.source_port, self.destination_port, length + udp_lie,
                          udp_sum)
        return self.destination + self.source + b"\x08\x00" + ip + udp + self.payload


def is_datagram(frame):
    return (len(frame) > HEADERS + WIRE_HEADER and frame[12:14] == b"\x08\x00" and
            frame[14] == 0x45 and frame[23] == 17 and frame[HEADERS] == 1 and
            frame[HEADERS + 1] >= SHARD)


def wire(device):
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    opened.bind((device, 0))
    return opened


def capture(device, count, file):
    """Shards and control messages; at least a tenth of either."""
    frames, shards, deadline = [], 0, time.monotonic() + 30
    with wire(device) as listening:
        listening.settimeout(30)
        while len(frames) < count and time.monotonic() < deadline:
            frame, address = listening.recvfrom(65536)
            if address[2] == socket.PACKET_OUTGOING or not is_datagram(frame):
                continue
            shard = frame[HEADERS + 1] == SHARD
            if shard and shards >= count * 9 // 10:
                continue
            shards += shard
            frames.append(frame.hex())
    with open(file, "w", encoding="ascii") as out:
        json.dump(frames, out)
    print(f"{len(frames)} captured, {shards} of them shards")
    return 0 if len(frames) == count else 1


# ---- what it sends: each gives frames, ready to go ----


def fresh(payload):
    """The same under a number that was not used yet: far ahead, as only a forger would."""
    return payload[:16] + struct.pack("<Q", rng.randrange(1 << 40, 1 << 50)) + payload[24:]


def flipped(payload, at):
    return payload[:at] + bytes([payload[at] ^ 1 << rng.randrange(8)]) + payload[at + 1:]


def regions(payload):
    """Where a byte of text, tag and payload lies."""
    text = struct.unpack("<H", payload[4:6])[0]
    tag = WIRE_HEADER + text
    yield rng.randrange(WIRE_HEADER, tag)
    yield rng.randrange(tag, tag + TAG)
    if len(payload) > tag + TAG:
        yield rng.randrange(tag + TAG, len(payload))


def replayed(frames):
    for _ in range(2):
        for frame in frames:
            yield frame.pack()


def forged(frames):
    """Text, tag and payload flipped, and nothing but the number changed."""
    for frame in frames:
        yield frame.copy(payload=fresh(frame.payload)).pack()
        for at in regions(frame.payload):
            yield frame.copy(payload=fresh(flipped(frame.payload, at))).pack()


def headers_flipped(frames):
    for frame in frames[:48]:
        for at in range(WIRE_HEADER):
            yield frame.copy(payload=flipped(fresh(frame.payload), at)).pack()


def truncated(frames):
    for frame in frames[:64]:
        payload = fresh(frame.payload)
        text = struct.unpack("<H", payload[4:6])[0]
        for length in (0, 1, 2, 3, 8, 23, 24, 25, 39, 40, 41, WIRE_HEADER + text,
                       WIRE_HEADER + text + TAG - 1, WIRE_HEADER + text + TAG, len(payload) - 1):
            yield frame.copy(payload=payload[:length]).pack()


def lengthened(frames):
    for frame in frames[:64]:
        yield frame.copy(payload=fresh(frame.payload)[:8000] + bytes(64)).pack()


def of_no_session(frames):
    for frame in frames:
        session = struct.pack("<Q", rng.getrandbits(64))
        yield frame.copy(payload=frame.payload[:8] + session + frame.payload[16:]).pack()


def of_strangers(frames):
    """From an address that is nobody's, to one that is not asked, to another port or card."""
    for frame in frames:
        yield frame.copy(source_ip=bytes([10, 77, 0, rng.randrange(3, 255)])).pack()
        yield frame.copy(destination_ip=b"\x0a\x4d\x00\xc8").pack()
        yield frame.copy(destination_port=rng.randrange(1, 4789)).pack()
        yield frame.copy(destination=b"\x02" + rng.randbytes(5)).pack()


def lengths_lie(frames):
    for frame in frames[:128]:
        yield frame.pack(ip_lie=rng.choice((-len(frame.payload) - 20, 1, 9, 4000)))
        yield frame.pack(udp_lie=rng.choice((-len(frame.payload) - 8, 1, 4000)))
        yield frame.pack()[:rng.randrange(15, HEADERS)]


def checksums_lie(frames):
    for frame in frames[:128]:
        yield frame.pack(sum_lie=1 << rng.randrange(16))
        yield frame.copy(payload=fresh(frame.payload)).pack(udp_sum=rng.randrange(1, 65535))


def junk(frames):
    """Random bytes to the right port; every other looks like ours for its first bytes."""
    for i in range(1000):
        payload = rng.randbytes(rng.choice((1, 20, 41, 200, 1200, 1201, 1400, 8900)))
        if i % 2:
            payload = bytes([1, rng.randrange(16, 40)]) + payload[2:]
        yield frames[0].copy(payload=payload).pack()


def arp(frames):
    """The address of the peer, claimed by somebody else: as an answer, and as a question."""
    frame = frames[0]
    for operation in (2, 1) * 4:
        mac = b"\x02" + rng.randbytes(5)
        body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, mac, frame.source_ip,
                           frame.destination, frame.destination_ip)
        yield frame.destination + mac + b"\x08\x06" + body + bytes(18)


# ---- the handshake ----


def control(kind, receiver, sender, body):
    head = struct.pack("<BBHQQ", 1, kind, 0, receiver, sender)
    digest = hashlib.sha256(b"casemate control v1" + head + bytes(16) + body).digest()
    return head + digest[:16] + body


def stream(receiver, sender, offset, data):
    return control(STREAM, receiver, sender,
                   struct.pack("<IHH", offset, len(data), 0) + data)


def hello(sender, cookie=bytes(COOKIE_BYTES)):
    return control(HELLO, 0, sender, cookie + bytes(HELLO_BYTES - CONTROL_HEADER - COOKIE_BYTES))


def session_ids(frames):
    return {struct.unpack("<Q", frame.payload[8:16])[0] for frame in frames}


def handshake_junk(frames):
    """Of no handshake in flight, but with the ids of the session that runs; and damaged ones."""
    ids = list(session_ids(frames))
    for i in range(600):
        own, other = rng.choice(ids), rng.getrandbits(64)
        body = rng.choice((
            stream(own, other, rng.randrange(1 << 20), rng.randbytes(rng.randrange(1, 1156))),
            control(ACK, own, other, struct.pack("<IHH", rng.getrandbits(32), 0, 0)),
            control(CLOSE, own, other, struct.pack("<HH", rng.randrange(1, 13), 0))))
        if i % 3 == 0:
            body = flipped(body, rng.randrange(2, len(body)))
        yield frames[0].copy(payload=body).pack()


def hello_flood(frames):
    for _ in range(3000):
        yield frames[0].copy(payload=hello(rng.getrandbits(64) | 1)).pack()


def hello_versions(frames):
    for version in range(2, 66):
        payload = bytes([version]) + hello(rng.getrandbits(64) | 1)[1:]
        yield frames[0].copy(payload=payload).pack()


ATTACKS = (replayed, forged, headers_flipped, truncated, lengthened, of_no_session, of_strangers,
           lengths_lie, checksums_lie, junk, arp, handshake_junk, hello_flood, hello_versions)


def send_paced(opened, frames):
    sent = 0
    for frame in frames:
        opened.send(frame)
        sent += 1
        if sent % BURST == 0:
            time.sleep(PAUSE_S)
    return sent


def answer(opened, kind, receiver):
    """The next datagram of the handshake to this id; None when none comes."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        opened.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            frame, address = opened.recvfrom(65536)
        except TimeoutError:
            break
        if address[2] == socket.PACKET_OUTGOING or len(frame) < HEADERS + CONTROL_HEADER:
            continue
        payload = frame[HEADERS:]
        if payload[0] == 1 and payload[1] == kind:
            if struct.unpack("<Q", payload[4:12])[0] == receiver:
                return payload
    return None


def cookies_used(opened, frame):
    """Who can read the answers gets as far as TLS: a few at a time, and no further. A site that
    never answers (it begins handshakes itself) is left alone soon."""
    taken = silent = 0
    for _ in range(16):
        own = rng.getrandbits(64) | 1
        opened.send(frame.copy(payload=hello(own)).pack())
        cookie = answer(opened, COOKIE, own)
        if not cookie:
            silent += 1
            if silent == 3:
                break
            continue
        cookie = cookie[CONTROL_HEADER:CONTROL_HEADER + COOKIE_BYTES]
        opened.send(frame.copy(payload=hello(own, cookie)).pack())
        ack = answer(opened, ACK, own)
        if not ack:
            continue
        taken += 1
        server = struct.unpack("<Q", ack[12:20])[0]
        opened.send(frame.copy(payload=stream(server, own, 0, rng.randbytes(700))).pack())
    return taken


def attack(device, file):
    with open(file, encoding="ascii") as captured:
        frames = [Frame(bytes.fromhex(text)) for text in json.load(captured)]
    with wire(device) as opened:
        for kind in ATTACKS:
            print(kind.__name__, send_paced(opened, kind(frames)), flush=True)
    with wire(device) as opened:
        print("cookies_used", cookies_used(opened, frames[0]), flush=True)
    return 0


def main():
    if sys.argv[1] == "capture":
        return capture(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    return attack(sys.argv[2], sys.argv[3])


sys.exit(main())
