#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What scripts/pair does when not all is as it should be: a wrong word is said and can be put right,
# the same words again are the same, and what can never link says so at once.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq ip

small=(journal=16MiB hugepages=off data=2 parity=1)
pairs+=("$work/p")
P[dir]=$work/p
P[key]=file:$work/p/keys/vol0.key

# ---- a wrong word: told by its name, before anything is made ----

wrong_word() { # wrong_word KEY=VALUE PATTERN
  refused "$1" "^pair: $1: $2" pair up "$work/p" size=16MiB "${small[@]}" "$1"
  check "$1: nothing is made" test ! -e "$work/p"
}
wrong_word data=x 'a number'
wrong_word parity= 'a number'
wrong_word volume=a/b 'up to 31 letters'
wrong_word stores= 'an absolute path'
wrong_word stores=here 'an absolute path'

# ---- a second try ----

refused 'a unit that is none' 'unknown unit "M"; did you mean "MiB"' \
  pair up "$work/p" size=64M "${small[@]}"
mkdir "$work/p/stores" && touch "$work/p/stores/0"
refused 'a store that cannot be made' "the vault's part of the volume could not be made" \
  pair up "$work/p" size=16MiB "${small[@]}"
rm -r "$work/p/stores"
check 'and the right words after it' pair up "$work/p" size=16MiB "${small[@]}"
check 'and again' pair up "$work/p" size=16MiB "${small[@]}"
refused 'and others' 'was made with size=16MiB' pair up "$work/p" size=32MiB "${small[@]}"

# ---- after a promotion ----

check 'the primary is lost' pair kill "$work/p" primary
check 'the vault too' pair kill "$work/p" vault
check 'and is started' pair start "$work/p" vault
check 'promoted at once, while it reads its stores' pair promote "$work/p"
began_up=$SECONDS
refused 'a pair that can link no more' 'the primary is [a-z]+, the vault is serving' \
  pair up "$work/p"
check 'says so soon' test $((SECONDS - began_up)) -lt $((15 * patience))
processes() { pgrep -f -- "--config $work/p/casemate.yaml --node "; }
equal 'both run' 2 "$(processes | wc -l)"
check 'and is put down' pair down "$work/p"
equal 'nothing is left running, no socket is left' '' \
  "$(processes)$(find "$work/p" -type s)"
check 'once more is no mistake' pair down "$work/p"

# ---- a directory that is removed under its daemons ----

rm -r "$work/p"
check 'another pair' pair up "$work/p" size=16MiB "${small[@]}"
rm -r "$work/p"
refused 'no second one beside what still runs' 'still runs .*pair down .* stops it' \
  pair up "$work/p" size=16MiB "${small[@]}"
check 'down finds what still runs' pair down "$work/p"
equal 'nothing is left running' '' "$(processes)"
refused 'and then there is no pair' 'is no pair' pair down "$work/p"

# ---- what a device cannot carry ----

if [ "$(id -u)" != 0 ]; then
  skip 'af_xdp' 'not root'
elif ! python3 -c 'import socket; socket.socket(44, 3)' 2>/dev/null; then
  skip 'af_xdp' 'this kernel has no AF_XDP sockets'
elif ! ip netns list >/dev/null 2>&1; then
  skip 'af_xdp' 'no network namespaces'
else
  pairs+=("$work/x")
  check 'af_xdp and jumbo frames' pair up "$work/x" dev=af_xdp mtu=9000 size=16MiB "${small[@]}"
  check 'with the same words' pair up "$work/x" dev=af_xdp mtu=9000 size=16MiB "${small[@]}"
  xdp_at() { # xdp_at NODE: its device has a program attached
    ip -n "cm-$(printf '%s' "$work/x" | cksum | cut -d' ' -f1)-$1" link show path0 | grep -q ' xdp '
  }
  xdp_gone() { ! xdp_at primary; }
  check 'there is an XDP program' xdp_at primary
  kill -TERM "$(cat "$work/x/primary/pid")"
  check 'and a stop takes it away' within 10 xdp_gone
fi
finish
