#!/usr/bin/env bash
# Changes what strangers give us to look at, a million times for each parser (tests/parsers), optimised: some minutes
# each. Another number as the first argument, another seed as the second; what comes after goes to the test, such as the
# name of one parser. Many seeds find more than one long run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export STAYDOWN_MUTATIONS=${1:-1000000} STAYDOWN_SEED=${2:-1}
exec cargo test --release --test parsers -- --nocapture "${@:3}"
