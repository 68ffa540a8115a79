#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A block device that holds data already, more than the journals do, becomes a volume: all of it is
# compared, sent and folded, whichever side dies meanwhile; nothing of it counts before it is whole.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq nbdcopy nbdinfo qemu-io losetup ip
[ "$(id -u)" = 0 ] || skip_all 'not root: a loop device is made'
ip netns list >/dev/null 2>&1 || skip_all 'no network namespaces'

replicates() { status_is primary '.groups[0] | .state == "replicating" and .protected'; }
copies() { status_is primary '.groups[0].state == "catching-up"'; }
folded() { status_is vault ".groups[0].fold > ${1:-0}"; }

# As `pair` makes it, but with a device that is there already, and slow enough to be cut short.
pair_up "$work/p" size=192MiB journal=16MiB rate=400Mbit/s dev=af_packet hugepages=off
pair kill "${P[dir]}" primary
pair kill "${P[dir]}" vault
random_file "$work/disk" 192
dd if=/dev/zero of="$work/disk" bs=1M seek=100 count=20 conv=notrunc status=none
loop=$(losetup -f --show "$work/disk" 2>/dev/null) || skip_all 'no loop devices'
undo+=("losetup -d $loop")
sed -i "s|${P[device]}|$loop|" "${P[config]}"
find "${P[dir]}/primary/state" "${P[stores]}" "${P[device]%/*}" -type f ! -name lock -delete
find "${P[stores]}" -mindepth 1 -type d -delete
for node in primary vault; do
  check "the volume is made: $node" \
    "$casemate" --config "${P[config]}" --node $node volume create vol0
done
check 'the vault starts' pair start "${P[dir]}" vault
check 'the primary starts' pair start "${P[dir]}" primary

check 'the device is copied' within 20 copies
check 'and folded meanwhile' within 30 folded
equal 'nothing of it counts yet' 0 "$(status vault '.groups[0].consistent')"
pair kill "${P[dir]}" vault
check 'the vault starts again' pair start "${P[dir]}" vault
point=$(status vault '.groups[0].fold')
check 'the copy goes on' within 30 folded "${point:-0}"
pair kill "${P[dir]}" primary
refused 'the vault has nothing to serve' 'not proven|blocks lost' promote
check 'the primary starts again' pair start "${P[dir]}" primary
check 'and replicates in the end' within 120 replicates
check 'all is synced' synced
check 'it takes writes' qemu-io -f raw -c 'write -P 7 150M 1M' -c flush "${P[primary_nbd]}"
pair kill "${P[dir]}" primary
sync "$work/disk"
sum=$(sha256sum <"$loop" | cut -d' ' -f1)
rm -r "${P[stores]:?}/1" "${P[stores]}/4"
check 'the vault is promoted, without two stores' promote_serves
equal 'and serves what the device held' "$sum" "$(digest "${P[vault_nbd]}")"
finish
