#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clients of a real server that break every rule of NBD, or die in the middle.

  intruder_nbd.py rules SOCKET EXPORT       each row must be answered as it should be, and then
                                            the same connection, or a new one, serves as before
  intruder_nbd.py die SOCKET EXPORT COUNT   so many clients that die, each at another point
  intruder_nbd.py idle SOCKET EXPORT COUNT  so many clients that say nothing, until it is ended

Nothing of the export may change: what it holds is compared before and after. Only the first
AREA bytes are touched, and only by requests that must be refused or were never finished.
"""
import random
import signal
import socket
import struct
import sys

import nbd_client as nbd

AREA = 8 << 20
EPERM, EINVAL, ENOSPC = 1, 22, 28
ERR_UNSUP, ERR_INVALID, ERR_UNKNOWN, ERR_TOO_BIG = (1 << 31) + 1, (1 << 31) + 3, (1 << 31) + 6, \
    (1 << 31) + 9
STARTTLS, OPT_META = 5, 10
PAYLOAD_MAX = 32 << 20

rng = random.Random(11)


def option_bytes(number, length, data=b"", magic=nbd.OPTION_MAGIC):
    return struct.pack(">QII", magic, number, length) + data


def request_bytes(kind, offset, length, flags=0, magic=nbd.REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, kind, rng.getrandbits(64), offset, length)


class Server:
    def __init__(self, path, export):
        self.path, self.export = path, export

    def raw(self):
        return nbd.Client(self.path, self.export, 20, start=False)

    def greeted(self):
        client = self.raw()
        client.greet()
        return client

    def client(self):
        return nbd.Client(self.path, self.export, 20)


def closes(client):
    """The server hangs up; what it had to say before does not matter."""
    try:
        while client.socket.recv(65536):
            pass
    except ConnectionError:
        pass
    client.close()


def say_and_close(client, data):
    try:
        client.socket.sendall(data)
    except ConnectionError:
        pass
    closes(client)


# ---- before the handshake, and options ----


def garbage(server):
    for length in (4, 64, 4096, 1 << 20):
        say_and_close(server.raw(), b"\xff" * 4 + rng.randbytes(length))


def http(server):
    say_and_close(server.raw(), b"GET / HTTP/1.1\r\nHost: casemate\r\n\r\n")


def client_flags(server):
    say_and_close(server.raw(), struct.pack(">I", 0xffffffff))


def option_magic(server):
    say_and_close(server.greeted(), option_bytes(nbd.OPT_LIST, 0, magic=1))


def option_beyond_reason(server):
    say_and_close(server.greeted(), option_bytes(nbd.OPT_INFO, 0xffffffff))


def option_answers(server):
    """On one connection, one after the other; and then it is used."""
    name = server.export.encode()
    head = struct.pack(">I", len(name)) + name
    rows = (
        (99, b"", ERR_UNSUP), (0, b"", ERR_UNSUP), (0xffffffff, b"x" * 100, ERR_UNSUP),
        (STARTTLS, b"", ERR_UNSUP), (STARTTLS, b"x", ERR_INVALID),
        (nbd.OPT_LIST, b"x", ERR_INVALID),
        (nbd.OPT_GO, b"", ERR_INVALID), (nbd.OPT_GO, b"\xff\xff\xff\xff", ERR_INVALID),
        (nbd.OPT_GO, head, ERR_INVALID), (nbd.OPT_GO, head + b"\xff\xff", ERR_INVALID),
        (nbd.OPT_GO, head + b"\0\1\0", ERR_INVALID),
        (nbd.OPT_INFO, struct.pack(">I", 4097) + b"n" * 4097 + b"\0\0", ERR_INVALID),
        (nbd.OPT_INFO, struct.pack(">I", 4) + b"none" + b"\0\0", ERR_UNKNOWN),
        (nbd.OPT_INFO, struct.pack(">I", 4) + b"\0\0\0\0" + b"\0\0", ERR_UNKNOWN),
        (OPT_META, head + struct.pack(">I", 1) + b"\0\0\0\1x", ERR_INVALID),
        (nbd.OPT_INFO, bytes(60000), ERR_TOO_BIG),
    )
    client = server.greeted()
    for row, (number, data, expected) in enumerate(rows):
        kind = client.option(number, data)[-1][0]
        assert kind == expected, f"row {row}: answered {kind:#x}, not {expected:#x}"
    client.go(server.export)
    assert len(client.read(0, 4096)) == 4096
    client.close()


def unknown_export_by_name(server):
    say_and_close(server.greeted(), option_bytes(nbd.OPT_EXPORT_NAME, 4, b"none"))


# ---- commands ----


def command_answers(server):
    """On one connection; the payload of a refused write is read and thrown away."""
    client = server.client()
    end = client.size
    rows = (
        (nbd.READ, end - 1, 2, 0, EINVAL), (nbd.READ, end, 1, 0, EINVAL),
        (nbd.READ, 0xffffffffffffffff, 1, 0, EINVAL), (nbd.READ, 1 << 63, 4096, 0, EINVAL),
        (nbd.READ, 0, PAYLOAD_MAX + 1, 0, EINVAL), (nbd.READ, 0, 0xffffffff, 0, EINVAL),
        (nbd.WRITE, end - 1, 2, 0, ENOSPC), (nbd.WRITE, end, 65536, 0, ENOSPC),
        (nbd.WRITE, 0xfffffffffffff000, 8192, 0, ENOSPC),
        (nbd.WRITE, 0, PAYLOAD_MAX + 1, 0, EINVAL), (nbd.WRITE, 0, 4096, 0x8000, EINVAL),
        (nbd.WRITE, 0, 4096, 1 << 4, EINVAL),
        (nbd.TRIM, end - 4096, 8192, 0, EINVAL),
        (nbd.TRIM, 0xffffffffffffffff, 0xffffffff, 0, EINVAL),
        (nbd.WRITE_ZEROES, end - 4096, 8192, 0, ENOSPC),
        (nbd.WRITE_ZEROES, 0, 4096, 1 << 9, EINVAL), (nbd.CACHE, end, 1, 0, EINVAL),
        (nbd.FLUSH, 1, 0, 0, EINVAL), (nbd.FLUSH, 0, 1, 0, EINVAL),
        (7, 0, 4096, 0, EINVAL), (99, 0, 4096, 0, EINVAL), (0xffff, 0, 0, 0xffff, EINVAL),
    )
    for row, (kind, offset, length, flags, expected) in enumerate(rows):
        client.send(kind, offset, length, bytes(length) if kind == nbd.WRITE else b"", flags)
        try:
            client.answer()
        except nbd.Refused as refused:
            assert refused.number == expected, f"row {row}: {refused.number}, not {expected}"
        else:
            raise AssertionError(f"row {row}: not refused")
        assert len(client.read(0, 512)) == 512, f"row {row}"
    client.close()


def command_magic(server):
    client = server.client()
    say_and_close(client, request_bytes(nbd.READ, 0, 4096, magic=0x12345678))


def commands_of_noise(server):
    for _ in range(8):
        client = server.client()
        say_and_close(client, b"\0" + rng.randbytes(65536))


RULES = (garbage, http, client_flags, option_magic, option_beyond_reason, option_answers,
         unknown_export_by_name, command_answers, command_magic, commands_of_noise)


# ---- death ----


def die_while_greeting(server):
    client = server.raw()
    if rng.random() < 0.5:
        client.socket.sendall(b"\0\0")
    return client


def die_in_an_option(server):
    client = server.greeted()
    client.socket.sendall(option_bytes(nbd.OPT_INFO, 4000, bytes(rng.randrange(2000))))
    return client


def die_in_a_header(server):
    client = server.client()
    client.socket.sendall(request_bytes(nbd.WRITE, 0, 4096)[:rng.randrange(1, 28)])
    return client


def die_in_a_payload(server):
    client = server.client()
    length = rng.choice((4096, 65536, 1 << 20, AREA))
    client.socket.sendall(request_bytes(nbd.WRITE, 0, length))
    client.socket.sendall(b"\xde" * rng.randrange(length - 1))
    return client


def die_before_the_answers(server):
    """Many reads whose replies nobody takes."""
    client = server.client()
    for _ in range(rng.randrange(1, 64)):
        client.socket.sendall(request_bytes(nbd.READ, 0, rng.choice((4096, 1 << 20))))
    return client


DEATHS = (die_while_greeting, die_in_an_option, die_in_a_header, die_in_a_payload,
          die_before_the_answers)


def die(server, count):
    """A few at a time, some by a reset, some by an end of file."""
    dying = []
    for i in range(count):
        client = DEATHS[i % len(DEATHS)](server)
        if i % 2:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        dying.append(client)
        if len(dying) == 8:
            rng.shuffle(dying)
            for client in dying:
                client.close()
            dying = []
    for client in dying:
        client.close()


# ---- and nothing has changed ----


def area(server):
    client = server.client()
    data = client.read(0, AREA)
    client.close()
    return data


def main():
    server = Server(sys.argv[2], sys.argv[3])
    if sys.argv[1] == "idle":  # so many, until we are ended
        clients = [server.client() for _ in range(int(sys.argv[4]))]
        print(f"{len(clients)} clients are in")
        signal.pause()
    before = area(server)
    if sys.argv[1] == "die":
        die(server, int(sys.argv[4]))
        print(f"{sys.argv[4]} clients died")
    else:
        for rule in RULES:
            rule(server)
            print(f"{rule.__name__}: as it should be")
    if area(server) != before:
        print("the content has changed")
        return 1
    return 0


sys.exit(main())
