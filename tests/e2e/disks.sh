#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Disks that fail under a running pair: a sync that fails once and then lies, writes and reads that
# fail, a disk that is full, a device that dies. A store goes out with one line, the others go on,
# nothing acknowledged is lost, and it comes back by a rebuild.
#
# The failing disk is a server of nbdkit whose every operation is a line of shell, seen as a file
# through nbdfuse and mounted over the file of a store.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq qemu-io nbdcopy nbdkit nbdfuse losetup ip
[ "$(id -u)" = 0 ] || skip_all 'not root: file systems are mounted'
[ -c /dev/fuse ] || skip_all 'no /dev/fuse'
ip netns list >/dev/null 2>&1 || skip_all 'no network namespaces'

store_is() { # store_is INDEX JQ-CONDITION
  status_is vault ".groups[0].stores[$1] | $2"
}
store_serves() { store_is "$1" '.state == "ready" and .in_service'; }
store_out() { store_is "$1" '(.in_service | not)'; }
floors_meet() { status_is vault '[.groups[0].stores[].floor] | unique | length == 1'; }
replicates() { status_is primary '.groups[0] | .state == "replicating" and .protected'; }
rebuilt() {
  rebuild "$1" && within 30 store_serves "$1" && synced && floors_meet
}
write_at() { # write_at MIB PATTERN: 4 MiB, acknowledged
  timeout 60 qemu-io -f raw -c "write -P $2 ${1}M 4M" -c flush "${P[primary_nbd]}" | grep -q ' ops;'
}
lines() { # lines NODE PATTERN: how many of its log say so
  log_of "$1" | grep -cE -- "$2"
}

# ---- a disk that does as it is told: $failing/NAME/{sync,write,read} make it fail, hang hang ----

failing=$work/failing

# What was written since the last sync that went well is gone when one fails: as on a real disk.
disk_script() { # disk_script sync|write|read
  case $1 in
  sync)
    echo "if [ -e sync ]; then rm sync; echo x >>failed; cp good file; echo EIO >&2; exit 1; fi;"
    echo "cp file good; echo x >>synced"
    ;;
  write)
    echo "if [ -e write ]; then echo EIO >&2; exit 1; fi;"
    echo "dd of=file conv=notrunc oflag=seek_bytes seek=\$4 bs=1M status=none"
    ;;
  read)
    echo "if [ -e read ]; then echo EIO >&2; exit 1; fi;"
    echo "dd if=file iflag=skip_bytes,count_bytes skip=\$4 count=\$3 bs=1M status=none"
    ;;
  esac
}

disk_fails() { # disk_fails NAME FILE: from now on FILE lies on such a disk
  local disk=$failing/$1 at
  # Not for ever: a daemon that waits for a disk cannot be killed.
  at="cd $disk; n=0; while [ -e hang ] && [ \$((n += 1)) -lt 1500 ]; do sleep 0.1; done;"
  mkdir -p "$disk/seen"
  cp "$2" "$disk/file"
  cp "$2" "$disk/good"
  nbdkit -U "$disk/socket" -P "$disk/nbdkit.pid" eval \
    get_size="stat -c %s $disk/file" can_write='exit 0' can_flush='exit 0' \
    pread="$at $(disk_script read)" pwrite="$at $(disk_script write)" \
    flush="$at $(disk_script sync)" || return 1
  nbdfuse "$disk/seen/file" "nbd+unix://?socket=$disk/socket" >/dev/null 2>&1 &
  within 10 test -f "$disk/seen/file" && mount --bind "$disk/seen/file" "$2"
}

# Found and not remembered: a check runs in a shell of its own.
all_unmounted() {
  local at
  for at in $(awk '{ print $2 }' /proc/self/mounts | grep "^$work/" | tac); do
    umount "$at" || umount -l "$at"
  done
  for at in "$failing"/*/nbdkit.pid; do kill "$(cat "$at")"; done
  [ -z "${loop:-}" ] || losetup -d "$loop"
}
undo+=(all_unmounted)

unmount() { # the ring of a daemon that was killed holds its files a moment longer
  within 10 umount "$1"
}

disk_good() { # disk_good NAME FILE: the file lies on a good disk again, with what the other held
  unmount "$2" && unmount "$failing/$1/seen" || return 1
  cp "$failing/$1/file" "$2"
}

vault_with() { # vault_with COMMAND...: done while it is stopped
  pair kill "${P[dir]}" vault
  "$@" && pair start "${P[dir]}" vault
}

pair_up "$work/p" size=64MiB journal=16MiB dev=af_packet hugepages=off
stores=${P[stores]}
check 'written' write_at 0 1

# ---- a sync that fails once, and then says that all is well ----

check 'store 3 on a disk that obeys' vault_with disk_fails sync "$stores/3/journal"
check 'it serves' within 20 store_serves 3
within 30 replicates
check 'written through it' write_at 4 2
check 'it was synced, not only told to' within 10 test -s "$failing/sync/synced"
check 'by syncs of its own' within 5 status_is vault '.lane.disk.synced_apart > 0'
check 'all floors meet' synced
disk_failed=$(status vault .lane.disk.failed)
touch "$failing/sync/sync"
check 'a sync fails: the write is acknowledged' write_at 8 3
check 'it has failed' within 10 test -s "$failing/sync/failed"
check 'the store is out' within 10 store_out 3
equal 'with one line that says what to do' 1 \
  "$(lines vault 'store 3 is out \(errno 5\): casemate store rebuild brings it back')"
check 'and is counted' within 5 status_is vault ".lane.disk.failed > $disk_failed"
check 'acknowledgements go on' write_at 12 4
equal 'one sync has failed' 1 "$(wc -l <"$failing/sync/failed")"
check 'the vault starts again' vault_with true
within 30 replicates
check 'it is still out: the disk is not believed again' store_out 3
check 'acknowledgements go on after it' write_at 16 5
check 'the disk is replaced' vault_with disk_good sync "$stores/3/journal"
within 30 replicates
check 'the store is rebuilt, and all floors meet' rebuilt 3

# ---- writes that fail, then reads ----

check 'store 1 on a disk that obeys' vault_with disk_fails write "$stores/1/journal"
check 'it serves' within 20 store_serves 1
within 30 replicates
touch "$failing/write/write"
check 'a write to it fails: the client hears nothing of it' write_at 20 6
check 'the store is out' within 10 store_out 1
equal 'with one line' 1 "$(lines vault 'store 1 is out \(errno 5\)')"
check 'acknowledgements go on' write_at 24 7
check 'the disk is replaced' vault_with disk_good write "$stores/1/journal"
within 30 replicates
check 'the store is rebuilt' rebuilt 1

check 'the image of store 0 on a disk that obeys' \
  vault_with disk_fails read "$stores/0/image-vol0"
check 'it serves' within 20 store_serves 0
within 30 replicates
check 'all floors meet' synced
touch "$failing/read/read"
out=$(ctl vault --json scrub vol0 2>&1)
equal 'what cannot be read is found, and no block is lost' 'true 0' \
  "$(jq -r '"\(.bad > 0) \(.blocks_lost)"' <<<"$out")"
check 'acknowledgements go on' write_at 28 8
rm -f "$failing/read/read"
check 'the disk is replaced' vault_with disk_good read "$stores/0/image-vol0"
within 30 replicates
within 10 store_serves 0 || check 'store 0 is rebuilt' rebuilt 0
ctl vault scrub vol0 >/dev/null 2>&1
equal 'nothing is left to repair' '0 0' \
  "$(ctl vault --json scrub vol0 | jq -r '"\(.bad) \(.blocks_lost)"')"

# ---- a disk that hangs ----

let_go() { rm -f "$failing"/*/hang; }
hang_on() { disk_fails hang-image "$stores/4/image-vol0" && disk_fails hang "$stores/4/journal"; }
let_off() {
  disk_good hang "$stores/4/journal" && disk_good hang-image "$stores/4/image-vol0"
}
check 'store 4 on disks that obey' vault_with hang_on
check 'it serves' within 20 store_serves 4
within 30 replicates
check 'all floors meet' synced
touch "$failing/hang/hang" "$failing/hang-image/hang"
hangs_since=$SECONDS
check 'its disks hang: writes are acknowledged' write_at 36 10
ctl vault scrub vol0 >/dev/null 2>&1 &
pids+=($!)
# Twice as long as a store is waited for, and more: none of the others looks as if it hung.
on_for_long() { write_at 40 11 && [ $((SECONDS - hangs_since)) -ge 25 ]; }
check 'acknowledgements go on for long' within 60 on_for_long
let_go
check 'the store is out' within 10 store_out 4
equal 'with one line' 1 "$(lines vault 'store 4 is out \(errno')"
equal 'and no other store is' 0 "$(lines vault 'store [01235] is out \(errno 110')"
check 'the disk is replaced' vault_with let_off
within 30 replicates
check 'the store is rebuilt' rebuilt 4

# ---- full ----

mkdir "$work/small"
mount -t tmpfs -o size=6m cm-e2e "$work/small" || give_up 'no tmpfs'
undo+=("umount '$work/small'")
onto_small() {
  mv "$stores/5" "$work/away"
  mkdir "$stores/5" && mount --bind "$work/small" "$stores/5"
}
check 'the disk of store 5 is replaced by a small one' vault_with onto_small
within 30 replicates
refused 'a rebuild finds no room, and says where' 'stores/5.*No space left' \
  rebuild 5
check 'the others go on' write_at 32 9
check 'the store is out' store_out 5
off_small() { unmount "$stores/5" && rmdir "$stores/5" && mv "$work/away" "$stores/5"; }
check 'the old disk is back' vault_with off_small
within 30 replicates
check 'what it missed keeps it out' within 10 store_out 5
check 'store 5 is rebuilt' rebuilt 5

# ---- a disk that is slow ----

need mkfs.ext4
slow=$failing/slow
slow_up() { # its file system is made at full speed
  mkdir -p "$slow/seen" "$work/slow"
  echo 10G >"$slow/rate"
  nbdkit -U "$slow/socket" -P "$slow/nbdkit.pid" --filter=rate memory 64M \
    rate-file="$slow/rate" || return 1
  nbdfuse "$slow/seen/file" "nbd+unix://?socket=$slow/socket" >/dev/null 2>&1 &
  within 10 test -f "$slow/seen/file" || return 1
  loop=$(losetup --find --show --direct-io=on "$slow/seen/file") || return 1
  mkfs.ext4 -q -O ^has_journal -E nodiscard "$loop"
  mv "$stores/5" "$work/away" && mkdir "$stores/5" && mount "$loop" "$stores/5"
}
slow_off() {
  unmount "$stores/5" && losetup -d "$loop" && loop= && unmount "$slow/seen" &&
    rmdir "$stores/5" && mv "$work/away" "$stores/5"
}
rebuilds_begun() { lines vault 'store 5: its files are being made'; }
begins() { [ "$(rebuilds_begun)" -gt "$begun" ]; }
status_answers() { # whatever it says: a store is out
  local out
  out=$(timeout 15 "$casemate" --socket "${P[vault_ctl]}" --json status)
  jq -e '.groups[0].stores[5].state == "absent"' <<<"$out"
}
vault_gone() { ! kill -0 "$vault_pid" 2>/dev/null; }

# Not by check, which runs it in a shell of its own: it sets loop.
pair kill "${P[dir]}" vault
slow_up || give_up 'store 5 on a disk that can be slow'
check 'store 5 on a disk that can be slow' pair start "${P[dir]}" vault
within 30 replicates
within 10 opened
begun=$(rebuilds_begun)
echo 4M >"$slow/rate" # bits: half a minute for the journal
ctl vault store rebuild vol0 5 >"$work/slow.out" 2>&1 &
rebuilding=$!
check 'a rebuild begins' within 5 begins
check 'the daemon answers' status_answers
check 'and again' status_answers
check 'while files are made' kill -0 "$rebuilding"
check 'the others go on' write_at 48 13
refused 'a second one is told to wait' 'under way' ctl vault store rebuild vol0 5
vault_pid=$(cat "${P[dir]}/vault/pid")
kill -TERM "$vault_pid"
check 'asked to stop, it stops' within_exactly 15 vault_gone
equal 'half-made files are gone' 'lost+found' "$(ls "$stores/5")"
wait "$rebuilding"
says 'the command is told' 'does not answer' "$(cat "$work/slow.out")"
echo 10G >"$slow/rate"
check 'the vault starts again' pair start "${P[dir]}" vault
within 30 replicates
check 'store 5 is rebuilt there' rebuilt 5
pair kill "${P[dir]}" vault
slow_off || give_up 'the old disk is back'
check 'the old disk is back' pair start "${P[dir]}" vault
within 30 replicates
check 'store 5 is rebuilt' rebuilt 5

# ---- the device of the primary dies ----

check 'all floors meet' synced
pair kill "${P[dir]}" primary
check 'the device on a disk that obeys' disk_fails device "${P[device]}"
check 'the primary starts' pair start "${P[dir]}" primary
check 'and replicates' within 30 replicates
touch "$failing/device/write"
refused 'a write that the device does not take is not acknowledged' 'error' \
  qemu-io -f raw -c 'write -P 99 40M 64k' "${P[primary_nbd]}"
check 'the group stops' within 10 status_is primary '.groups[0].state == "stopped"'
equal 'and says why' '1 1' "$(lines primary 'vol0: a write to the device failed') $(lines primary \
  'vol0: stopped \(errno 5\): repair what failed and start again, or promote the vault')"
refused 'nothing is acknowledged any more' 'error|not available' \
  qemu-io -f raw -c 'write -P 98 0 4k' "${P[primary_nbd]}"
check 'the primary is stopped' pair kill "${P[dir]}" primary

# ---- and nothing is lost: also without m of the stores, those that never failed ----

rm -r "${stores:?}/2" "$stores/5"
check 'the vault is promoted' promote_serves
# The write that failed may have come as far as the vault, or not: it was never answered.
nbdcopy --connections=4 "${P[vault_nbd]}" "$work/served"
nbdcopy --connections=4 "${P[vault_nbd]}" "$work/plain"
qemu-io -f raw -c 'write -P 0 40M 64k' "$work/plain" >/dev/null
cp "$failing/device/good" "$work/device"
qemu-io -f raw -c 'write -P 0 40M 64k' "$work/device" >/dev/null
check 'with all that was acknowledged' cmp "$work/device" "$work/plain"
finish
