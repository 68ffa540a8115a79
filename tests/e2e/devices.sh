#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pair on each virtual device, with hugepages and without: a copy goes in, the primary is killed,
# the vault serves the same bytes. And as a user who is nobody.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need nbdcopy nbdinfo jq

pages=/sys/kernel/mm/hugepages/hugepages-2048kB
pages_wanted=256 # engine.memory of both
pages_free() { cat $pages/free_hugepages; }
pages_add() { echo $(($(cat $pages/nr_hugepages) + $1)) >$pages/nr_hugepages; }

pages_take() { # as many as are missing, until pages_give
  pages_taken=$((pages_wanted - $(pages_free))) || return
  if [ "$pages_taken" -le 0 ]; then
    pages_taken=0
    return
  fi
  undo+=(pages_give)
  pages_add "$pages_taken" && [ "$(pages_free)" -ge $pages_wanted ]
}

pages_give() {
  [ "${pages_taken:-0}" = 0 ] || pages_add "-$pages_taken"
  pages_taken=0
}

# What a device needs of the machine: prints what is missing.
missing_for() { # missing_for memif|af_packet|af_xdp
  [ "$1" != memif ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo 'needs root'
  elif ! ip netns add "cm-try-$$" 2>/dev/null; then
    echo 'no network namespaces here'
  elif ! ip -n "cm-try-$$" link add try0 type veth peer name try1 2>/dev/null; then
    echo 'no veth here'
  elif [ "$1" = af_xdp ] && ! python3 -c 'import socket; socket.socket(44, 3)' 2>/dev/null; then
    echo 'this kernel has no AF_XDP sockets'
  fi
  ip netns del "cm-try-$$" 2>/dev/null
}

random_file "$work/in" 24
before=$(sha256sum <"$work/in" | cut -d' ' -f1)

primary_lost() { pair kill "${P[dir]}" primary && rm "${P[device]}"; }

# goes_through WHAT DIR: the life of a pair that is up.
goes_through() {
  local what=$1
  check "$what: a copy goes in" nbdcopy --connections=4 --flush "$work/in" "${P[primary_nbd]}"
  check "$what: all floors meet" synced
  equal "$what: on this device" "net_${what%% *}0" "$(status primary '.paths[0].device')"
  check "$what: the primary is lost" primary_lost
  check "$what: promoted" promote_serves
  equal "$what: same bytes" "$before" "$(digest "${P[vault_nbd]}")"
  equal "$what: no driver panicked" '' "$(cat "${P[dir]}"/*/log | grep -iE 'panic|segfault')"
}

in_hugepages() { # in_hugepages NODE: MiB of its memory
  awk '/Hugetlb:/ { kib += $2 } END { print int(kib / 1024) }' "/proc/${P[$1_pid]}/smaps_rollup"
}

round() { # round DEVICE on|off
  local what="$1 hugepages=$2" expected=0
  if [ "$2" = on ]; then expected=256; fi # engine.memory
  pair_up "$work/p" size=24MiB journal=16MiB dev="$1" hugepages="$2"
  equal "$what: MiB of hugepages in use" "$expected $expected" \
    "$(in_hugepages primary) $(in_hugepages vault)"
  goes_through "$what"
  check "$what: down" pair down "$work/p"
  equal "$what: no namespace is left" '' \
    "$(ip netns list 2>/dev/null | grep "cm-$(printf '%s' "$work/p" | cksum | cut -d' ' -f1)-")"
  pair_down "$work/p"
}

for device in memif af_packet af_xdp; do
  missing=$(missing_for $device)
  if [ -n "$missing" ]; then
    skip "$device" "$missing"
  else
    round $device off
  fi
done

if [ "$(id -u)" != 0 ]; then
  skip 'hugepages' 'only root reserves them'
elif ! pages_take 2>/dev/null; then
  skip 'hugepages' "$(pages_free 2>/dev/null) of $pages_wanted are free"
else
  for device in memif af_packet af_xdp; do
    [ -n "$(missing_for $device)" ] || round $device on
  done
fi
pages_give

# ---- nobody: no capability, and 8 MiB of locked memory, which is what Debian gives ----

nobody() {
  (
    ulimit -l 8192
    exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all \
      env HOME="$work/nobody" XDG_RUNTIME_DIR="$work/nobody" CASEMATE_BUILD="$work/nobody" "$@"
  )
}

nobody_round() {
  local out line
  # A copy, since the tree may be where nobody else can read.
  mkdir -p "$work/nobody/apps"
  cp "$CASEMATE_BUILD"/apps/casemate{,d} "$work/nobody/apps/"
  cp "$root/scripts/pair" "$work/nobody/"
  chmod 711 "$work"
  chown -R 65534:65534 "$work/nobody"
  pairs+=("$work/nobody/p")
  out=$(nobody "$work/nobody/pair" up "$work/nobody/p" size=24MiB journal=16MiB hugepages=off \
    2>&1) || give_up 'nobody: pair up' "$out"
  while read -r line; do P[${line%%=*}]=${line#*=}; done <<<"$out"
  P[dir]=$work/nobody/p
  equal 'nobody: runs both' '65534 65534' \
    "$(ps -o uid= -p "${P[primary_pid]},${P[vault_pid]}" | xargs)"
  goes_through 'memif nobody'
  check 'nobody: down' nobody "$work/nobody/pair" down "$work/nobody/p"
}

if [ "$(id -u)" != 0 ]; then
  ok 'no root was needed so far'
elif ! nobody true 2>/dev/null; then
  skip 'nobody' 'this root cannot become nobody'
else
  nobody_round
fi
finish
