#!/bin/sh
# Runs many simulated schedules and says in one paragraph what they came to.
#
#   scripts/simulate.sh COUNT [FIRST_SEED]
#
# The program is the one that `cargo test` runs. Exit code 0: no promise was broken. A broken one is told with the seed
# that repeats it.
set -eu

count=${1:?usage: scripts/simulate.sh COUNT [FIRST_SEED]}
first=${2:-1}
cd "$(dirname "$0")/.."
exec env STAYDOWN_SCHEDULES="$count" STAYDOWN_FIRST="$first" STAYDOWN_SUMMARY=1 \
    cargo test --quiet --test simulation every_schedule -- --nocapture --test-threads 1
