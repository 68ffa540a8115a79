#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The NBD clients of the distribution against a primary whose every write goes to the vault and
# is acknowledged when it is durable there.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need nbdinfo nbdcopy qemu-io qemu-nbd fio jq python3

pair_up "$work/p" size=128MiB journal=32MiB ack=durable
uri=${P[primary_nbd]}

# nbdinfo: the features of qemu-nbd 7.2, and no more than is true.
info=$(nbdinfo "$uri" 2>&1)
for line in 'protocol: newstyle-fixed without TLS, using structured packets' \
  'export-size: 134217728 ' 'base:allocation' 'is_rotational: false' 'is_read_only: false' \
  'can_cache: true' 'can_df: true' 'can_fast_zero: true' 'can_flush: true' 'can_fua: true' \
  'can_multi_conn: true' 'can_trim: true' 'can_zero: true' 'block_size_minimum: 1' \
  'block_size_preferred: 4096' 'block_size_maximum: 33554432'; do
  says "nbdinfo: $line" "^[[:space:]]*$line" "$info"
done
# And qemu-nbd itself, over a file as large, says the same of itself but for its address.
truncate -s 128M "$work/file"
qemu-nbd -f raw -x vol0 -k "$work/qemu.sock" -t --shared=0 --discard=unmap "$work/file" \
  >"$work/qemu" 2>&1 &
qemu_nbd=$!
pids+=("$qemu_nbd")
qemu="nbd+unix:///vol0?socket=$work/qemu.sock"
within 10 nbdinfo --size "$qemu" || give_up 'qemu-nbd starts' "$(cat "$work/qemu")"
equal 'nbdinfo tells no difference from qemu-nbd' "$(nbdinfo "$qemu" 2>&1 | grep -v uri:)" \
  "$(grep -v uri: <<<"$info")"
kill "$qemu_nbd"
wait "$qemu_nbd" 2>/dev/null
says 'the export is listed' 'export="vol0"' "$(nbdinfo --list "$uri" 2>&1)"
refused 'an unknown export' '.' nbdinfo "${uri/vol0/none}"
refused 'the vault serves nothing before its promotion' '.' nbdinfo "${P[vault_nbd]}"

# nbdcopy: in and out with four connections.
random_file "$work/in" 128
check 'nbdcopy in' nbdcopy --connections=4 --flush "$work/in" "$uri"
check 'nbdcopy out' nbdcopy --connections=4 "$uri" "$work/out"
check 'what comes out is what went in' cmp "$work/in" "$work/out"
check 'and the device holds it' cmp "$work/in" "${P[device]}"

# qemu-io: every command, aligned and not.
out=$(qemu-io -f raw \
  -c 'write -P 0x11 0 1M' -c 'write -f -P 0x22 4097 8191' -c 'discard 64k 64k' \
  -c 'write -z 200001 4095' -c 'write -z -u 256k 64k' -c 'write -P 0x33 1048571 33554432' \
  -c 'flush' -c 'read -P 0x11 0 4097' -c 'read -P 0x22 4097 8191' \
  -c 'read -P 0x11 12288 512' -c 'read -P 0 64k 64k' -c 'read -P 0x11 131072 68929' \
  -c 'read -P 0 200001 4095' -c 'read -P 0x11 204096 1' \
  -c 'read -P 0 256k 64k' \
  -c 'read -P 0x33 1048571 33554432' -c 'read -P 0x11 1048570 1' "$uri" 2>&1)
equal 'qemu-io: sixteen commands done' 16 "$(grep -c ' ops;' <<<"$out")"
equal 'qemu-io: none failed' 0 "$(grep -ciE 'failed|error' <<<"$out")"
[ "$failed" = 0 ] || echo "$out"
out=$(qemu-io -f raw -c 'read 127M 2M' "$uri" 2>&1)
equal 'a read beyond the end is refused' 0 "$(grep -c ' ops;' <<<"$out")"

# fio: its own checksums, several sizes and depths, one of them unaligned.
load() { # load BS DEPTH MIB OFFSET [OPTION...]
  fio --name=load --ioengine=nbd --uri="$uri" --rw=randrw --bs="$1" --iodepth="$2" \
    --io_size="$3m" --size=32m --offset="$4m" --verify=crc32c --verify_fatal=1 \
    --randseed=7 --minimal "${@:5}"
}
check 'fio 4k, 32 deep' load 4k 32 16 0
check 'fio 64k, 16 deep' load 64k 16 32 32
check 'fio 1m, 8 deep' load 1m 8 32 64
check 'fio 512 to 96k, unaligned' load 4k 8 8 96 --bsrange=512-96k --bs_unaligned=1

# The same over TCP: the primary is told of another address, and started again.
port=$(python3 -c 'import socket
with socket.socket() as s: s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
sed -i "s|nbd: \[\"unix:.*/primary/nbd.sock\"|&, \"tcp:127.0.0.1:$port\"|" "${P[config]}"
before=$(digest "$uri")
check 'the primary stops' pair kill "$work/p" primary
check 'and starts with a TCP address' pair start "$work/p" primary
tcp=nbd://127.0.0.1:$port/vol0
check 'it is there' within 20 nbdinfo --size "$tcp"
equal 'the same bytes over TCP' "$before" "$(digest "$tcp")"
check 'nbdcopy in over TCP' nbdcopy --connections=4 --flush "$work/in" "$tcp"
equal 'is seen over the Unix socket' "$(sha256sum <"$work/in" | cut -d" " -f1)" \
  "$(digest "$uri")"

# All of it is at the vault.
check 'all floors meet' synced
check 'the durable point is at the last lsn' status_is primary '.groups[0] | .lsn == .durable'
before=$(digest "$uri")
check 'the primary dies' pair kill "$work/p" primary
check 'the vault is promoted' promote_serves
equal 'and serves the same bytes' "$before" "$(digest "${P[vault_nbd]}")"
says 'read-only' 'is_read_only: true' "$(nbdinfo "${P[vault_nbd]}" 2>&1)"
finish
