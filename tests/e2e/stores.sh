#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Stores that are wrong, worn or gone, a device that does not fit, a daemon started
# twice: a clear word for each, writes that go on while they may, and nothing lost.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq qemu-io nbdcopy
[ "$(id -u)" = 0 ] || skip_all 'not root: file systems are mounted'

write_some() { # write_some MIB-OFFSET: 8 MiB
  qemu-io -f raw -c "write -P $((RANDOM % 255 + 1)) ${1}M 8M" -c flush "${P[primary_nbd]}" |
    grep -q ' ops;'
}

store_state() { status vault ".groups[0].stores[$1].state"; }
store_serves() { status_is vault ".groups[0].stores[$1] | .state == \"ready\" and .in_service"; }
store_full() { [ "$(store_state "$1")" = full ]; }
store_out() { status_is vault ".groups[0].stores[$1] | .in_service | not"; }
all_serve() { status_is vault '[.groups[0].stores[].in_service] | all'; }
floors_meet() { status_is vault '[.groups[0].stores[].floor] | unique | length == 1'; }
replicates() { status_is primary '.groups[0] | .state == "replicating" and .protected'; }

vault_tells() { grep -qE "$1" <<<"$(log_of vault)"; }

vault_again() { # vault_again COMMAND...: while it is stopped
  pair kill "${P[dir]}" vault
  "$@"
  pair start "${P[dir]}" vault
}

rebuilt() { # rebuilt INDEX: made anew from the others, until all floors meet
  rebuild "$1" && within 30 store_serves "$1" && synced && floors_meet
}

flip() { # flip FILE OFFSET: one bit
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  # shellcheck disable=SC2059
  printf "$(printf '\\%03o' $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

scrub_says() { ctl vault --json scrub vol0 2>/dev/null | jq -r ".$1"; }

same() {
  equal "$1" "$(sha256sum <"${P[device]}" | cut -d' ' -f1)" "$(digest "${P[primary_nbd]}")"
}

pair_up "$work/p" size=64MiB journal=16MiB
stores=${P[stores]}

# ---- images have their space from the start, and keep it ----
space_held() {
  local image
  for image in "$stores"/*/image-vol0; do
    [ $(($(stat -c '%b * %B' "$image"))) -ge "$(stat -c %s "$image")" ] || return 1
  done
}
check 'images have their space' space_held
mkdir "$work/ram"
if mount -t ramfs cm-e2e "$work/ram" 2>/dev/null; then
  undo+=("umount '$work/ram'")
  sed -e "s|$work/p/stores|$work/ram/stores|" -e "s|state: $work/p|state: $work/ram|" \
    "${P[config]}" >"$work/ram.yaml"
  out=$("$casemate" --config "$work/ram.yaml" --node vault volume create vol0 2>&1)
  equal 'where a file system cannot hold it, that is said once' 1 \
    "$(grep -c 'stores/0/image-vol0.*cannot hold space' <<<"$out")"
  umount "$work/ram"
else
  skip 'a file system that holds no space' 'no mounts'
fi

# ---- so has the device, unless it was given without ----
device_bytes() { # device_bytes: that it holds
  stat -c '%b * %B' "${P[device]}" | { read -r sum && echo $((sum)); }
}
whole() { # whole: it holds as many as it has
  [ "$(device_bytes)" -ge "$(stat -c %s "${P[device]}")" ]
}
write_and_discard() { # write_and_discard PATTERN
  qemu-io -f raw -c "write -P $1 0 16M" -c flush -c 'discard 0 16M' -c flush \
    -c 'read -P 0 0 16M' "${P[primary_nbd]}"
}
check 'the device has its space' whole
check 'written, discarded, and zeros' write_and_discard 20
check 'the device has its space still' whole
refused 'nothing is said of it' '^$' grep 'is sparse' "${P[dir]}/primary/log"
pair kill "${P[dir]}" primary
fallocate --punch-hole --offset 0 --length 32MiB "${P[device]}"
thin=$(device_bytes)
check 'started with one that has less' pair start "${P[dir]}" primary
within 30 replicates
says 'that is said' 'vol0: device .* is sparse' "$(log_of primary)"
check 'written, discarded, and zeros' write_and_discard 21
check 'it gave the space back' test "$(device_bytes)" -le "$((thin + 1048576))"
pair kill "${P[dir]}" primary
fallocate --length 64MiB "${P[device]}"
check 'its space is had again' pair start "${P[dir]}" primary
within 30 replicates
check 'written, discarded, and zeros' write_and_discard 22
check 'and kept' whole
same 'the same is served'

# ---- deleted under a running vault ----
milliseconds() { date -d "$1" +%s%3N; }
store_deleted() { # store_deleted INDEX: and how long it took to be noticed, into noticed
  local at
  at=$(milliseconds now)
  rm -r "${stores:?}/$1"
  within 5 store_out "$1" || not_ok "the deleted store $1 is noticed"
  noticed+=($(($(milliseconds "$(log_of vault | sed -n "s/ .* store $1 lost its files.*//p" |
    tail -n 1)") - at)))
}
noticed=()
check 'written' write_some 0
store_deleted 3
check 'writes go on with the others' write_some 8
says 'the log tells' 'store 3' "$(log_of vault)"
check 'rebuilt, and all floors meet' rebuilt 3
check 'discarded' qemu-io -f raw -c 'discard 0 16M' -c flush "${P[primary_nbd]}"

# ---- rebuilt when it may not be: a word, and no file is touched ----
files_of() { # files_of INDEX: which they are
  stat -c '%n %i %s' "$stores/$1"/*
}
untouched() { # untouched WHAT FILES INDEX
  equal "$1: no file is touched" "$2" "$(files_of "$3")"
}
before=$(files_of 2)
refused 'a store in service is not rebuilt' 'in service' ctl vault store rebuild vol0 2
refused 'a primary says where to give the order' 'give the order at its vault' \
  ctl primary store rebuild vol0 2
untouched 'in service' "$before" 2

pair kill "${P[dir]}" vault
(exec "$root/scripts/pair" start "${P[dir]}" vault >/dev/null 2>&1) &
# From the moment its socket is there, whether its stores are read already or not.
rebuild_refused() {
  out=$(ctl vault store rebuild vol0 2 2>&1) || grep -qE 'not ready|in service' <<<"$out"
}
check 'nor while the stores are read' within 30 rebuild_refused
wait $!
untouched 'stores being read' "$before" 2
check 'and it serves' within 15 store_serves 2
within 30 replicates

# Two at once, the first cut off by its user: one of them does it, the other is told to wait.
store_deleted 3
# A neighbour only ever makes it more.
check "a deleted store is noticed within a second (${noticed[*]} ms)" \
  test "$(printf '%s\n' "${noticed[@]}" | sort -n | head -n 1)" -le 1000
(exec "$casemate" --socket "${P[vault_ctl]}" store rebuild vol0 3 >/dev/null 2>&1) &
first=$!
(exec "$casemate" --socket "${P[vault_ctl]}" store rebuild vol0 3 >"$work/second" 2>&1) &
second=$!
kill -INT $first
wait $first $second
says 'of two rebuilds one waits' 'under way|in service|incarnation' "$(cat "$work/second")"
check 'the store serves' within 30 store_serves 3
open_files() { # of the vault, deleted ones too
  find "/proc/$(cat "${P[dir]}/vault/pid")/fd" -lname "*/stores/$1/*" -printf '%l\n' | sort -u
}
equal 'the vault has its files open, and no deleted ones' "$(find "$stores/3" -type f | sort)" \
  "$(open_files 3)"
check 'writes go on' write_some 12
check 'and come to it' within 10 floors_meet

# Too few stores: nothing is left to rebuild from.
hide_some() { for i in 0 1 5; do mv "$stores/$i" "$work/hidden$i"; done; }
show_some() { for i in 0 1 5; do mv "$work/hidden$i" "$stores/$i"; done; }
before=$(files_of 2)
check 'the vault starts with three of six' vault_again hide_some
check 'it is refused' within 10 status_is vault '.groups[0].state == "refused"'
refused 'no rebuild of one that is there' 'too few stores' ctl vault store rebuild vol0 2
refused 'nor of one that is missing' 'too few stores' ctl vault store rebuild vol0 5
untouched 'refused' "$before" 2
check 'and nothing is made' test ! -e "$stores/5"
check 'the missing are back' vault_again show_some
check 'all stores serve' within 15 all_serve
within 30 replicates

# ---- of another volume, swapped, missing, read-only ----
"$casemate" key generate "$work/other.key" >/dev/null
sed -e "s|$work/p/stores|$work/other/stores|; s|$work/p/device|$work/other/device|" \
  -e "s|state: $work/p|state: $work/other|; s|file:$work/p/keys/vol0.key|file:$work/other.key|" \
  "${P[config]}" >"$work/other.yaml"
check 'another set of stores is made' \
  "$casemate" --config "$work/other.yaml" --node vault volume create vol0
put_foreign() {
  mv "$stores/1" "$work/store1"
  cp -r "$work/other/stores/1" "$stores/1"
}
check 'the vault starts with a store of another volume' vault_again put_foreign
within 10 store_out 1
check 'it is not used' store_out 1
check 'and the log says why' within 10 vault_tells '(store 1|stores/1).*(other|foreign|set|another)'
within 30 replicates
check 'writes go on' write_some 16
put_back() {
  rm -r "${stores:?}/1"
  mv "$work/store1" "$stores/1"
}
check 'its own store is put back' vault_again put_back
if ! within_exactly 15 store_serves 1; then check 'rebuilt, since it was left out' rebuilt 1; fi
check 'all stores serve' within 15 all_serve

swap() {
  mv "$stores/4" "$work/swap"
  mv "$stores/5" "$stores/4"
  mv "$work/swap" "$stores/5"
}
pair kill "${P[dir]}" vault
swap
pair start "${P[dir]}" vault >"$work/out" 2>&1
told() { grep -qE "$1" <<<"$(tail -n 12 "$work/p/vault/log")"; }
check 'two stores swapped are told' within 5 \
  told 'store 4: its directory holds another store'
check 'and neither is used as the other' sh -c "! '$casemate' --socket '${P[vault_ctl]}' \
  --json status | jq -e '[.groups[0].stores[4,5].in_service] | any'"
pair kill "${P[dir]}" vault
swap
check 'swapped back' pair start "${P[dir]}" vault
for i in 4 5; do
  if ! within_exactly 15 store_serves $i; then check "store $i rebuilt" rebuilt $i; fi
done
check 'all stores serve' within 15 all_serve

hide() { mv "$stores/0" "$work/hidden"; }
check 'the vault starts without a store' vault_again hide
check 'it is out' within 10 store_out 0
within 30 replicates
check 'writes go on' write_some 24
check 'the store is made anew' rebuilt 0
rm -r "$work/hidden"

mount_read_only() {
  mount --bind "$stores/2" "$stores/2" && mount -o remount,bind,ro "$stores/2"
}
if mount --bind "$stores/2" "$stores/2" 2>/dev/null; then
  umount "$stores/2"
  undo+=("umount '$stores/2'")
  check 'the vault starts with a read-only store' vault_again mount_read_only
  check 'it is out' within 10 store_out 2
  check 'and the log says why' within 10 vault_tells 'stores/2.*Read-only'
  pair kill "${P[dir]}" vault
  umount "$stores/2"
  check 'writable again' pair start "${P[dir]}" vault
  within 30 replicates
  if ! within_exactly 15 store_serves 2; then check 'store 2 rebuilt' rebuilt 2; fi
else
  skip 'a read-only store' 'no mounts'
fi

# ---- bits that flip ----
within 30 replicates
check 'all synced' synced
flip_some() { # in journal and image of two stores, wherever there is something
  local offset
  for file in "$stores/0/journal" "$stores/1/image-vol0" "$stores/1/journal"; do
    for offset in $(cmp -l -n 8000000 "$file" /dev/zero 2>/dev/null |
      awk 'NR % 9973 == 17 { print $1 - 1 }' | head -n 40); do
      flip "$file" "$offset"
    done
  done
}
check 'bits flip in journals and images' vault_again flip_some
within 30 replicates
within 10 floors_meet
bad=$(scrub_says bad)
says 'scrub finds them' '^[1-9]' "$bad"
equal 'and loses no block' 0 "$(scrub_says blocks_lost)"
equal 'and finds nothing more' 0 "$(scrub_says bad)"
check 'images still have their space' space_held

flip_superblock() { flip "$stores/2/superblock" 100; }
check 'one copy of a superblock is damaged' vault_again flip_superblock
check 'the store serves all the same' within 15 store_serves 2
flip_both() {
  local half=$(($(stat -c %s "$stores/2/superblock") / 2))
  flip "$stores/2/superblock" 100
  flip "$stores/2/superblock" $((half + 100))
}
# The first was repaired when it was written last, or is still damaged: both are made so.
flip_all() {
  flip_both
  dd if=/dev/urandom of="$stores/2/superblock" bs=4096 count=1 conv=notrunc status=none
}
check 'both are' vault_again flip_all
check 'the store is out' within 10 store_out 2
check 'and the log says why' within 10 vault_tells 'store(s/| )2.*superblock'
within 30 replicates
check 'it is made anew' rebuilt 2

# ---- started twice, a device that does not fit ----
out=$("$CASEMATE_BUILD/apps/casemated" --config "${P[config]}" --node vault 2>&1)
code=$?
equal 'a second vault is refused' 1 $code
says 'and says why' 'already running with these stores \(pid [0-9]+, .*/vault/state/lock\)' "$out"
out=$("$CASEMATE_BUILD/apps/casemated" --config "${P[config]}" --node primary 2>&1)
code=$?
equal 'a second primary is refused' 1 $code
says 'and says why' 'already running with these stores \(pid [0-9]+, .*/primary/state/lock\)' "$out"
sed -E 's#/(primary|vault)/(state|ctl|nbd)#/\1/second-\2#' "${P[config]}" >"$work/second.yaml"
out=$(timeout 30 "$CASEMATE_BUILD/apps/casemated" --config "$work/second.yaml" --node vault 2>&1)
says 'nor by another configuration' 'store 0: .*/stores/0/superblock: in use by another' "$out"
same 'the running pair is not disturbed'
pair kill "${P[dir]}" primary
truncate -s -65536 "${P[device]}"
out=$(timeout 10 "$CASEMATE_BUILD/apps/casemated" --config "${P[config]}" --node primary 2>&1)
code=$?
equal 'a device of the wrong size' 1 $code
says 'and both sizes are named' 'has 67043328 bytes, but the configuration says 67108864' "$out"
pair_down "${P[dir]}"

# ---- full, where space could not be held: nobody is out, and all goes on when there is room ----
truncate -s 64M "$work/disk"
mkfs.ext2 -q "$work/disk" >/dev/null 2>&1
mkdir -p "$work/tight/stores/5"
if mount -t ext4 -o loop "$work/disk" "$work/tight/stores/5" 2>/dev/null; then
  undo+=("umount '$work/tight/stores/5'")
  pair_up "$work/tight" size=64MiB journal=16MiB
  dd if=/dev/zero of="$work/tight/stores/5/ballast" bs=1M 2>/dev/null
  for ((i = 0; i < 48; i += 8)); do write_some $i || break; done
  equal 'written until images are wanted' 48 "$i"
  check 'a store without room waits for it' within 10 store_full 5
  check 'all serve' all_serve
  check 'writes go on' write_some 48
  equal 'it is told once' 1 "$(log_of vault | grep -c 'no room on its disk')"
  ctl vault status >/dev/null
  equal 'status says degraded' 3 $?
  rm "$work/tight/stores/5/ballast"
  check 'with room it goes on' within 10 store_serves 5
  check 'and all is synced' synced
  check 'on all stores' floors_meet
  same 'what was written reads back'
  pair down "$work/tight"
  within 5 umount "$work/tight/stores/5"
else
  skip 'a store without room' 'no ext4 on a loop device'
fi
finish
