#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes to an export and remembers what was acknowledged; later says whether it is all there.

  writer.py write STATE SOCKET EXPORT SECONDS   until then, or until the server is gone
  writer.py check STATE SOCKET EXPORT           exit 1 when anything acknowledged is missing

Each unit of 4 KiB carries its own number and that of the write, over and over. A unit must hold the
last write that was acknowledged, or the one that was under way when the server died; what a check
finds there must stay. Eight connections write at once, never to the same unit. WRITER_BYTES in the
environment leaves the rest of the export to others.
"""
import os
import pickle
import random
import struct
import sys
import threading
import time

import nbd_client

UNIT = 4096
CONNECTIONS = 8
UNITS_MAX = 64
ZEROS = 0


def units_of(client):
    return int(os.environ.get("WRITER_BYTES", client.size)) // UNIT


def unit_bytes(unit, write):
    if write == ZEROS:
        return bytes(UNIT)
    return struct.pack("<QQ", unit, write) * (UNIT // 16)


class Memory:
    """unit -> the writes that it may show."""

    def __init__(self, path):
        self.path = path
        self.lock = threading.Lock()
        self.may = {}
        self.writes = 0
        self.busy = set()
        try:
            with open(path, "rb") as file:
                self.may, self.writes = pickle.load(file)
        except FileNotFoundError:
            pass

    def save(self):
        with open(self.path, "wb") as file:
            pickle.dump((self.may, self.writes), file)

    def begin(self, first, count, zero):
        """A number for this write, or None when one of the units is being written."""
        units = range(first, first + count)
        with self.lock:
            if not self.busy.isdisjoint(units):
                return None
            self.busy.update(units)
            self.writes += 1
            write = ZEROS if zero else self.writes
            for unit in units:
                self.may.setdefault(unit, {ZEROS}).add(write)
            return write

    def done(self, first, count, write):
        with self.lock:
            for unit in range(first, first + count):
                self.may[unit] = {write}
                self.busy.discard(unit)

    def look(self, unit, data):
        """What is wrong with it, or None; the unit may show nothing else from now on."""
        may = self.may.get(unit, {ZEROS})
        for write in may:
            if data == unit_bytes(unit, write):
                self.may[unit] = {write}
                return None
        seen = struct.unpack("<QQ", data[:16])
        return f"unit {unit}: holds (unit {seen[0]}, write {seen[1]}), not one of {sorted(may)}"


def write_once(client, memory, rng, units):
    count = min(units, rng.choice((1, 1, 2, 4, 16, 16, 32, UNITS_MAX)))
    first = rng.randrange(units - count + 1)
    kind = rng.random()
    if kind < 0.1:
        return check_some(client, memory, first, count)
    write = memory.begin(first, count, kind < 0.2)
    if write is None:
        return 0
    if kind < 0.15:
        client.trim(first * UNIT, count * UNIT)
    elif kind < 0.2:
        client.zero(first * UNIT, count * UNIT)
    else:
        data = b"".join(unit_bytes(unit, write) for unit in range(first, first + count))
        client.write(first * UNIT, data, nbd_client.FUA if kind > 0.9 else 0)
    memory.done(first, count, write)
    return 1


def check_some(client, memory, first, count):
    """Reads while others write: none of these may be under way."""
    with memory.lock:
        units = range(first, first + count)
        if not memory.busy.isdisjoint(units):
            return 0
        memory.busy.update(units)
    data = client.read(first * UNIT, count * UNIT)
    with memory.lock:
        memory.busy.difference_update(units)
        wrong = [memory.look(unit, data[i * UNIT:(i + 1) * UNIT]) for i, unit in enumerate(units)]
    wrong = [text for text in wrong if text]
    if wrong:
        raise AssertionError(wrong[0])
    return 0


def writer(memory, client, until, counts, wrongs):
    rng = random.Random()
    try:
        while time.monotonic() < until:
            counts.append(write_once(client, memory, rng, units_of(client)))
    except (OSError, nbd_client.Refused) as gone:
        counts.append(0)
        if not isinstance(gone, ConnectionError):
            wrongs.append(f"{type(gone).__name__}: {gone}")
    except AssertionError as wrong:
        wrongs.append(f"read: {wrong}")


def run_write(memory, path, export, seconds):
    counts, wrongs = [], []
    clients = [nbd_client.Client(path, export) for _ in range(CONNECTIONS)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=writer, args=(memory, client, until, counts, wrongs))
               for client in clients]
    print("connected", flush=True)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory.save()
    print(f"{sum(counts)} writes acknowledged")
    for wrong in wrongs[:5]:
        print(wrong)
    return 1 if wrongs else 0


def run_check(memory, path, export):
    client = nbd_client.Client(path, export)
    wrong = []
    step = 256
    units = units_of(client)
    for first in range(0, units, step):
        count = min(step, units - first)
        data = client.read(first * UNIT, count * UNIT)
        for i in range(count):
            text = memory.look(first + i, data[i * UNIT:(i + 1) * UNIT])
            if text:
                wrong.append(text)
    memory.save()
    print(f"{len(memory.may)} units looked at, {len(wrong)} wrong")
    for text in wrong[:8]:
        print(text)
    return 1 if wrong else 0


def main():
    verb, state, path, export = sys.argv[1:5]
    memory = Memory(state)
    if verb == "write":
        return run_write(memory, path, export, float(sys.argv[5]))
    return run_check(memory, path, export)


sys.exit(main())
