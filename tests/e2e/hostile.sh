#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Those who should not be there: peers with wrong papers, somebody on the wire who sends real
# datagrams again in every wrong way, clients that break the rules of NBD or die. For each of them
# one clear line or a counter, nothing else changes, and nothing is lost.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq python3 ip openssl fio nbdcopy nbdinfo qemu-io
[ "$(id -u)" = 0 ] || skip_all 'not root'
ip netns list >/dev/null 2>&1 || skip_all 'no network namespaces'

pair_up "$work/p" size=64MiB journal=16MiB dev=af_packet rate=1Gbit/s hugepages=off
keys=$work/p/keys
socket=$work/p/primary/nbd.sock

spaces=cm-$(printf '%s' "$work/p" | cksum | cut -d' ' -f1) # as pair names them
within_space() { # within_space NODE COMMAND...
  ip netns exec "$spaces-$1" "${@:2}"
}
of_session() { # both have it, and writes are safe
  status_is primary '.linked and .groups[0].state == "replicating" and .groups[0].protected' &&
    status_is vault .linked
}
floors_meet() { status_is vault '[.groups[0].stores[].floor] | unique | length == 1'; }
sessions() { # sessions NODE: begun since it was started first
  grep -c 'session with site' <<<"$(log_of "$1" | grep ' info ')"
}

# ---- somebody on the wire ----

counter() { # counter NODE JQ-EXPRESSION: of $before, and now
  printf '%s %s' "$(jq -r "$2" "$work/before.$1")" "$(status "$1" "$2")"
}

rose() { # rose WHAT NODE JQ-EXPRESSION [LEAST]: a counter, by so much
  local before now
  read -r before now <<<"$(counter "$2" "$3")"
  if [ $((now - before)) -ge "${4:-1}" ]; then
    ok "$1: $((now - before)) counted"
  else
    not_ok "$1: $3 went from $before to $now, not up by ${4:-1}"
  fi
}

sent() { sed -n "s/^$1 //p" "$work/attack"; } # how many frames of this kind

taken_up() { # taken_up NODE: words of handshakes have come to whom they are for
  local kind before now
  for kind in malformed unknown version; do
    read -r before now <<<"$(counter "$1" ".handshake.$kind")"
    [ $((now - before)) -ge 16 ] || return 1
  done
}

attacked() { # attacked NODE FROM: datagrams that came to NODE, sent again by FROM's side
  local node=$1 from=$2
  check "$node: real datagrams are captured" within_space "$node" \
    "$here/intruder.py" capture path0 256 "$work/captured"
  ctl "$node" --json status >"$work/before.$node"
  within_space "$from" "$here/intruder.py" attack path0 "$work/captured" \
    >"$work/attack" 2>&1 || not_ok "$node: attacked" "$(cat "$work/attack")"
  # A machine that does not get to its rings for a moment loses all that comes in it.
  for _ in 1 2 3 4; do
    if taken_up "$node"; then break; fi
    within_space "$from" "$here/intruder.py" attack path0 "$work/captured" >"$work/attack" 2>&1
  done
  # Rings that are full lose some on the way, as they lose others.
  rose "$node: replayed" "$node" '.paths[0].rx_replayed' $(($(sent replayed) / 2))
  rose "$node: forged and flipped" "$node" '.paths[0].rx_bad' $(($(sent forged) / 2))
  rose "$node: of no session" "$node" .rx_unknown_session $(($(sent of_no_session) / 2))
  rose "$node: truncated, too long, no shape" "$node" .rx_malformed 256
  rose "$node: of strangers" "$node" '.lane.ports[0].rx_not_ours' $(($(sent of_strangers) / 2))
  rose "$node: lying lengths" "$node" '.lane.ports[0].rx_bad_length' $(($(sent lengths_lie) / 2))
  rose "$node: lying checksums" "$node" '.lane.ports[0].rx_bad_checksum' \
    $(($(sent checksums_lie) / 2))
  rose "$node: junk" "$node" .lane.control_dropped 100
  rose "$node: damaged handshakes" "$node" .handshake.malformed 50
  rose "$node: handshakes of nobody" "$node" .handshake.unknown 50
  rose "$node: of another version" "$node" .handshake.version 16
}

"$here/writer.py" write "$work/memory" "$socket" vol0 16 >"$work/wrote" 2>&1 &
load=$!
pids+=("$load")
within 20 grep -q connected "$work/wrote"
attacked vault primary
rose 'vault: first words are answered by cookies' vault .handshake.cookies_sent 100
read -r _ objects <<<"$(counter vault .handshake.objects)"
check "and make no handshakes of 3000 ($objects were taken up)" test "$objects" -lt 100
rose 'vault: those with a cookie and no TLS fail' vault .handshake.failed
says 'and are told from a lost session' 'a handshake as site primary failed, the session goes on' \
  "$(log_of vault)"
attacked primary vault
wait "$load"
equal 'the clients saw nothing wrong' 0 $?
cat "$work/wrote"
for node in primary vault; do
  equal "$node: the session stood" 1 "$(sessions $node)"
  check "$node: both paths are alive" within 5 status_is $node '[.paths[].alive] | all'
done
check 'writes are safe as before' of_session
check 'all floors meet' synced
check 'and are equal' within 10 floors_meet
check 'what was written is there' "$here/writer.py" check "$work/memory" "$socket" vol0

# ---- clients ----

log_says() { log_of "$1" | grep -qE -- "$2"; }

descriptors() { find "/proc/$(cat "$work/p/primary/pid")/fd" -mindepth 1 | wc -l; }
clients() { status primary ".clients.$1"; }

random_file "$work/in" 8
check 'a client writes' nbdcopy --flush "$work/in" "${P[primary_nbd]}"
check 'its connection is given back' within 10 status_is primary '.clients.connections == 0'
descriptors_before=$(descriptors)
fio --name=load --ioengine=nbd --uri="${P[primary_nbd]}" --rw=randrw --bsrange=4k-256k --iodepth=8 \
  --size=24m --offset=32m --verify=crc32c --verify_fatal=1 --time_based --runtime=6 --minimal \
  >"$work/fio" 2>&1 &
load=$!
pids+=("$load")
within 20 status_is primary '.clients.connections > 0'
check 'every broken rule of NBD is answered' \
  "$here/intruder_nbd.py" rules "$socket" vol0
check 'refusals are counted' test "$(clients refused)" -ge 30
check 'and streams without sense' test "$(clients bad_streams)" -ge 10
check '200 clients die in the middle' "$here/intruder_nbd.py" die "$socket" vol0 200
wait "$load"
equal 'another client saw nothing of it' 0 $?
check 'all connections are given back' within 10 status_is primary '.clients.connections == 0'
equal 'and all memory' 0 "$(clients payload_used)"
equal 'and all descriptors' "$descriptors_before" "$(descriptors)"
"$here/intruder_nbd.py" idle "$socket" vol0 32 >"$work/idle" 2>&1 &
idle_clients=$!
pids+=("$idle_clients")
check 'as many clients as may be: it is said' within 10 log_says primary \
  'warning 32 NBD clients are connected, which is the bound'
kill "$idle_clients"
wait "$idle_clients" 2>/dev/null
check 'new clients are let in' nbdcopy --connections=8 "${P[primary_nbd]}" "$work/out"
check 'and find what was there' cmp -n $((8 << 20)) "$work/in" "$work/out"

# ---- wrong papers ----

within 30 of_session
check 'all floors meet' synced
before=$(digest "${P[primary_nbd]}")

restart_both() { # restart_both [COMMAND...]: done when the primary has read its papers
  pair kill "$work/p" primary
  pair kill "$work/p" vault
  : >"$work/p/primary/log"
  : >"$work/p/vault/log"
  pair start "$work/p" primary && "${@:-true}" && pair start "$work/p" vault
}

# refused_papers WHAT PATTERN-AT-PRIMARY PATTERN-AT-VAULT [COMMAND...]: while they are wrong
refused_papers() {
  check "$1: both start" restart_both "${@:4}"
  check "$1: the primary says why" within 20 log_says primary "no session with site vault: $2"
  check "$1: the vault says why" within 20 log_says vault "no session with site primary: $3"
  says "$1: so does the status" "no session: $2" "$(ctl primary status 2>&1)"
  check "$1: no session" status_is primary '.linked or .groups[0].protected | not'
  refused "$1: nothing is served" '.' nbdinfo --size "${P[primary_nbd]}"
  refused "$1: nothing by the vault either" '.' nbdinfo --size "${P[vault_nbd]}"
  sleep 2.5 # for two more attempts, which say the same
  equal "$1: it is said once" '1 1' "$(log_of primary | grep -c 'no session') $(log_of vault |
    grep -c 'no session')"
}

# right_again WHAT NODE: its papers are; the other one was not touched
right_again() {
  pair kill "$work/p" "$2"
  check "$1: the right one is back" pair start "$work/p" "$2"
  check "$1: a session again" within 30 of_session
  equal "$1: nothing has changed" "$before" "$(digest "${P[primary_nbd]}")"
}

certificate() { # certificate SITE DAYS: of our CA, for the key that the site has
  openssl req -new -key "$keys/$1.key" -subj "/CN=$1" -out "$work/csr" &&
    openssl x509 -req -in "$work/csr" -CA "$keys/ca.pem" -CAkey "$keys/ca.key" -days "$2" \
      -set_serial 77 -out "$work/new.pem" -extfile <(
        echo 'basicConstraints=critical,CA:FALSE'
        echo 'keyUsage=critical,digitalSignature'
        echo 'extendedKeyUsage=serverAuth,clientAuth'
        echo "subjectAltName=DNS:$1,URI:casemate:site:$1"
      ) && cp -f "$work/new.pem" "$keys/$1.pem"
}

papers() { # papers save|restore
  if [ "$1" = save ]; then cp -a "$keys" "$work/right"; else cp -af "$work/right/." "$keys"; fi
}

papers save
certificate primary -1 >"$work/made" 2>&1 || give_up 'a certificate is made' "$(cat "$work/made")"
refused_papers 'an expired certificate' 'the peer refuses our certificate: expired' \
  'peer certificate expired on 20'
papers restore
right_again 'an expired certificate' primary

"$casemate" cert init "$work/strangers" vault >/dev/null
cp -f "$work/strangers"/vault.{pem,key} "$keys/"
refused_papers 'a certificate of another authority' 'peer certificate is not signed by our CA' \
  'the peer refuses our certificate: not signed by its CA'
papers restore
right_again 'a certificate of another authority' vault

rm -f "$keys"/vault.{pem,key}
"$casemate" cert init "$keys" vault >/dev/null
refused_papers 'an unpinned certificate' 'peer certificate is not pinned: SHA256:' \
  'the peer refuses our certificate: not pinned there; ours is SHA256:'
papers restore
right_again 'an unpinned certificate' vault

# The other site's: its own daemon refuses it, and so does the peer of a daemon that does not.
cp -f "$keys/primary.pem" "$keys/vault.pem"
cp -f "$keys/primary.key" "$keys/vault.key"
pair kill "$work/p" vault
cannot_start "the other site's certificate, at home" \
  'vault.pem: the certificate is of site primary, not vault' \
  within_space vault timeout 20 "$CASEMATE_BUILD/apps/casemated" --config "${P[config]}" \
  --node vault
papers restore
"$casemate" cert init "$keys" third >/dev/null
cp "${P[config]}" "$work/config"
pair kill "$work/p" primary
sed -e 's|- name: vault|- name: third|; s|vault: vault|vault: third|' \
  -e 's|^      vault:|      third:|; s|keys/vault|keys/third|' "$work/config" >"$work/third.yaml"
: >"$work/p/primary/log"
ip netns exec "$spaces-vault" "$CASEMATE_BUILD/apps/casemated" --config "$work/third.yaml" \
  --node third >"$work/third.log" 2>&1 & # not a function: the process is the daemon itself
third=$!
pids+=("$third")
check "another site's certificate: the primary starts" pair start "$work/p" primary
check "another site's certificate: the primary says why" within 20 log_says primary \
  'no session with site vault: peer presents site third, expected vault'
check "another site's certificate: so does the other" within 20 grep -q \
  'no session with site primary: the peer refuses our certificate: it expects another site' \
  "$work/third.log"
refused "another site's certificate: nothing is served" '.' nbdinfo --size "${P[primary_nbd]}"
kill "$third"
wait "$third"
right_again "another site's certificate" vault

openssl rand -hex 32 >"$work/psk"
chmod 400 "$work/psk"
sed "s|^link:|link:\n  psk: \"file:$work/psk\"|" "$work/config" >"${P[config]}"
check 'a pre-shared key: both start' restart_both
check 'a pre-shared key: a session' within 30 of_session
cp -a "$work/psk" "$work/psk.right"
psk_changes() { openssl rand -hex 32 >"$work/psk.other" && cp "$work/psk.other" "$work/psk"; }
refused_papers 'another pre-shared key' "pre-shared key differs from the peer's" \
  "pre-shared key differs from the peer's" psk_changes
cp -f "$work/psk.right" "$work/psk"
right_again 'another pre-shared key' vault

# ---- and nothing is lost ----

check 'writes go on' qemu-io -f raw -c 'write -P 0x5a 16M 4M' -c flush "${P[primary_nbd]}"
check 'all floors meet' synced
check 'and are equal at the end' within 10 floors_meet
before=$(digest "${P[primary_nbd]}")
equal 'every store serves, none with damage' 'true 0' "$(status vault \
  '.groups[0].stores | "\([.[].in_service] | all) \([.[].damage] | add)"')"
check 'the primary is lost' pair kill "$work/p" primary
check 'the vault is promoted' promote_serves
equal 'with the same bytes' "$before" "$(digest "${P[vault_nbd]}")"
finish
