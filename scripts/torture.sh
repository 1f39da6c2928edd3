#!/bin/sh
# Kills a loaded node with SIGKILL and damages its files, one at a time; what it prints belongs in a release's note.
#   scripts/torture.sh [KILLS] [DAMAGES]      (200 and 60)
set -eu
cd "$(dirname "$0")/.."
STAYDOWN_KILLS=${1:-200} STAYDOWN_DAMAGES=${2:-60} \
    cargo test --release --test torture -- --nocapture --test-threads=1
