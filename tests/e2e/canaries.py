#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Canaries for secrets.sh: 32 random bytes each, written through NBD and read again.

canaries.py write SOCKET EXPORT FILE   prints how many there are; FILE gets a line "NAME HEX OFFSET"
                                       for each, without an offset for those that were overwritten
canaries.py read SOCKET EXPORT FILE    prints how many are where they were written
canaries.py inject IFACE FILE          sends datagrams to the vault's port on this interface, of a
                                       session that is unknown, with random bytes near their ends;
                                       FILE gets a line "NAME HEX" for each
"""
import os
import random
import socket
import struct
import sys
import time

from nbd_client import FUA, Client

BLOCK = 64 * 1024
CANARY = 32
PORT = 4789
FRAMES, FRAME_BYTES, MARK_AT = 48, 6000, 5200


def write(path, export, file):
    """Whole blocks, pieces of blocks, across blocks, large requests; some are overwritten."""
    client = Client(path, export)
    chance = random.Random(5)
    kept, gone = {}, []

    def put(offset, length, count, flags=0):
        for at in [at for at in kept if offset - CANARY < at < offset + length]:
            gone.append(kept.pop(at))
        data = bytearray(length)
        for number in range(count):
            at = length // count * number + chance.randrange(0, length // count - CANARY)
            data[at:at + CANARY] = kept[offset + at] = os.urandom(CANARY)
        client.write(offset, bytes(data), flags)

    for block in range(64):
        put(block * BLOCK, BLOCK, 1)
    for block in range(64, 128):
        put(block * BLOCK + chance.randrange(1, 4096), 4096, 1, FUA)
    for block in range(128, 160):
        put(block * BLOCK + BLOCK - 700, 1500, 1)
    for mib in range(16, 24):
        put(mib << 20, 1 << 20, 4)
    for block in range(0, 64, 4):
        put(block * BLOCK, BLOCK, 1)
    client.flush()
    with open(file, "w", encoding="ascii") as out:
        for number, (offset, canary) in enumerate(sorted(kept.items())):
            out.write(f"canary-{number} {canary.hex()} {offset}\n")
        for number, canary in enumerate(gone):
            out.write(f"canary-gone-{number} {canary.hex()}\n")
    print(len(kept))
    client.close()


def read(path, export, file):
    client = Client(path, export)
    right = 0
    with open(file, encoding="ascii") as lines:
        for line in lines:
            _, canary, *offset = line.split()
            if offset:
                right += client.read(int(offset[0]), CANARY) == bytes.fromhex(canary)
    print(right)
    client.close()


def checksum(header):
    total = sum(struct.unpack(">10H", header))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def frame(payload):
    """Ethernet to everyone, IPv4 and UDP (without its checksum) from the primary's address."""
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0x4000, 64, 17, 0,
                         socket.inet_aton("10.77.0.1"), socket.inet_aton("10.77.0.2"))
    header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
    udp = struct.pack(">HHHH", PORT, PORT, 8 + len(payload), 0)
    return b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x08\0" + header + udp + payload


def inject(interface, file):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link.bind((interface, 0))
    with open(file, "w", encoding="ascii") as out:
        for number in range(FRAMES):
            mark = os.urandom(CANARY)
            # docs/protocol.md "Datagrams": a shard, 112 bytes of text, a session nobody has
            datagram = bytearray(struct.pack("<BBBBHHQQ", 1, 16, 0, 0, 112, 0, 7, number))
            datagram += bytes(FRAME_BYTES - len(datagram))
            datagram[MARK_AT:MARK_AT + CANARY] = mark
            link.send(frame(bytes(datagram)))
            out.write(f"injected-{number} {mark.hex()}\n")
            time.sleep(0.002)
    link.close()


if __name__ == "__main__":
    {"write": write, "read": read, "inject": inject}[sys.argv[1]](*sys.argv[2:])
