#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The casemate command as an operator or a script meets it: exit codes, words, JSON on every verb.
# usage: cli.sh CASEMATE CLI_DAEMON
set -uo pipefail
casemate=$(realpath "$1") daemon=$(realpath "$2")
directory=$(mktemp -d) || exit 1
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; rm -rf "$directory"' EXIT
cd "$directory" || exit 1
failed=0

fail() {
  echo "FAILED: $*"
  failed=1
}

# $1: expected exit code, $2: expected text (a pattern) in stdout or stderr; the rest: the command.
expect() {
  local want=$1 pattern=$2 code
  shift 2
  "$casemate" "$@" >out 2>err </dev/null
  code=$?
  [ $code = "$want" ] || fail "casemate $*: exit $code, not $want: $(cat out err)"
  grep -qE -- "$pattern" out err || fail "casemate $*: no \"$pattern\" in: $(cat out err)"
}

# The same with --json: stdout is one JSON object whose "ok" is $2, and the python expression $3
# holds for it as `j`.
expect_json() {
  local want=$1 ok=$2 expression=$3 code
  shift 3
  "$casemate" --json "$@" >out 2>err </dev/null
  code=$?
  [ $code = "$want" ] || fail "casemate --json $*: exit $code, not $want: $(cat out err)"
  python3 -c "
import json, sys
j = json.load(open('out'))
sys.exit(0 if j['ok'] is $ok and ($expression) else 1)" || fail "casemate --json $*: $(cat out err)"
}

daemon_start() { # $1: socket, $2: mood
  python3 "$daemon" "$1" "$2" &
  pids+=($!)
  for _ in $(seq 1200); do
    [ -S "$1" ] && return
    sleep 0.05
  done
  fail "the stand-in daemon does not start"
}

# Usage
expect 2 'usage: casemate' --node a
expect 0 'exit codes' --help
expect 0 'accept-loss' promote --help
expect 2 'unknown verb "statsu"; did you mean "status"' statsu
expect 2 'unknown verb "config chekc"; did you mean "config check"' config chekc
expect 2 'unrecognized option' status --frobnicate
expect 2 '--synced is not an option of status' status --synced
expect 2 'usage: casemate scrub GROUP' scrub
expect 2 'usage: casemate status' status more
expect 2 'lacks a unit' wait v --synced --timeout 30
expect 2 'say what to wait for' --socket none wait v
expect 2 'promote needs --key' --socket none promote g
expect 2 'never the key itself' --socket none promote g --key 0123 --yes
expect 2 'needs --yes' --socket none promote g --key file:/k
expect 2 'is not the index of a store' --socket none store rebuild g 24
expect_json 2 False 'j["code"] == 2' statsu
expect_json 2 False 'j["code"] == 2 and "--bogus" in j["error"]' --bogus status
expect_json 2 False '"--timeout" in j["error"]' wait v --timeout
expect_json 2 False '"-1" in j["error"]' journal dump g -1
expect_json 2 False '"verb" in j["error"]'
"$casemate" wait v --synced --timeout abc --json >out 2>err
python3 -c 'import json; exit(json.load(open("out"))["code"] != 2)' ||
  fail "--json at the end: $(cat out err)"
bytes=$(printf 'v\377')
expect_json 2 False '"v?" in j["error"]' "$bytes"
expect_json 2 False '"UTF-8" in j["error"]' --socket none scrub "$bytes"
expect_json 78 False '"v?" in j["errors"][0]' config check "$bytes"
expect 2 'requires an argument' wait v --timeout
expect 2 'unrecognized option "-1"' journal dump g -1
expect 2 'config check, config show, config example' config
expect 2 'store rebuild' store
expect 2 'unknown verb "config edit"; config what\? config check, config show' config edit
expect 0 'config example +print a commented example' config --help
expect 0 'store rebuild GROUP INDEX' store --help
expect 2 'unknown verb "stroe"' stroe --help
expect 0 '^casemate [0-9]+\.[0-9]+\.[0-9]+$' --version
expect_json 0 True 'j["version"][0].isdigit()' --version

# Configuration
expect 0 '^# .*one file' config example
"$casemate" config example >good.yaml
sed 's/vault: b/vault: c/; s/window:/windwo:/' good.yaml >bad.yaml
expect 0 'good: 1 group, 2 paths; takes up to 608MiB of memory at a, [0-9]+MiB at b$' \
  config check good.yaml
expect 0 'good: 1 group,' --config good.yaml config check
awk '/^    - a:/ && second++ { cut = 1 } /^# what/ { cut = 0 } !cut' good.yaml >one.yaml
expect 0 'good: 1 group, 1 path;' config check one.yaml
expect 0 'quorum: 5' config show good.yaml
expect 78 'bad.yaml:[0-9]+:[0-9]+: groups\[0\].vault: no site has the name "c"' \
  config check bad.yaml
expect 78 'groups\[0\].windwo: unknown key; did you mean "window"' config check bad.yaml
expect 78 'No such file' config check missing.yaml
expect 78 'no site has the name "z"' --node z config check good.yaml
expect_json 0 True 'j["groups"] == 1 and "warning" not in j' config check good.yaml
sed 's/size: .*/size: 256TiB/' good.yaml >huge.yaml
expect 0 'warning: site b takes up to [0-9]+[MGT]iB of memory.*; this machine has' \
  config check huge.yaml
expect_json 0 True 'j["memory_bytes"]["b"] > 1 << 36 and "site b" in j["warning"]' \
  config check huge.yaml
expect_json 0 True '"warning" not in j' --node a config check huge.yaml
expect_json 78 False 'len(j["errors"]) == 2' config check bad.yaml
expect_json 0 True 'j["config"]["groups"][0]["window"] == "128MiB"' config show good.yaml
expect_json 0 True '"version: 1" in j["example"]' config example
for verb in status 'volume create vol0'; do
  # shellcheck disable=SC2086 # words of a verb
  expect_json 78 False 'len(j["errors"]) == 2 and j["code"] == 78' --config bad.yaml $verb
done
expect_json 78 False '"No such file" in j["errors"][0]' --config missing.yaml status
"$casemate" config show good.yaml >shown.yaml
"$casemate" config show shown.yaml | cmp -s - shown.yaml ||
  fail "config show does not read back the same"
for verb in 'config example' 'config show good.yaml' --help --version; do
  # shellcheck disable=SC2086 # words of a verb
  "$casemate" $verb >/dev/full 2>err
  [ $? = 1 ] || fail "casemate $verb: a full disk is no success"
  grep -q 'cannot write' err || fail "casemate $verb: a full disk is not told: $(cat err)"
done

# Keys and certificates
expect 0 'made; fingerprint' key generate vol.key
[ "$(stat -c %a vol.key)" = 400 ] || fail "vol.key can be read by others"
grep -q "$(sed -n 2p vol.key)" out && fail "key generate prints the key"
expect 1 'vol.key' key generate vol.key
expect_json 0 True 'j["fingerprint"]' key generate other.key
expect_json 1 False 'True' key generate other.key
expect 0 'SHA256:' cert init certs a b
[ "$(stat -c %a certs/a.key)" = 400 ] || fail "a.key can be read by others"
pin=$(grep -oE 'SHA256:[^ ]+' out | head -1)
expect 1 "certs/a.pem is there already; its fingerprint is ${pin//+/\\+};" cert init certs a
expect 1 'certs/b.pem is there already' cert init certs e b
[ -e certs/e.pem ] && fail "a refused cert init has made something"
expect 2 '"d" is named twice' cert init twice d e d
expect 2 'site "d e": a name has up to 31 letters.*; nothing was made' cert init twice c 'd e'
expect 2 'site "ca": a name.* is not "ca"; nothing was made' cert init twice ca
[ -e twice ] && fail "a refused cert init has made something"
expect_json 0 True 'not j["ca_made"] and j["sites"][0]["fingerprint"].startswith("SHA256:")' \
  cert init certs c
pin=$("$casemate" --json cert init certs d |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["sites"][0]["fingerprint"])')
sed "s|SHA256:A*\"|$pin\"|" good.yaml >pinned.yaml
expect 0 'good' config check pinned.yaml

# A volume: the device and intents at its primary, the stores at its vault, once.
mkdir -m 700 vault primary
sed -e "s|/srv/casemate/vol0.device|$PWD/primary/device|; s|/srv/casemate|$PWD/vault|" \
  -e "s|/etc/casemate/vol0.key|$PWD/vol.key|; s|100GiB|16MiB|; s|journal: .*|journal: 16MiB|" \
  -e 's|window: .*|window: 8MiB|' \
  good.yaml >volume.yaml
expect 0 'vol0: made at a' --config volume.yaml volume create vol0
[ "$(stat -c %s primary/device)" = 16777216 ] || fail "the device has the wrong size"
expect 1 '.' --config volume.yaml volume create vol0
expect_json 0 True 'j["node"] == "b"' --config volume.yaml --node b volume create vol0
[ -d vault/5 ] || fail "a store is missing"
expect_json 1 False 'j["code"] == 1' --config volume.yaml volume create vol9
expect 78 'wrong configuration' --config bad.yaml volume create vol0

# Stopped in the middle it takes back what it has made, so that the next one finds its way free.
sed "s|$PWD/vault|$PWD/cut|; s|journal: 16MiB|journal: 512MiB|" volume.yaml >cut.yaml
"$casemate" --config cut.yaml --node b volume create vol0 >out 2>err </dev/null &
cut=$!
pids+=("$cut")
until [ -s cut/0/journal ] || ! kill -0 "$cut" 2>/dev/null; do sleep 0.005; done
kill -INT "$cut"
wait "$cut"
code=$?
[ $code = 1 ] || fail "a volume create that was stopped exits with $code"
grep -q 'vol0: stopped before all was made; nothing of it is kept' err || fail "stopped: $(cat err)"
[ -e cut ] && fail "what was made half is left: $(find cut)"

# Without a daemon
expect 69 'casemated does not answer at none: is it running' --socket none status
expect 69 'casemated does not answer at /run/casemate/casemate.sock' --config good.yaml status
for verb in status 'wait v --synced' 'promote g --key file:/k --yes' 'scrub g' \
  'store rebuild g 1' 'journal dump g 1'; do
  # shellcheck disable=SC2086 # words of a verb
  expect_json 69 False 'j["code"] == 69' --socket none $verb
done

# With one
daemon_start healthy.sock healthy
daemon_start degraded.sock degraded
daemon_start halved.sock halved
expect 0 'g +vault +vault +yes' --socket healthy.sock status
expect 0 'net0 +up +1.0MiB +1.0GiB' --socket healthy.sock status
expect 3 'DEGRADED' --socket degraded.sock status
expect 3 'net1 +down' --socket halved.sock status
expect_json 3 True 'j["degraded"] and j["linked"]' --socket halved.sock status
expect 3 'no session: peer certificate is not pinned' --socket degraded.sock status
expect_json 0 True 'j["schema"] == 1 and not j["degraded"]' --socket healthy.sock status
expect_json 3 True 'j["degraded"]' --socket degraded.sock status
expect 0 'v: synced' --socket healthy.sock wait v --synced --timeout 1s
expect 1 'late: not synced in time' --socket healthy.sock wait late --synced
expect_json 1 False 'j["code"] == 1 and j["errno"] == 110' --socket healthy.sock wait late --synced
expect 0 'consistent: 100' --socket healthy.sock promote g --key file:/k --yes
expect 1 'acknowledged writes would be lost' --socket healthy.sock promote h --key file:/k --yes
expect_json 0 True 'j["key"] == "file:/k"' --socket healthy.sock promote g --key file:/k --yes
expect 0 'shards_read: 20' --socket healthy.sock scrub g
expect_json 0 True 'j["bad"] == 0' --socket healthy.sock scrub g
expect_json 0 True 'j["store"] == 2' --socket healthy.sock store rebuild g 2
expect 0 '^ *5 +data' --socket healthy.sock journal dump g 0
expect_json 0 True 'len(j["records"]) == 6' --socket healthy.sock journal dump g 0

# The promotion asks on a terminal, and takes nothing but the group's name.
promote="$casemate --socket healthy.sock promote g --key file:/k"
printf 'g\n' | script -qec "$promote" /dev/null >out 2>&1 ||
  fail "a confirmed promotion: $(cat out)"
printf 'yes\n' | script -qec "$promote" /dev/null >out 2>&1 &&
  fail "an unconfirmed promotion went on"
grep -q 'nothing was done' out || fail "an unconfirmed promotion: $(cat out)"

exit $failed
