#!/bin/sh
# Kills a loaded node with SIGKILL, damages its files one at a time, restores backups of it and clones it while it runs;
# what it prints belongs in a release's note.
#   scripts/torture.sh [KILLS] [DAMAGES] [RESTORES] [CLONES]      (200, 60, 100 and 50)
set -eu
cd "$(dirname "$0")/.."
STAYDOWN_KILLS=${1:-200} STAYDOWN_DAMAGES=${2:-60} STAYDOWN_RESTORES=${3:-100} STAYDOWN_CLONES=${4:-50} \
    cargo test --release --test torture -- --nocapture --test-threads=1
