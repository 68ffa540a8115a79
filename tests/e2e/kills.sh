#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Round after round the primary or the vault, or both, are killed at a random moment while eight
# clients of our own and fio write; whatever was acknowledged must be there when they are back, and
# at last at the vault alone. Ours remember every acknowledgement of all rounds; fio verifies each
# round with the state that it saved when its server died. ROUNDS=100 SEED=n for the long run;
# DEV=memif for the other device.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq python3 ip fio
rounds=${ROUNDS:-10}
RANDOM=${SEED:-$$}
echo "rounds $rounds, SEED=${SEED:-$$}"
# A memif peer that dies under traffic can take the other with it; af_packet cannot.
dev=${DEV:-af_packet}
if [ "$dev" != memif ] && ! ip netns list >/dev/null 2>&1; then skip_all 'no network namespaces'; fi
if [ "$dev" != memif ] && [ "$(id -u)" != 0 ]; then skip_all 'not root'; fi

# Journals so small that folds are under way all the time.
pair_up "$work/p" size=96MiB journal=16MiB dev="$dev" rate=1Gbit/s
socket=$work/p/primary/nbd.sock
export WRITER_BYTES=$((64 << 20)) # the rest is fio's

write_for() { # write_for SECONDS: in the background, as $load; until its clients are connected
  rm -f "$work/wrote"
  timeout -k 1 90 "$here/writer.py" write "$work/memory" "$socket" vol0 "$1" >"$work/wrote" 2>&1 &
  load=$!
  pids+=("$load")
  within 20 grep -q connected "$work/wrote"
}

# fio_run SERVER SEED [OPTION...]: acknowledgements come in the order of the writes, as fio's state
# assumes of all but the last few.
fio_run() {
  (cd "$work" && timeout -k 1 90 fio --name=state --ioengine=nbd --uri="$1" --rw=randwrite --bs=4k \
    --offset=64M --size=32M --verify=crc32c --randseed="$2" --output-format=json "${@:3}")
}

fio_for() { # fio_for SEED SECONDS: in the background, as $fio, until it is connected beside ours
  rm -f "$work"/*-verify.state
  fio_run "${P[primary_nbd]}" "$1" --iodepth=8 --runtime="$2" --do_verify=0 --verify_state_save=1 \
    >"$work/fio.out" 2>&1 &
  fio=$!
  pids+=("$fio")
  within 20 status_is primary '.clients.connections > 8'
}

verified=0
fio_there() { # fio_there SERVER SEED: what its state tells is there
  fio_run "$1" "$2" --iodepth=1 --verify_only=1 --verify_state_load=1 >"$work/fio.verify" 2>&1 ||
    { grep -v '^ *["{}]' "$work/fio.verify"; return 1; }
  verified=$((verified + $(sed -n '/^{/,$p' "$work/fio.verify" | jq '.jobs[0].read.total_ios')))
}

there() { "$here/writer.py" check "$work/memory" "$1" vol0; }

replicates() { status_is primary '.groups[0] | .state == "replicating" and .protected'; }

node_runs() { kill -0 "$(cat "$work/p/$1/pid" 2>/dev/null)" 2>/dev/null; }

kill_at_random() { # kill_at_random VICTIM
  sleep "0.$((RANDOM % 10))$((RANDOM % 10))"
  if [ "$1" = both ]; then
    pair kill "$work/p" vault & # at the same moment
    pair kill "$work/p" primary
    wait $!
  else
    pair kill "$work/p" "$1"
  fi
}

start_again() { # start_again VICTIM
  local node
  for node in primary vault; do
    if [ "$1" = "$node" ] || [ "$1" = both ]; then
      pair start "$work/p" "$node" || return 1
    elif ! node_runs "$node"; then
      echo "the $node did not survive the death of the other"
      log_of "$node" | tail -n 5
      return 1
    fi
  done
}

total=0
round() { # round NUMBER VICTIM
  local out
  write_for 3 || { cat "$work/wrote"; return 1; }
  fio_for "$1" 3 || { cat "$work/fio.out"; return 1; }
  kill_at_random "$2"
  if [ "$2" = vault ]; then sleep "0.$((RANDOM % 10))"; fi
  start_again "$2" || return 1
  wait "$load" || { echo "the clients saw:"; cat "$work/wrote"; return 1; }
  wait "$fio" || [ "$2" != vault ] || { echo "fio saw:"; cat "$work/fio.out"; return 1; }
  total=$((total + $(sed -n 's/ writes ack.*//p' "$work/wrote")))
  within 30 replicates || { echo "not protected again:"; ctl primary status; return 1; }
  out=$(there "$socket") || { echo "$out"; return 1; }
  fio_there "${P[primary_nbd]}" "$1"
}

victims=(primary vault primary vault both)
for ((i = 1; i <= rounds; i++)); do
  victim=${victims[(i - 1) % 5]}
  if round "$i" "$victim" >"$work/round" 2>&1; then
    ok "round $i, $victim"
  else
    not_ok "round $i, $victim" "$(cat "$work/round")"
    break
  fi
done
echo "$total writes acknowledged, $verified blocks of fio verified"
check 'enough was written to say anything' test "$total" -gt $((rounds * 10))
check 'by fio too' test "$verified" -gt $((rounds * 10))

# At last the primary is lost while clients write, and w - k stores with it.
write_for 20
fio_for 0 20
sleep 2
check 'the primary is lost' pair kill "$work/p" primary
wait "$load"
equal 'the clients saw nothing wrong' 0 $?
wait "$fio"
rm "${P[device]}"
rm -r "${P[stores]:?}/$((RANDOM % 6))"
check 'promoted' promote_serves
check 'nothing acknowledged is missing at the vault' there "$work/p/vault/nbd.sock"
check 'nor what fio verifies' fio_there "${P[vault_nbd]}" 0
finish
