#!/bin/sh
# The matching index and PDQ against what others use, on the same lists, queries and pixels, in one run.
#
#   scripts/peers.sh [100k|1m|10m]
#
# Needs python3 with venv, and a package index (or PIP_* settings that lead to one). Leaves nothing behind but the
# build. Exit code 0: every answer agrees and every aim is met; 2: an aim is missed.
set -eu

size=${1:-1m}
cd "$(dirname "$0")/.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
trap 'exit 130' INT TERM

python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check -r benches/requirements.txt
cargo bench --quiet --no-run --bench matching --bench hashing
"$place/venv/bin/python" benches/peers.py "$place" --size "$size" \
    --matching "cargo bench --quiet --bench matching --" \
    --hashing "cargo bench --quiet --bench hashing -- --pixels"
