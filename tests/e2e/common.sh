# shellcheck shell=bash disable=SC2034,SC2317
# SPDX-License-Identifier: Apache-2.0
# What the end-to-end tests share: a directory that goes away, pairs that are put down whatever
# happens, and checks that are counted. Sourced by each of them; the last line of a test is
# "N passed, N failed, N skipped".
set -uo pipefail
export LC_ALL=C.UTF-8
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
export CASEMATE_BUILD=${CASEMATE_BUILD:-$root/build}
casemate=$CASEMATE_BUILD/apps/casemate

passed=0 failed=0 skipped=0
began=$SECONDS
pairs=() pids=() undo=()
declare -A P # what `pair up` said last
work=$(mktemp -d /tmp/cm-e2e.XXXXXX) || exit 1
cd "$work" || exit 1

# shellcheck disable=SC2317 # called by the trap
common_finish() {
  local item
  for item in "${pids[@]}"; do kill -KILL "$item" 2>/dev/null; done
  for item in "${pairs[@]}"; do "$root/scripts/pair" down "$item" >/dev/null 2>&1; done
  for ((item = ${#undo[@]} - 1; item >= 0; item--)); do eval "${undo[item]}" >/dev/null 2>&1; done
  if [ "$failed" != 0 ] && [ -n "${CASEMATE_KEEP:-}" ]; then
    echo "kept: $work"
  else
    rm -rf "$work"
  fi
}
trap common_finish EXIT
trap 'exit 130' INT TERM

# ---- counting ----

ok() {
  passed=$((passed + 1))
  echo "ok: $*"
}

not_ok() { # not_ok WHAT [TEXT]: what was seen instead
  failed=$((failed + 1))
  echo "FAILED: $1"
  [ -z "${2:-}" ] || printf '%s\n' "$2" | tail -n 12 | sed 's/^/    /'
}

skip() { # skip WHAT WHY
  skipped=$((skipped + 1))
  echo "skipped: $1: $2"
}

skip_all() { # the machine does not allow this test
  echo "skipped: $*"
  exit 77
}

check() { # check WHAT COMMAND...: it ends well
  local what=$1 out
  shift
  if out=$("$@" 2>&1); then ok "$what"; else not_ok "$what" "$out"; fi
}

equal() { # equal WHAT EXPECTED SEEN
  if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "\"$3\", not \"$2\""; fi
}

says() { # says WHAT PATTERN TEXT
  if grep -qE -- "$2" <<<"$3"; then ok "$1"; else not_ok "$1: no /$2/ in" "$3"; fi
}

refused() { # refused WHAT PATTERN COMMAND...: it fails, and says so in these words
  local what=$1 pattern=$2 out
  shift 2
  if out=$("$@" 2>&1); then
    not_ok "$what: not refused" "$out"
  else
    says "$what" "$pattern" "$out"
  fi
}

# cannot_start WHAT PATTERN COMMAND...: a daemon that ends with 1, and says why in one line
cannot_start() {
  local what=$1 pattern=$2 out code
  shift 2
  out=$("$@" 2>&1)
  code=$?
  equal "$what: exit code 1, one error, nothing broken" '1 1 0' \
    "$code $(grep -c ' error ' <<<"$out") $(grep -cE 'broken rule|PANIC' <<<"$out")"
  says "$what" " error .*$pattern" "$out"
}

finish() {
  echo "$((SECONDS - began)) s"
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" = 0 ]
  exit
}

give_up() { # what follows makes no sense without it
  not_ok "$@"
  finish
}

need() { # need TOOL...
  local tool
  for tool; do command -v "$tool" >/dev/null || skip_all "no $tool"; done
}

# A machine that is busy with other work may take several times as long as it should; only a test
# whose subject is the time itself says how long exactly.
patience=${CASEMATE_PATIENCE:-4}
within() { # within SECONDS COMMAND...: tried until it ends well; SECONDS as on a machine at rest
  within_exactly $(($1 * patience)) "${@:2}"
}

within_exactly() { # within_exactly SECONDS COMMAND...
  local seconds=$1 until=$((SECONDS + $1))
  shift
  while ! "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $until ]; then
      echo "waited $seconds s in vain: $*"
      return 1
    fi
    sleep 0.1
  done
}

# ---- pairs ----

pair() { "$root/scripts/pair" "$@"; }

pair_up() { # pair_up DIR [key=value ...]: into P
  local dir=$1 out line
  pairs+=("$dir")
  out=$(pair up "$@" 2>&1) || give_up "pair up $*" "$out"
  while read -r line; do P[${line%%=*}]=${line#*=}; done <<<"$out"
  P[dir]=$dir
}

pair_down() { # and its files go
  pair down "$1" >/dev/null 2>&1
  rm -rf "$1"
}

ctl() { # ctl primary|vault VERB...
  local node=$1
  shift
  "$casemate" --socket "${P[dir]}/$node/ctl.sock" "$@"
}

status() { # status primary|vault JQ-EXPRESSION
  ctl "$1" --json status 2>/dev/null | jq -r "$2" 2>/dev/null
}

status_is() { # status_is primary|vault JQ-CONDITION
  [ "$(status "$1" "$2")" = true ]
}

synced() {
  ctl primary wait vol0 --synced --timeout $((30 * patience))s &&
    ctl vault wait vol0 --synced --timeout $((30 * patience))s
}

# A primary that died is taken for alive until the link has been silent for a while; stores are read
# after a start.
promote() { # promote [OPTION...]
  promote_with "${P[key]}" "$@"
}

promote_with() { # promote_with KEY [OPTION...]
  local out code until=$((SECONDS + 20 * patience))
  while true; do
    out=$(ctl vault promote vol0 --key "$1" --yes "${@:2}" 2>&1)
    code=$?
    if [ $code = 0 ] || [ $SECONDS -ge $until ]; then break; fi
    grep -qE "is alive|in a moment" <<<"$out" || break
    sleep 0.2
  done
  printf '%s\n' "$out"
  return $code
}

promote_serves() { # promote_serves [OPTION...]: and the export can be opened
  promote "$@" && within 10 nbdinfo --size "${P[vault_nbd]}"
}

digest() { # digest URI
  if nbdcopy --connections=4 "$1" "$work/digest"; then sha256sum <"$work/digest" | cut -d' ' -f1; fi
  rm -f "$work/digest"
}

random_file() { # random_file FILE MIB
  dd if=/dev/urandom of="$1" bs=1M count="$2" status=none
}

# A vault that has just started reads its stores, and refuses a rebuild until it knows them.
opened() { status_is vault '.groups[0].state != "opening"'; }
rebuild() { # rebuild INDEX
  within 10 opened
  ctl vault store rebuild vol0 "$1"
}

log_of() { cat "${P[dir]}/$1/log"; }
