#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stands in for casemated in tests/cli.sh: answers the verbs on a control socket with fixed
figures. usage: cli_daemon.py SOCKET healthy|degraded|halved"""
import json
import os
import socket
import sys

path, mood = sys.argv[1:]
stores = [{"index": i, "state": "out" if mood == "degraded" else "ready", "in_service": True,
           "floor": 100, "image_point": 42, "journal_used_bytes": 4096,
           "journal_total_bytes": 1 << 28, "damage": 0, "directory": f"/s/{i}"} for i in range(3)]
status = {"ok": True, "schema": 1, "node": "b", "linked": True,
          "groups": [{"name": "g", "role": "vault", "state": "vault", "protected": True,
                      "generation": 1, "lsn": 100, "durable": 100, "consistent": 100, "fold": 42,
                      "rpo_bytes": 0, "window_used": 0, "window_total": 1 << 27,
                      "stores": stores, "counters": {}}],
          "paths": [{"device": "net0", "alive": True, "tx_bytes": 1 << 20, "rx_bytes": 1 << 30,
                     "rx_bad": 0, "rtt_ns": 120000}]}

if mood == "halved":
    status["paths"].append({**status["paths"][0], "device": "net1", "alive": False})
if mood == "degraded":
    status["linked"] = False
    status["handshake"] = {"trouble": "peer certificate is not pinned"}


def answer(verb, args):
    if verb == "status":
        yield status
    elif verb == "wait":
        late = args["volume"] == "late"
        refused = {"ok": False, "error": "late: not synced in time", "errno": 110}
        yield refused if late else {"ok": True}
    elif verb == "promote":
        assert set(args) == {"group", "key", "accept_loss"}
        if args["group"] == "g":
            yield {"ok": True, "consistent": 100, "acknowledged": 100, "key": args["key"]}
        else:
            yield {"ok": False, "error": "2 acknowledged writes would be lost", "errno": 1}
    elif verb == "scrub":
        yield {"progress": {"shards": 10}}
        yield {"ok": True, "shards_read": 20, "bad": 0, "repaired": 0, "lost": 0}
    elif verb == "store-rebuild":
        yield {"ok": True, "store": args["store"]}
    elif verb == "journal-dump":
        first = args["cursor"]
        reply = {"ok": True, "records": [{"lsn": first + i, "kind": "data"} for i in range(2)]}
        if first < 4:
            reply["cursor"] = first + 2
        yield reply
    else:
        yield {"ok": False, "error": "unknown verb", "errno": 22}


listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(1)
while os.getppid() != 1:
    client, _ = listener.accept()
    with client, client.makefile("rw") as stream:
        for line in stream:
            request = json.loads(line)
            for reply in answer(request["verb"], request["args"]):
                stream.write(json.dumps(reply) + "\n")
                stream.flush()
