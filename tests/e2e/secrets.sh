#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Nobody but the primary learns what was written, and nobody at all a key: canaries in a volume and
# the bytes of every key are looked for in stores, packets, logs, replies, arguments, in the memory
# of both daemons and in core images of them, hugepages included. Each search must also find what is
# known to be there, else it counts as failed.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq python3 gdb tcpdump ip nsenter setpriv prlimit openssl
[ "$(id -u)" = 0 ] || skip_all 'not root: it makes network namespaces and core images'
key_list=$CASEMATE_BUILD/tests/e2e/key_list scan=$CASEMATE_BUILD/tests/e2e/scan
if ! [ -x "$key_list" ] || ! [ -x "$scan" ]; then give_up "key_list and scan are not built"; fi

# ---- looking ----

look() { # look NEEDLES files|core|memory ARGUMENT...: hits into $work/hits
  "$scan" "$@" >"$work/hits" 2>"$work/scanned" && [ -s "$work/scanned" ]
}

nowhere() { # nowhere WHAT LOOK-ARGUMENTS...
  local what=$1
  shift
  if ! look "$@"; then
    not_ok "$what: could not be read" "$(cat "$work/scanned")"
  elif [ -s "$work/hits" ]; then
    not_ok "$what" "$(cut -c1-120 "$work/hits")"
  else
    ok "$what: nothing in $(tail -n 1 "$work/scanned")"
  fi
}

hit() { # hit WHAT PATTERN: the last search found something like this
  if grep -qE -- "$2" "$work/hits"; then ok "$1"; else not_ok "$1: not found"; fi
}

somewhere() { # somewhere WHAT PATTERN LOOK-ARGUMENTS...: a hit is like this
  local what=$1 pattern=$2
  shift 2
  if look "$@"; then
    hit "$what" "$pattern"
  else
    not_ok "$what: could not be read" "$(cat "$work/scanned")"
  fi
}

# In the memory of a process some may be, but only in pages of these flags: "lo,dd" or "dd".
only_in() { # only_in WHAT NAMES FLAGS: of the hits of the last search
  local wrong
  wrong=$(grep -E "^($2) " "$work/hits" | grep -vE ",$3")
  if [ -z "$wrong" ]; then ok "$1"; else not_ok "$1" "$(cut -c1-120 <<<"$wrong")"; fi
}

text_needle() { # text_needle NAME TEXT
  printf '%s %s\n' "$1" "$(printf '%s' "$2" | od -An -v -tx1 | tr -d ' \n')"
}

# ---- keys ----

keys_list() { # keys_list ALWAYS-ADDED: spans come and go
  local site
  {
    "$key_list" volume wrapping "${P[key]}" "${P[stores]}/0" &&
      "$key_list" wrapping other "file:$work/other.key" &&
      "$key_list" psk psk "file:${P[dir]}/keys/psk" || return
    for site in primary vault ca; do
      "$key_list" private "tls-$site" "file:${P[dir]}/keys/$site.key" || return
    done
  } >>"$work/keys" && sort -u -o "$work/keys" "$work/keys"
}

keys_named() { grep -E "^($1)" "$work/keys"; } # keys_named PATTERN

# ---- core images ----

pid_now() { cat "${P[dir]}/$1/pid"; }

# What only the process knows, read from the same stop as the image: the keys of its session.
session_members=(secret_out secret_next key_out.state 'key_in[1].state' 'key_in[2].state')

core_take() { # core_take NODE: $work/core, $work/smaps, $work/session
  local pid i hex members=()
  pid=$(pid_now "$1")
  rm -f "$work"/core "$work"/member.*
  for i in "${!session_members[@]}"; do
    members+=(-ex "dump binary value $work/member.$i \
      ((struct engine *)engine)->core->tools.link.session[0].${session_members[i]}")
  done
  # Hugepages are left out of images otherwise.
  echo 0x7f >"/proc/$pid/coredump_filter" && cat "/proc/$pid/smaps" >"$work/smaps" || return
  gdb -nx -batch -ex 'set auto-solib-add off' -ex "attach $pid" "${members[@]}" \
    -ex "gcore $work/core" -ex detach "$CASEMATE_BUILD/apps/casemated"
  [ -s "$work/core" ] || return
  for i in "${!session_members[@]}"; do
    hex=$(head -c 32 "$work/member.$i" 2>/dev/null | od -An -v -tx1 | tr -d ' \n')
    [ -z "${hex//0/}" ] || echo "session-${session_members[i]} $hex"
  done >"$work/session"
}

# The last image of this node holds no secret; and its session's keys are in its memory alone.
core_is_clean() { # core_is_clean NODE
  local count
  count=$(wc -l <"$work/session")
  cat "$work/session" "$work/secret" >"$work/secret-and-session"
  nowhere "no key and no canary in the core image of the $1" \
    "$work/secret-and-session" core "$work/core" "$work/smaps"
  if [ "$count" -lt "${#session_members[@]}" ]; then
    skip "keys of the session of the $1" "$count could be read: has casemated its debug symbols?"
    return
  fi
  somewhere "but the keys of its session are in the memory of the $1" '^session-key_in.1..state' \
    "$work/session" memory "$(pid_now "$1")"
  only_in 'in locked pages that are never dumped' '.*' 'lo,dd'
}

# ---- what is said ----

said_take() { # said_take NAME: replies, arguments and environment of both
  local node pid
  mkdir -p "$work/said/$1"
  for node in primary vault; do
    pid=$(pid_now "$node" 2>/dev/null) || continue
    cat "/proc/$pid/cmdline" >"$work/said/$1/$node.cmdline"
    cat "/proc/$pid/environ" >"$work/said/$1/$node.environ"
    {
      ctl "$node" --json status
      ctl "$node" status
      ctl "$node" --json journal dump vol0 0
      ctl "$node" --json scrub vol0
    } >"$work/said/$1/$node.replies" 2>&1
  done
  "$casemate" --config "${P[config]}" config show >"$work/said/$1/config" 2>&1
}

files_of() { find "$@" -type f -size +0; }

# ---- a pair with hugepages ----

pages=/sys/kernel/mm/hugepages/hugepages-2048kB
pages_wanted=256 # engine.memory of both
pages_add() { echo $(($(cat $pages/nr_hugepages) + $1)) >$pages/nr_hugepages; }
hugepages_reserve() {
  local missing
  missing=$((pages_wanted - $(cat $pages/free_hugepages))) || return
  [ $missing -gt 0 ] || return 0
  undo+=("pages_add -$missing")
  pages_add $missing && [ "$(cat $pages/free_hugepages)" -ge $pages_wanted ]
}
hugepages=off
if hugepages_reserve 2>/dev/null; then
  hugepages=on
else
  skip 'hugepages' "$(cat $pages/free_hugepages 2>/dev/null) of $pages_wanted are free"
fi

"$casemate" key generate "$work/other.key" >/dev/null
pair_up "$work/p" size=64MiB journal=16MiB window=16MiB dev=af_packet psk=on \
  hugepages=$hugepages
check 'keys are listed' keys_list

capture() { # capture NODE: what arrives there
  nsenter -t "$(pid_now "$1")" -n tcpdump -i any -s 0 -B 65536 -Z root -w "$work/$1.pcap" \
    >/dev/null 2>"$work/$1.tcpdump" &
  captures+=($!)
  pids+=($!)
}
captures=()
for node in vault primary; do
  capture $node
  check "what arrives at the $node is captured" \
    within 10 grep -q 'listening on' "$work/$node.tcpdump"
done

# A second handshake and a second span, before the eyes of the capture.
pair kill "${P[dir]}" primary
check 'the primary starts again' pair start "${P[dir]}" primary
replicates() { status_is primary '.groups[0] | .state == "replicating"'; }
check 'and replicates' within 30 replicates
nbd=${P[dir]}/primary/nbd.sock
written=$("$here/canaries.py" write "$nbd" vol0 "$work/canaries")
check 'canaries are written' test "${written:-0}" -ge 150
equal 'and read again' "$written" "$("$here/canaries.py" read "$nbd" vol0 "$work/canaries")"
check 'all floors meet' synced
check 'keys are listed again' keys_list
check 'of two spans or more' test "$(keys_named subkey | wc -l)" -ge 2
refused 'a promotion while the primary lives' 'alive' \
  ctl vault promote vol0 --key "${P[key]}" --yes
refused 'with another key' 'wrong key' ctl vault promote vol0 --key "file:$work/other.key" --yes

keys_named 'wrapping|other|volume-key|subkey|tls|psk' >"$work/secret"
keys_named public >"$work/public"
keys_named 'wrapping|other|tls-ca' >"$work/never" # in the memory of either
keys_named 'wrapping|other|tls-ca|tls-primary|volume-key|subkey' >"$work/not-at-vault"
keys_named 'volume-key|subkey|psk|tls-primary' >"$work/at-primary"
keys_named 'psk|tls-vault' >"$work/at-vault"
tee -a "$work/secret" <"$work/canaries" >>"$work/not-at-vault"
echo "$(wc -l <"$work/keys") keys, $(wc -l <"$work/canaries") canaries"

# ---- the search finds what it should ----

plant() { # plant FORM: the pre-shared key, among other bytes
  python3 - "$work/planted" "$1" "$(keys_named psk | cut -d' ' -f2)" <<'PLANT'
import base64, sys
path, form, key = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
text = {"raw": key, "half": key[:16], "other-half": key[16:], "reversed": key[::-1],
        "hex": key.hex().encode(), "HEX": key.hex().upper().encode(),
        "base64": base64.b64encode(key), "base64-1": base64.b64encode(b"x" + key),
        "base64-2": base64.b64encode(b"xy" + key)}[form]
open(path, "wb").write(bytes(100003) + b"before" + text + b"after" + bytes(77))
PLANT
}
for form in raw half other-half reversed hex HEX base64 base64-1 base64-2; do
  plant $form
  somewhere "a planted key is found: $form" '^psk ' "$work/secret" files "$work/planted"
done
somewhere 'canaries are found on the device, which is plain' '^canary-3 raw' \
  "$work/secret" files "${P[device]}"
equal 'all of them' "$written" "$(grep -oE '^canary-[0-9]+ ' "$work/hits" | sort -u | wc -l)"

# Ciphertext of a store: a page of its journal that is neither zeros nor a head.
ciphertext_take() {
  python3 - "${P[stores]}/0/journal" >"$work/ciphertext" <<'PAGE'
import sys
with open(sys.argv[1], "rb") as journal:
    while page := journal.read(4096):
        if len(set(page)) > 200 and 0 not in page[96:128]:
            print("ciphertext", page[96:128].hex())
            break
PAGE
  [ -s "$work/ciphertext" ]
}
check 'ciphertext is taken from a store' ciphertext_take

# ---- the memory of both, before the promotion ----

vault_pid=$(pid_now vault) primary_pid=$(pid_now primary)
before=$(status vault .rx_unknown_session)
check 'datagrams are injected' nsenter -t "$primary_pid" -n \
  "$here/canaries.py" inject path0 "$work/injected"
within 5 status_is vault ".rx_unknown_session >= $before + 48"
check 'and arrived at the port of the vault' status_is vault ".rx_unknown_session >= $before + 48"

nowhere 'no canary, and no key that is not the vault'\''s, in its memory' \
  "$work/not-at-vault" memory "$vault_pid"
somewhere 'but its own: psk' '^psk ' "$work/at-vault" memory "$vault_pid"
hit 'and tls-vault' '^tls-vault '
only_in 'in locked pages that are never dumped' '.*' 'lo,dd'

nowhere 'no wrapping key in the memory of the primary' "$work/never" memory "$primary_pid"
somewhere 'but its own: psk' '^psk ' "$work/at-primary" memory "$primary_pid"
for name in tls-primary volume-key-vol0 subkey-vol0; do
  hit "and $name" "^$name"
done
only_in 'in locked pages that are never dumped' '.*' 'lo,dd'
somewhere 'and canaries' '^canary' "$work/canaries" memory "$primary_pid"
only_in 'in pages that are never dumped' '.*' '(lo,)?dd'

# ---- core images, before the promotion ----

check 'a core image of the vault is taken' core_take vault
core_is_clean vault
if [ $hugepages = on ]; then
  somewhere 'what was injected is found in it, in a hugepage' '^injected-[0-9]+ raw 0x.*,ht' \
    "$work/injected" core "$work/core" "$work/smaps"
else
  somewhere 'what was injected is found in it' '^injected-' \
    "$work/injected" core "$work/core" "$work/smaps"
fi
check 'a core image of the primary is taken' core_take primary
core_is_clean primary
text_needle directory "${P[dir]}/casemate.yaml" >"$work/known"
somewhere 'but what it was started with is in it' '^directory' \
  "$work/known" core "$work/core" "$work/smaps"

# ---- promotion ----

said_take before
check 'the primary is lost' pair kill "${P[dir]}" primary
check 'the vault is promoted' promote_serves
equal 'and serves every canary' "$written" \
  "$("$here/canaries.py" read "${P[dir]}/vault/nbd.sock" vol0 "$work/canaries")"
check 'keys are listed a last time' keys_list
keys_named 'subkey|volume-key' | sort -u - "$work/secret" -o "$work/secret"
nowhere 'no wrapping key in the memory of the promoted vault' "$work/never" memory "$vault_pid"
somewhere 'but the volume key' '^volume-key' "$work/secret" memory "$vault_pid"
only_in 'in locked pages that are never dumped' '(volume-key|subkey|psk|tls).*' 'lo,dd'
only_in 'and plaintext in none that is dumped' 'canary.*' '(lo,)?dd'
check 'a core image of the promoted vault is taken' core_take vault
core_is_clean vault
rm -f "$work/core"
said_take after

# ---- what was stored, sent and said ----

kill -INT "${captures[@]}"
wait "${captures[@]}"
for node in vault primary; do
  says "the capture at the $node is whole" '^0 packets dropped' "$(cat "$work/$node.tcpdump")"
done
nowhere 'no key and no canary in packets' "$work/secret" files "$work"/{vault,primary}.pcap
somewhere 'but the ciphertext that is in a store' '^ciphertext' \
  "$work/ciphertext" files "$work/vault.pcap"

mapfile -t stored < <(files_of "${P[stores]}")
nowhere 'no key and no canary in the stores' "$work/secret" files "${stored[@]}"
somewhere 'but the wrapped key' '^public-wrapped-key-vol0 raw' \
  "$work/public" files "${stored[@]}"
somewhere 'and the ciphertext' '^ciphertext' "$work/ciphertext" files "${stored[@]}"

{
  text_needle log 'session with site primary'
  text_needle reply '"rx_unknown_session":'
  text_needle record '"shard_bytes": 1'
  text_needle argument "${P[dir]}/casemate.yaml"
  text_needle directory "${P[dir]}/device/vol0"
  text_needle environment "CASEMATE_BUILD=$CASEMATE_BUILD"
} >"$work/known"
mapfile -t said < <(files_of "$work/said" "${P[dir]}"/{primary,vault}/log "${P[config]}")
nowhere 'no key and no canary in logs, replies, arguments, environment and configuration' \
  "$work/secret" files "${said[@]}"
somewhere 'but a line of the log' '^log raw .*/vault/log$' "$work/known" files "${said[@]}"
hit 'a reply of the vault' '^reply raw .*/vault.replies$'
hit 'and of the primary' '^reply raw .*/primary.replies$'
hit 'a record of a journal' '^record raw .*/before/vault.replies$'
hit 'an argument' '^argument raw .*/vault.cmdline$'
hit 'the configuration' '^directory raw .*/casemate.yaml$'
hit 'the environment' '^environment raw .*/vault.environ$'
grep -v '^canary' "$work/secret" >"$work/secret-keys"
mapfile -t kept < <(files_of "${P[dir]}"/{device,primary,vault})
nowhere 'no key in the device, the intent log and the state of either' \
  "$work/secret-keys" files "${kept[@]}"

# ---- what cannot be locked is not taken ----

space=$(ip netns identify "$vault_pid")
pair kill "${P[dir]}" vault
out=$(ip netns exec "$space" setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \
  prlimit --memlock=65536 timeout 20 \
  "$CASEMATE_BUILD/apps/casemated" --config "${P[config]}" --node vault 2>&1)
equal 'where keys cannot be locked the vault does not start' 1 $?
says 'and says what to raise' 'error no memory for keys.*LimitMEMLOCK' "$out"
equal 'in one line' 1 "$(wc -l <<<"$out")"
finish
