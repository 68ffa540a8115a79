#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two processes joined by DPDK virtual devices, without hugepages: memif with two ports and a peer
# that comes and goes; af_packet on veth in a network namespace of its own, with the kernel's ARP
# and ping at the other end; af_xdp there, too; a ring, which takes the copying way.
# usage: port_pair.sh PROGRAM ECHO
set -euo pipefail

program=$(realpath "$1")
echo=$(realpath "$2")
self=$(realpath "$0")
failed=0 skipped=0
dir=$(mktemp -d "${TMPDIR:-/tmp}/casemate-ports.XXXXXX")
pids=()
cleanup() {
	local pid
	for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
	rm -rf "$dir"
}
trap cleanup EXIT

say() { printf '%s\n' "$*"; }
check() { # check WHAT COMMAND...: one line per statement
	local what=$1
	shift
	if "$@"; then say "ok: $what"; else say "FAILED: $what" && failed=1; fi
}
field() { # field FILE PORT KEY
	sed -n "s/.*port=$2 .* $3=\([0-9]*\).*/\1/p" "$1"
}
both_at_least() { # both_at_least FILE KEY COUNT
	[ "$(field "$1" 0 "$2")" -ge "$3" ] && [ "$(field "$1" 1 "$2")" -ge "$3" ]
}

ready() { # ready FILE PID: a first start of DPDK may take many seconds on a machine that is busy
	for _ in $(seq 600); do
		if grep -qs ready "$1"; then return; fi
		kill -0 "$2" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}

memif() { # the two ports of one side: memif ROLE
	local role=$1 i
	for i in 0 1; do
		printf -- '-v net_memif%d,role=%s,id=%d,' "$i" "$role" "$i"
		printf 'socket=%s/m.sock,socket-abstract=no,bsize=9216,rsize=8 ' "$dir"
	done
}

memif_round() {
	local client rc=0
	# A socket that a killed server left behind must not be in the way.
	# shellcheck disable=SC2046
	"$program" $(memif server) -e 1 -t 180 -p 200 -f "cm-$$-s" >"$dir/s0" &
	server=$!
	pids+=("$server")
	check "memif: the server came up" ready "$dir/s0" "$server"
	kill -9 "$server" 2>/dev/null || true
	wait "$server" 2>/dev/null || true
	check "memif: a killed server leaves its socket" [ -S "$dir/m.sock" ]
	# The client comes first: there is no server to connect to yet.
	# shellcheck disable=SC2046
	"$program" $(memif client) -e 2 -w 2000 -t 60 -p 200 -f "cm-$$-c1" >"$dir/c1" &
	client=$!
	pids+=("$client")
	sleep 1
	# shellcheck disable=SC2046
	"$program" $(memif server) -e 1 -t 180 -p 200 -f "cm-$$-s" >"$dir/s" &
	server=$!
	pids+=("$server")
	wait "$client" || rc=$?
	cat "$dir/c1"
	check "memif: the first client received 2,000 datagrams of 8,900 bytes per port" \
		[ "$rc" = 0 ]
	rc=0
	# shellcheck disable=SC2046
	"$program" $(memif client) -e 2 -w 2000 -t 60 -p 200 -f "cm-$$-c2" >"$dir/c2" || rc=$?
	cat "$dir/c2"
	check "memif: a restarted client received them too" [ "$rc" = 0 ]
	kill "$server"
	rc=0
	wait "$server" || rc=$?
	cat "$dir/s"
	check "memif: the server lived through it (rc $rc)" [ "$rc" = 0 ]
	check "memif: the server received from both" both_at_least "$dir/s" good 2000
	check "memif: nothing was copied on the way out" [ "$(field "$dir/s" 0 linearised)" = 0 ]
}

# A server that does not turn for a while, as on a machine that has no time for it: a client that
# has lost its patience and gone by the time it is let in would take the server with it.
memif_stopped() {
	local server client rc=0
	# shellcheck disable=SC2046
	"$program" $(memif server) -e 1 -t 180 -p 200 -f "cm-$$-t" >"$dir/t" 2>"$dir/t-said" &
	server=$!
	pids+=("$server")
	check "memif: a server comes up" ready "$dir/t" "$server"
	kill -STOP "$server"
	# shellcheck disable=SC2046
	"$program" $(memif client) -e 2 -w 500 -t 60 -p 200 -f "cm-$$-c3" >"$dir/c3" &
	client=$!
	pids+=("$client")
	check "memif: and its client, while it is stopped" ready "$dir/c3" "$client"
	sleep 2 # this long is the server away: more is needed only to show what it does not survive
	kill -CONT "$server"
	wait "$client" || rc=$?
	cat "$dir/c3"
	check "memif: the client received 500 datagrams once it went on" [ "$rc" = 0 ]
	kill "$server" 2>/dev/null || true
	rc=0
	wait "$server" || rc=$?
	cat "$dir/t-said"
	check "memif: a server that was stopped goes on (rc $rc)" [ "$rc" = 0 ]
}

ring_round() {
	local rc=0
	"$program" -v net_ring0 -o -w 3000 -t 60 -p 100 -f "cm-$$-r" >"$dir/r" || rc=$?
	cat "$dir/r"
	check "ring: 3,000 datagrams came round" [ "$rc" = 0 ]
	check "ring: by copy" [ "$(field "$dir/r" 0 linearised)" -ge 3000 ]
}

packet_port() {
	printf 'net_af_packet0,iface=%s,blocksz=36864,framesz=9216,' "$1"
	printf 'framecnt=512,qdisc_bypass=1'
}

# Runs in a network namespace of its own.
packet_rounds() {
	local rc=0 peer
	ip link add a0 type veth peer name a1
	ip link add k0 type veth peer name k1
	for i in a0 a1 k0 k1; do
		sysctl -qw "net.ipv6.conf.$i.disable_ipv6=1" 2>/dev/null || true
		ip link set "$i" mtu 9000 up
	done
	"$program" -v "$(packet_port a0)" -e 1 -V 42 -t 180 -p 2000 -f "cm-$$-a" >"$dir/a" &
	peer=$!
	"$program" -v "$(packet_port a1)" -e 2 -V 42 -w 2000 -t 90 -p 2000 \
		-f "cm-$$-b" >"$dir/b" || rc=$?
	cat "$dir/b"
	check "af_packet: 2,000 datagrams of 8,900 bytes in VLAN 42 arrived" [ "$rc" = 0 ]
	kill "$peer"
	rc=0
	wait "$peer" || rc=$?
	cat "$dir/a"
	check "af_packet: and as many the other way" [ "$rc" = 0 ]
	check "af_packet: counted" [ "$(field "$dir/a" 0 good)" -ge 1000 ]

	# 10.77.0.1 is ours on k0, 10.77.0.2 the kernel's on k1.
	ip addr add 10.77.0.2/24 dev k1
	"$program" -v "$(packet_port k0)" -e 1 -s -t 60 -f "cm-$$-k" >"$dir/k" &
	peer=$!
	check "ping: we came up" ready "$dir/k" "$peer"
	ip neigh flush dev k1 # it has learned from our own request: let it ask
	check "ping: answered" "$echo" 10.77.0.1 56
	check "ping: of 8,000 bytes" "$echo" 10.77.0.1 8000
	kill "$peer"
	wait "$peer" || rc=$?
	cat "$dir/k"
	check "ping: counted" [ "$(field "$dir/k" 0 ping)" = 2 ]
	check "ARP: the kernel's request was answered" [ "$(field "$dir/k" 0 arp)" -ge 1 ]
}

xdp_possible() { # a socket of the family, which is 44
	python3 -c 'import socket; socket.socket(44, socket.SOCK_RAW)' 2>/dev/null
}

# As large as a page allows. More than there are buffers go round, so that each has its turn.
xdp_round() {
	local rc=0 peer
	ip link add b0 type veth peer name b1
	for i in b0 b1; do
		sysctl -qw "net.ipv6.conf.$i.disable_ipv6=1" 2>/dev/null || true
		ip link set "$i" mtu 3500 up
	done
	"$program" -v net_af_xdp0,iface=b0 -e 1 -V 42 -m 3500 -l 3472 -t 180 -p 500 \
		-f "cm-$$-x" >"$dir/x" 2>"$dir/x-said" &
	peer=$!
	"$program" -v net_af_xdp0,iface=b1 -e 2 -V 42 -m 3500 -l 3472 -w 9000 -t 90 -p 500 \
		-f "cm-$$-y" >"$dir/y" 2>"$dir/y-said" || rc=$?
	[ "$rc" = 0 ] || cat "$dir/y-said"
	cat "$dir/y"
	check "af_xdp: 9,000 datagrams of 3,472 bytes in VLAN 42 arrived" [ "$rc" = 0 ]
	kill "$peer"
	rc=0
	wait "$peer" || rc=$?
	[ "$rc" = 0 ] || cat "$dir/x-said"
	cat "$dir/x"
	check "af_xdp: and others the other way" [ "$rc" = 0 ]
	check "af_xdp: counted" [ "$(field "$dir/x" 0 good)" -ge 4500 ]
	check "af_xdp: by copy" [ "$(field "$dir/y" 0 linearised)" -ge 4500 ]
}

if [ "${3:-}" = in-namespace ]; then
	packet_rounds
	if xdp_possible; then
		xdp_round
	else
		say "skipped: af_xdp (this kernel has no such sockets)"
		[ "$failed" != 0 ] || exit 77
	fi
	exit "$failed"
fi
[ -x "$program" ] || exit 77
memif_round
memif_stopped
ring_round
if unshare -n true 2>/dev/null && unshare -n ip link add x0 type veth peer name x1 2>/dev/null; then
	rc=0
	unshare -n "$self" "$program" "$echo" in-namespace || rc=$?
	case $rc in
	0) ;;
	77) skipped=1 ;;
	*) failed=1 ;;
	esac
else
	say "skipped: af_packet and af_xdp (no network namespaces or no veth here)"
	skipped=1
fi
[ "$failed" = 0 ] || exit 1
[ "$skipped" = 0 ] || exit 77
