#!/bin/sh
# Every figure that a release's note gives, with what it defends; a benchmark fails when its aim is missed.
# STAYDOWN_BENCH_RECORDS and STAYDOWN_BENCH_SUBMISSIONS scale it.
set -eu
cd "$(dirname "$0")/.."
for bench in hashing matching view replication latency report; do
    echo "== $bench"
    cargo bench --quiet --bench "$bench"
done
