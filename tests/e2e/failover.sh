#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The primary and its device are gone, and as many stores as may be: what the vault serves with the
# key is what was written. With more of them gone it refuses and says what is missing.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need nbdcopy qemu-io fio jq python3

random_file "$work/in" 48

# Something of everything: a copy, small writes that are verified as they go, holes.
fill() {
  nbdcopy --connections=4 --flush "$work/in" "${P[primary_nbd]}" &&
    fio --name=fill --ioengine=nbd --uri="${P[primary_nbd]}" --rw=randwrite --bsrange=4k-128k \
      --iodepth=16 --io_size=8m --size=48m --verify=crc32c --randseed=3 --minimal &&
    qemu-io -f raw -c 'discard 1M 512k' -c 'write -z 3000001 70001' \
      -c 'write -f -P 0x5a 60M 1M' "${P[primary_nbd]}"
}

primary_lost() { # the site is: process and device
  pair kill "${P[dir]}" primary && rm "${P[device]}"
}

stores_delete() { # stores_delete COUNT: some of the first, which hold data, not parity
  local i
  for ((i = 0; i < $1; i++)); do rm -r "${P[stores]:?}/$((2 * i % stores))"; done
}

made() { # made DATA+PARITY BLOCK: a pair with something written
  local data=${1%+*} parity=${1#*+}
  shape="$1"
  pair_up "$work/p$1" size=64MiB journal=16MiB block="$2" data="$data" parity="$parity"
  stores=$((data + parity))
  fill >"$work/fill" 2>&1 || give_up "$shape: fill" "$(cat "$work/fill")"
  before=$(digest "${P[primary_nbd]}")
}

# lost DATA+PARITY BLOCK COUNT [synced]: COUNT stores and the primary are lost.
lost() {
  made "$1" "$2"
  if [ "${4:-}" = synced ]; then check "$shape: all floors meet" synced; fi
  check "$shape: the primary is lost" primary_lost
  stores_delete "$3"
  check "$shape: promoted without $3 stores${4:+, synced}" promote_serves
  equal "$shape: same bytes" "$before" "$(digest "${P[vault_nbd]}")"
  if [ "$3" -gt 0 ] && [ "$1" != 1+1 ] && [ "$1" != 2+1 ]; then
    says "$shape: blocks were decoded" '^[1-9]' "$(status vault '.groups[0].counters.decoded')"
  fi
  pair_down "${P[dir]}"
}

# Without waiting: the loss of w - k stores is promised for what was acknowledged (w = n - 1, and n
# for mirrors); with all floors equal m may go.
lost 4+2 64KiB 1
lost 4+2 64KiB 2 synced
lost 8+2 32KiB 1
lost 8+2 64KiB 2 synced
lost 1+1 16KiB 1
lost 2+1 16KiB 0
lost 2+1 8KiB 1 synced

# One too many deleted under a running vault.
made 2+1 16KiB
check '2+1: all floors meet' synced
check '2+1: the primary is lost' primary_lost
stores_delete 2
out=$(promote)
equal '2+1: m + 1 stores deleted: refused' 1 $?
says '2+1: the stores are listed' 'stores 0,2 back|missing: 0,2' "$out"
says '2+1: and the blocks that are lost' 'blocks lost: vol0 blocks 0-[0-9]+' "$out"
refused '2+1: nothing is served' '.' nbdinfo "${P[vault_nbd]}"
pair_down "${P[dir]}"

# Too many are gone: refused with a list, before and after a restart; nothing is touched by it.
made 4+2 64KiB
check 'floors meet' synced
# A second attempt of the same vault, with other keys and with the primary alive.
refused 'a promotion while the primary lives says what to do' 'alive.*stop casemated' \
  ctl vault promote vol0 --key "${P[key]}" --yes
check 'the primary goes on after it' qemu-io -f raw -c 'write -P 7 63M 64k' "${P[primary_nbd]}"
before=$(digest "${P[primary_nbd]}")
check 'floors meet again' synced
check 'the primary dies' pair kill "${P[dir]}" primary
"$casemate" key generate "$work/other.key" >/dev/null
out=$(promote_with "file:$work/other.key")
equal 'a wrong key is refused' 1 $?
says 'and told from damage' 'wrong key: it does not open volume vol0; nothing was changed' "$out"
equal 'and damage is not spoken of' 0 "$(grep -ciE 'damage|lost|corrupt' <<<"$out")"
says 'the log tells why' 'warning vol0: promotion refused: .*other.key is the wrong key' \
  "$(log_of vault)"
refused 'no key at all' 'none.key|No such file' promote_with "file:$work/none.key"
says 'in the log too' 'promotion refused: .*none.key' "$(log_of vault)"
refused 'what is no path is refused' 'needs an absolute path' promote_with file:0123456789abcdef
says 'and the log tells that' 'promotion refused: its key is no file:' "$(log_of vault)"
equal 'but not what was given: it may be the key' 0 "$(log_of vault | grep -c 0123456789abcdef)"
check 'the vault stops' pair kill "${P[dir]}" vault
mkdir "$work/kept"
mv "${P[stores]}"/{0,2,5} "$work/kept/"
check 'and starts without m + 1 of its stores' pair start "${P[dir]}" vault
out=$(promote)
equal 'm + 1 stores missing: refused' 1 $?
says 'and the missing ones are listed' 'missing: 0,2,5|stores 0,2,5 back' "$out"
refused 'nothing is served' '.' nbdinfo "${P[vault_nbd]}"
pair kill "${P[dir]}" vault
mv "$work/kept"/* "${P[stores]}/"
check 'with the stores back it starts' pair start "${P[dir]}" vault
check 'and is promoted' promote_serves
equal 'and serves the same bytes' "$before" "$(digest "${P[vault_nbd]}")"

# The old primary comes back: it must not serve.
pair start "${P[dir]}" primary >"$work/start" 2>&1
told_so() { grep -qE "$1" <<<"$(log_of primary | tail -n 5; ctl primary status 2>&1)"; }
check 'the old primary is told that its time is over' within 10 \
  told_so 'stale|promoted|generation'
refused 'and acknowledges nothing' '.' timeout 5 qemu-io -f raw -c 'write 0 4k' "${P[primary_nbd]}"
equal 'the promoted side is as it was' "$before" "$(digest "${P[vault_nbd]}")"
pair kill "${P[dir]}" vault
check 'a promoted vault starts again' pair start "${P[dir]}" vault
check 'and is promoted again' promote_serves
equal 'with the same bytes' "$before" "$(digest "${P[vault_nbd]}")"
pair_down "${P[dir]}"

# Killed while eight clients write; then w - k stores are lost as well.
pair_up "$work/q" size=64MiB journal=16MiB
"$here/writer.py" write "$work/memory" "${P[dir]}/primary/nbd.sock" vol0 20 >"$work/wrote" 2>&1 &
load=$!
pids+=("$load")
within 20 grep -q connected "$work/wrote"
sleep 3
stores=6
check 'the primary is lost while clients write' primary_lost
wait "$load"
equal 'the clients saw nothing wrong' 0 $?
cat "$work/wrote"
stores_delete 1
check 'promoted' promote_serves
check 'nothing acknowledged is missing' \
  "$here/writer.py" check "$work/memory" "${P[dir]}/vault/nbd.sock" vol0
finish
