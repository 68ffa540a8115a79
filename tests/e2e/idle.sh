#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pair at rest uses under 5 % of one core in all; it fails above 10 %, for machines that are busy
# with other work.
# shellcheck source=tests/e2e/common.sh disable=SC2317
. "$(dirname "$0")/common.sh"
need jq awk

ticks() { # user and system time of both, in clock ticks; the name in the line has no spaces
  cat "/proc/${P[primary_pid]}/stat" "/proc/${P[vault_pid]}/stat" |
    awk '{ sum += $14 + $15 } END { print sum }'
}

pair_up "$work/p" size=64MiB journal=16MiB
check 'all floors meet' synced
sleep 3
before=$(ticks)
sleep 10
used=$(($(ticks) - before))
hundredths=$((used * 1000 / $(getconf CLK_TCK)))
printf 'a pair at rest: %d.%02d %% of one core\n' $((hundredths / 100)) $((hundredths % 100))
check 'under 10 % of one core' test "$hundredths" -lt 1000
finish
