#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Round after round the primary or the vault, or both, are killed at a random moment while eight
# clients write; whatever was acknowledged must be there when they are back, and at last at the
# vault alone. ROUNDS=100 SEED=n for the long run; DEV=memif for the other device.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq python3 ip
rounds=${ROUNDS:-10}
RANDOM=${SEED:-$$}
echo "rounds $rounds, SEED=${SEED:-$$}"
# A memif peer that dies under traffic can take the other with it; af_packet cannot.
dev=${DEV:-af_packet}
if [ "$dev" != memif ] && ! ip netns list >/dev/null 2>&1; then skip_all 'no network namespaces'; fi
if [ "$dev" != memif ] && [ "$(id -u)" != 0 ]; then skip_all 'not root'; fi

# Journals so small that folds are under way all the time.
pair_up "$work/p" size=64MiB journal=16MiB dev="$dev" rate=1Gbit/s
socket=$work/p/primary/nbd.sock

write_for() { # write_for SECONDS: in the background, as $load; until its clients are connected
  rm -f "$work/wrote"
  timeout -k 1 90 "$here/writer.py" write "$work/memory" "$socket" vol0 "$1" >"$work/wrote" 2>&1 &
  load=$!
  pids+=("$load")
  within 20 grep -q connected "$work/wrote"
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
  kill_at_random "$2"
  if [ "$2" = vault ]; then sleep "0.$((RANDOM % 10))"; fi
  start_again "$2" || return 1
  wait "$load" || { echo "the clients saw:"; cat "$work/wrote"; return 1; }
  total=$((total + $(sed -n 's/ writes ack.*//p' "$work/wrote")))
  within 30 replicates || { echo "not protected again:"; ctl primary status; return 1; }
  out=$(there "$socket") || { echo "$out"; return 1; }
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
echo "$total writes acknowledged"
check 'enough was written to say anything' test "$total" -gt $((rounds * 10))

# At last the primary is lost while clients write, and w - k stores with it.
write_for 20
sleep 2
check 'the primary is lost' pair kill "$work/p" primary
wait "$load"
equal 'the clients saw nothing wrong' 0 $?
rm "${P[device]}"
rm -r "${P[stores]:?}/$((RANDOM % 6))"
check 'promoted' promote_serves
check 'nothing acknowledged is missing at the vault' there "$work/p/vault/nbd.sock"
finish
