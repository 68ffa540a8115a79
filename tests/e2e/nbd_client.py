# SPDX-License-Identifier: Apache-2.0
"""A plain NBD client (newstyle, simple replies) for tests that must see every single reply."""
import socket
import struct

REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
OPTION_MAGIC, OPTION_REPLY_MAGIC = 0x49484156454F5054, 0x3E889045565A9
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES = range(7)
FUA = 1
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO = 1, 2, 3, 6, 7
REP_ACK, REP_SERVER, REP_INFO = 1, 2, 3


class Refused(Exception):
    """The server answered with an error number."""

    def __init__(self, number):
        super().__init__(f"NBD error {number}")
        self.number = number


class Client:
    def __init__(self, path, export, timeout=60.0, start=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.cookie = 0
        self.size = 0
        if start:
            self.greet()
            self.go(export)

    def take(self, length):
        parts = bytearray()
        while len(parts) < length:
            part = self.socket.recv(length - len(parts))
            if not part:
                raise ConnectionError("the server closed the connection")
            parts += part
        return bytes(parts)

    def greet(self):
        magic, option, _flags = struct.unpack(">8sQH", self.take(18))
        if magic != b"NBDMAGIC" or option != OPTION_MAGIC:
            raise ConnectionError("not an NBD server")
        self.socket.sendall(struct.pack(">I", 3))

    def option(self, number, data=b""):
        """The replies to one option: [(type, data)], the last being the final one."""
        self.socket.sendall(struct.pack(">QII", OPTION_MAGIC, number, len(data)) + data)
        replies = []
        while True:
            magic, which, kind, length = struct.unpack(">QIII", self.take(20))
            if magic != OPTION_REPLY_MAGIC or which != number:
                raise ConnectionError("an option reply that is none")
            replies.append((kind, self.take(length)))
            if kind not in (REP_SERVER, REP_INFO):
                return replies

    def go(self, export):
        name = export.encode()
        replies = self.option(OPT_GO, struct.pack(">I", len(name)) + name + struct.pack(">H", 0))
        if replies[-1][0] != REP_ACK:
            raise Refused(replies[-1][0])
        for kind, data in replies:
            if kind == REP_INFO and data[:2] == b"\0\0":
                self.size = struct.unpack(">Q", data[2:10])[0]

    def send(self, kind, offset, length, data=b"", flags=0):
        self.cookie += 1
        self.socket.sendall(struct.pack(">IHHQQI", REQUEST_MAGIC, flags, kind, self.cookie, offset,
                                        length) + data)

    def answer(self, length=0):
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        if magic != REPLY_MAGIC or cookie != self.cookie:
            raise ConnectionError("a reply that is none")
        if error:
            raise Refused(error)
        return self.take(length)

    def read(self, offset, length):
        self.send(READ, offset, length)
        return self.answer(length)

    def write(self, offset, data, flags=0):
        self.send(WRITE, offset, len(data), data, flags)
        self.answer()

    def zero(self, offset, length, flags=0):
        self.send(WRITE_ZEROES, offset, length, flags=flags)
        self.answer()

    def trim(self, offset, length):
        self.send(TRIM, offset, length)
        self.answer()

    def flush(self):
        self.send(FLUSH, 0, 0)
        self.answer()

    def close(self):
        self.socket.close()
