#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How a daemon begins and ends: what is missing at its start is said in one line, and every signal
# that ends it, at any moment, ends it in order.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq qemu-io

casemated=$CASEMATE_BUILD/apps/casemated
pair_up "$work/p" size=16MiB journal=16MiB hugepages=off data=2 parity=1
check 'a pair is made, and put down' pair down "$work/p"
config=${P[config]}
runtime=/run/dpdk
[ "$(id -u)" = 0 ] || runtime=${XDG_RUNTIME_DIR:-/tmp}/dpdk

# ---- starts that fail ----

start() { timeout -k 1 60 "$casemated" --config "$work/wrong.yaml" --node primary; }

for _ in 1 2 3 4; do # what had begun when the start failed depends on the moment
  sed "s|ca: .*|ca: $work/none.pem|" "$config" >"$work/wrong.yaml"
  cannot_start 'no certificate of the authority' "$work/none.pem" start
  sed "s|control: .*|control: $work/none/ctl.sock|" "$config" >"$work/wrong.yaml"
  cannot_start 'no directory for the control socket' "$work/none/ctl.sock: No such file" start
  sed "s|^link:|link:\\n  psk: \"file:$work/none.psk\"|" "$config" >"$work/wrong.yaml"
  cannot_start 'no pre-shared key' "$work/none.psk: No such file" start
done
sed "s|eal: \"net_memif0,.*|eal: \"net_nothing0\"|; s|device: net_memif0|device: net_nothing0|" \
  "$config" >"$work/wrong.yaml"
cannot_start 'no such device' 'DPDK' start

# A device and an intent log that are no such things; each has its place again afterwards.
device=${P[device]}
cp "$config" "$work/wrong.yaml"
mv "$device.intent" "$work/intent"
cannot_start 'no intent log' 'no intent log .*vol0.intent: bring it back, or promote' start
truncate -s "$(stat -c %s "$work/intent")" "$device.intent"
cannot_start 'an intent log of zeros' 'does not begin as one; bring it back, or promote' start
mv "$work/intent" "$device.intent"
mv "$device" "$work/device"
cannot_start 'a device that was there once' 'no device .* any more: bring it back, or promote' start
mv "$device.intent" "$work/intent"
cannot_start 'one that never was' "no device $device; casemate volume create makes it" start
mv "$work/intent" "$device.intent"
mkfifo "$device"
cannot_start 'a pipe for a device' "$device is neither a file nor a block device" start
rm "$device"
mkdir "$device"
cannot_start 'a directory for a device' "$device is neither a file nor a block device" start
rmdir "$device"
mv "$work/device" "$device"
equal 'no directory of DPDK is left' '' \
  "$(find "$runtime" -maxdepth 1 -name "casemate-primary-*" -newer "$work/p/settings" 2>/dev/null)"

# ---- both ends at once ----

# Degraded is an answer too, whatever code `status` ends with.
answers() { { "$casemate" --socket "$work/p/$1/ctl.sock" --json status || true; } | jq -e "$2"; }

daemon() { # daemon NODE: a child of ours, so that we see how it ends
  "$casemated" --config "$config" --node "$1" >"$work/$1.log" 2>&1 &
  pids+=($!)
}

pair_of_children() {
  daemon primary && primary=$!
  daemon vault && vault=$!
  within 10 answers primary .linked
}

codes=''
for _ in {1..12}; do
  pair_of_children || give_up 'both start' "$(cat "$work"/{primary,vault}.log)"
  kill -TERM "$primary" "$vault"
  wait "$primary"
  codes+="$? "
  wait "$vault"
  codes+="$? "
  pids=()
done
equal 'both are told to stop at once, 12 times: all end well' '' "${codes//0 /}"

# ---- signals ----

catches() { # catches PID SIGNAL-NUMBER: as casemated, not as the shell that becomes it
  local mask
  [ "$(cat "/proc/$1/comm")" = casemated ] || return
  mask=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status")
  ((0x${mask:-0} >> ($2 - 1) & 1))
}

ends() { # ends WHAT PID NODE PATTERN: well, and with this in its log
  wait "$2"
  equal "$1: ends well" 0 $?
  pids=()
  says "$1: $4" "$4" "$(cat "$work/$3.log")"
}

daemon primary && primary=$!
within 10 catches "$primary" 15
kill -TERM "$primary"
ends 'SIGTERM during the start' "$primary" primary 'info stopped before the start was over$'
for signal in HUP INT; do
  daemon primary && primary=$!
  check "SIG$signal: it answers" within 10 answers primary .groups
  kill -$signal "$primary"
  ends "SIG$signal" "$primary" primary 'info stopped$'
done

# ---- what was not durable when it stopped ----

write_waits() { # a write that the vault cannot take any more; its client waits for the answer
  qemu-io -f raw -c 'write -P 0x77 1M 64k' "nbd+unix:///vol0?socket=$work/p/primary/nbd.sock" \
    >"$work/qemu" 2>&1 &
  within 10 answers primary '.clients.requests > 0'
}

late='warning .*not everything was durable in time: (the vault lacks|clients wait)'
for ack in durable local; do
  sed -i "s/^    ack: .*/    ack: $ack/" "$config"
  pair_of_children || give_up "ack: $ack: both start" "$(cat "$work"/{primary,vault}.log)"
  within 10 answers primary '.groups[0].state == "replicating"'
  kill -KILL "$vault"
  wait "$vault" 2>/dev/null
  check "ack: $ack: a write comes that the vault cannot take" write_waits
  kill -TERM "$primary"
  ends "ack: $ack: a stop without the vault" "$primary" primary "$late"
done
pair_of_children || give_up 'both start' "$(cat "$work"/{primary,vault}.log)"
within 10 answers primary '.groups[0].state == "replicating"'
check 'a write arrives' qemu-io -f raw -c 'write -P 0x78 1M 64k' -c flush "${P[primary_nbd]}"
kill -TERM "$primary"
ends 'a stop with the vault' "$primary" primary 'info stopped$'
equal 'which lacks nothing' '' "$(grep 'not everything' "$work/primary.log")"
kill -TERM "$vault"
ends 'and the vault' "$vault" vault 'info stopped$'
finish
