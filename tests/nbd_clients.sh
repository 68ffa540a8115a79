#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries the NBD clients of the distribution on our server with a RAM disk behind it.
# usage: nbd_clients.sh path/to/nbd_ram
set -euo pipefail

ram=$1
for tool in nbdinfo nbdcopy qemu-io fio; do
	command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 77; }
done

dir=$(mktemp -d)
pids=()
# shellcheck disable=SC2317 # called by the trap
finish() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait || true
	rm -rf "$dir"
}
trap finish EXIT

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# serve NAME ARGS...: a server on $dir/NAME.sock, its URI in $uri
serve() {
	local name=$1
	shift
	"$ram" --unix "$dir/$name.sock" "$@" >"$dir/$name.out" &
	pids+=($!)
	for _ in $(seq 1200); do
		[ -S "$dir/$name.sock" ] && break
		sleep 0.05
	done
	uri="nbd+unix:///?socket=$dir/$name.sock"
}

# says URI LINE...: nbdinfo prints each of the lines
says() {
	local uri=$1 out line
	shift
	out=$(nbdinfo "$uri")
	for line in "$@"; do
		grep -qE "^[[:space:]]*$line" <<<"$out" ||
			fail "nbdinfo $uri does not say: $line"$'\n'"$out"
	done
}

same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }

features() {
	says "$uri" 'protocol: newstyle-fixed without TLS, using structured packets' \
		'export-size: 67108864 ' 'base:allocation' 'is_rotational: false' \
		'is_read_only: false' 'can_cache: true' 'can_df: true' 'can_fast_zero: true' \
		'can_flush: true' 'can_fua: true' 'can_multi_conn: true' 'can_trim: true' \
		'can_zero: true' 'block_size_minimum: 1' 'block_size_preferred: 4096' \
		'block_size_maximum: 33554432'
	nbdinfo --list "$uri" | grep -q 'export="ram"' || fail "the list lacks the export"
	says "nbd+unix:///ram?socket=$dir/a.sock" 'export-size: 67108864 '
	if nbdinfo "nbd+unix:///none?socket=$dir/a.sock" 2>/dev/null; then
		fail "an unknown export opens"
	fi
}

read_only() {
	serve ro --read-only --size 1048576
	says "$uri" 'is_read_only: true' 'can_trim: false' 'can_zero: false' 'can_flush: true' \
		'can_multi_conn: true' 'can_cache: true'
	qemu-io -r -f raw -c 'read -P 0 0 1M' "$uri" | grep -q '1048576/1048576' ||
		fail "a read-only export is not read"
	if qemu-io -f raw -c 'write 0 4k' "$uri" >/dev/null 2>&1; then
		fail "a read-only export is written"
	fi
}

copies() {
	head -c 67108864 /dev/urandom >"$dir/in"
	nbdcopy --connections=4 --flush "$dir/in" "$uri"
	nbdcopy --connections=4 "$uri" "$dir/out"
	same "$dir/in" "$dir/out"
	truncate -s 64M "$dir/holes"
	dd if=/dev/urandom of="$dir/holes" bs=65536 count=3 seek=100 conv=notrunc status=none
	nbdcopy --connections=4 --destination-is-zero "$dir/holes" "$uri2"
	nbdcopy --connections=4 "$uri2" "$dir/out"
	same "$dir/holes" "$dir/out"
	nbdinfo --map "$uri2" | awk '$3 == 0 { data += $2 } END { exit data != 3 * 65536 }' ||
		fail "the map of $uri2 is not that of the file"
}

patterns() {
	local out
	out=$(qemu-io -f raw \
		-c 'write -P 0x11 0 1M' -c 'write -f -P 0x22 4097 8191' -c 'discard 64k 64k' \
		-c 'write -z 200001 4095' -c 'write -z -u 256k 64k' \
		-c 'write -P 0x33 1048571 33554432' -c 'flush' \
		-c 'read -P 0x11 0 4097' -c 'read -P 0x22 4097 8191' -c 'read -P 0x11 12288 512' \
		-c 'read -P 0 64k 64k' -c 'read -P 0x11 131072 68929' -c 'read -P 0 200001 4095' \
		-c 'read -P 0x11 204096 1' -c 'read -P 0 256k 64k' \
		-c 'read -P 0x33 1048571 33554432' \
		-c 'read -P 0x11 1048570 1' "$uri")
	[ "$(grep -c 'ops' <<<"$out")" = 16 ] || fail "qemu-io"$'\n'"$out"
	! grep -qi 'failed\|error' <<<"$out" || fail "qemu-io"$'\n'"$out"
}

load() {
	fio --name=verify --ioengine=nbd --uri="$1" --rw=randrw --bs="$2" \
		--iodepth=128 --size=64m --verify=crc32c --verify_fatal=1 --randseed=7 \
		--minimal >"$dir/fio.out" 2>&1 ||
		fail "fio $*"$'\n'"$(tail -5 "$dir/fio.out")"
}

over_tcp() {
	local port
	for port in 10877 20877 30877 40877; do
		"$ram" --tcp "127.0.0.1:$port" --size 67108864 >"$dir/tcp.out" 2>&1 &
		local pid=$!
		until nbdinfo --size "nbd://127.0.0.1:$port" >/dev/null 2>&1; do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.05
		done
		if kill -0 "$pid" 2>/dev/null; then
			pids+=("$pid")
			break
		fi
	done
	nbdcopy --connections=4 --flush "$dir/in" "nbd://127.0.0.1:$port"
	nbdcopy --connections=4 "nbd://127.0.0.1:$port" "$dir/out"
	same "$dir/in" "$dir/out"
}

# Clients that die in the middle, and more of them than there are connections.
unkind() {
	serve few --connections 2 --payload 50331648 --size 67108864
	for _ in 1 2; do
		fio --thread --name=die --ioengine=nbd --uri="$uri" --rw=randrw --bs=4m \
			--iodepth=32 --size=64m --time_based --runtime=9 >/dev/null 2>&1 &
		local load=$!
		sleep 1.5
		kill -KILL "$load"
		wait "$load" 2>/dev/null || true
	done
	nbdcopy --connections=4 --request-size=33554432 --requests=8 "$dir/in" "$uri" &
	local first=$!
	nbdcopy --connections=1 "$uri" "$dir/out"
	wait "$first"
	nbdcopy --connections=2 "$uri" "$dir/out"
	same "$dir/in" "$dir/out"
}

stops() {
	local pid
	for pid in "${pids[@]}"; do
		kill -TERM "$pid"
		wait "$pid" || fail "a server ended with $?"
	done
	pids=()
	[ ! -e "$dir/a.sock" ] || fail "the socket file is left behind"
	cat "$dir"/*.out | grep accepted
	if grep accepted "$dir"/*.out | grep -v 'payload_used=0'; then
		fail "payload memory is left behind"
	fi
	if grep accepted "$dir"/*.out | grep -v 'bad_streams=0'; then
		fail "a client was misunderstood"
	fi
}

step() {
	local begin=$SECONDS
	"$@"
	echo "passed: $* ($((SECONDS - begin)) s)"
}

serve b
uri2=$uri
serve scrambled --scramble
uri3=$uri
serve a
step features
step patterns
step copies
step load "$uri" 4k
step load "$uri3" 16k
step load "$uri3" 1m
step over_tcp
step read_only
step unkind
step stops
