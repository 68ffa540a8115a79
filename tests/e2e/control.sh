#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the daemon answers on its control socket: orders given at the wrong site or to a vault that
# nobody has met, more clients than there are places, and files that are not its own.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq fio

site_config() { # site_config SED-SCRIPT: in place
  sed -i "$1" "${P[config]}"
}

pair_up "$work/p" size=64MiB journal=16MiB hugepages=off
check 'both are synced' synced

# ---- what it takes ----
# All is taken at start, so a load changes nothing. What `status` tells is what the process has but
# for program and libraries.
resident() { sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$1/status"; }
mib=$((1 << 20))
fio --name=load --ioengine=nbd --uri="${P[primary_nbd]}" --rw=randrw --bsrange=4k-256k \
  --iodepth=16 --size=48M >"$work/fio" 2>&1
equal 'a load' 0 $?
for node in primary vault; do
  told=$(("$("$casemate" --json config check "${P[config]}" | jq ".memory_bytes.$node")" / mib))
  taken=$(($(status $node .memory_bytes) / mib))
  has=$(($(resident "${P[${node}_pid]}") * 1024 / mib))
  check "$node: $has MiB, config check says up to $told" test "$has" -le "$told"
  check "$node: status says $taken, config check up to $told" test "$taken" -le "$told"
  check "$node: $has MiB, status says $taken and 64 for the program" test "$has" -le $((taken + 64))
done

# ---- the wrong site ----
primary_promotes() { ctl primary promote vol0 --key "${P[key]}" --yes; }
refused 'a primary is not promoted' "this site is the group's primary" primary_promotes

# ---- more clients than places ----
pair kill "${P[dir]}" primary
"$casemate" --config "${P[config]}" --node vault config check >/dev/null || give_up 'config check'
pair kill "${P[dir]}" vault
rm -r "${P[stores]:?}"
check 'new stores' "$casemate" --config "${P[config]}" --node vault volume create vol0
pair start "${P[dir]}" vault >/dev/null
within 10 opened
vault_waits() { ctl vault wait vol0 --synced --timeout "$1"; }
refused 'a vault that nobody has met is not synced' 'no primary has been here yet' vault_waits 1s
waits=()
for i in {1..8}; do
  vault_waits 600s >"$work/wait$i" 2>&1 &
  waits+=($!)
done
pids+=("${waits[@]}")
told() { [ "$(cat "$work"/wait? | grep -c 'kept for other verbs')" = 2 ]; }
check 'the last two places are not for those who wait' within 10 told
refused 'another wait is refused' 'kept for other verbs' vault_waits 1s
check 'status finds a place' opened
kill "${waits[@]}" 2>/dev/null
wait "${waits[@]}" 2>/dev/null
pids=()
waits_again() { ! vault_waits 0.1s 2>&1 | grep -q 'kept for'; }
check 'places of those who left are free again' within 10 waits_again

# ---- what is not its own ----
pair kill "${P[dir]}" vault
vault_tries() { timeout 60 "$CASEMATE_BUILD/apps/casemated" --config "${P[config]}" --node vault; }
another_shape() { # another_shape WHAT SED-SCRIPT MADE SAYS: in the configuration
  cp "${P[config]}" "$work/config"
  site_config "$2"
  refused "$1 is told" "store 0 .*/stores/0 was made for $3, but the configuration says $4" \
    vault_tries
  refused "$1: so that nothing starts" 'can be used: were sizes or the geometry changed' vault_tries
  cp "$work/config" "${P[config]}"
}
another_shape 'a larger size' 's|size: 64MiB|size: 128MiB|' \
  'vol0 with 67108864 bytes in blocks of 65536' 'vol0 with 134217728 in blocks of 65536'
another_shape 'a smaller size' 's|size: 64MiB|size: 32MiB|' \
  'vol0 with 67108864 bytes in blocks of 65536' 'vol0 with 33554432 in blocks of 65536'
another_shape 'another block' 's|block: 64KiB|block: 32KiB|' \
  'vol0 with 67108864 bytes in blocks of 65536' 'vol0 with 67108864 in blocks of 32768'
another_shape 'another name' 's|- name: vol0|- name: vol1|' 'vol0 with .*' 'vol1 with .*'
another_shape 'another geometry' 's|parity: 2|parity: 1|; \|stores/5$|d' '4[+]2' '4[+]1'
echo precious >"$work/file"
site_config "s|control: .*/vault/ctl.sock|control: $work/file|"
refused 'a file in the place of the socket is told' "cannot listen at $work/file" vault_tries
equal 'and is left alone' precious "$(cat "$work/file")"

finish
