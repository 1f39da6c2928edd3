#!/bin/sh
# Imports a table of so many rows into a forum of one member, kills the sender and the node once in the middle, goes on,
# and checks that nothing was said twice and nothing lost; what it prints belongs in a release's note.
#
#   scripts/import.sh ROWS [PROGRAM]      (1,000,000 rows take minutes; PROGRAM: else built as a release)
set -eu

rows=${1:?usage: scripts/import.sh ROWS [PROGRAM]}
cd "$(dirname "$0")/.."
if [ -n "${2:-}" ]; then
    program=$2
else
    cargo build --release --quiet
    program=${CARGO_TARGET_DIR:-target}/release/staydown
fi
folder=$(mktemp -d)
node=
trap 'kill -9 $node 2>/dev/null || true; rm -rf "$folder"' EXIT
program=$(realpath "$program")
port=$((20000 + $$ % 20000))
say() { "$program" --data "$folder/acme" "$@"; }
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

"$program" charter key "$folder/founder.pem" --no-passphrase >/dev/null 2>&1
"$program" charter found --name "Example Forum" --founder "$folder/founder.pem.pub" --threshold 1 --out "$folder/draft.sdc" >/dev/null 2>&1
"$program" charter set-policy --quota-bulk $((rows * 2 + 1000)) --log-bytes-max 64GiB --into "$folder/draft.sdc" >/dev/null 2>&1
say init --founding "$folder/draft.sdc" --name acme --group Acme --jurisdiction FR --endpoint "127.0.0.1:$port" --out "$folder/acme.sdj" >/dev/null 2>&1
printf '[peer]\nlisten = "127.0.0.1:%s"\n[web]\nlisten = "off"\n' "$port" > "$folder/acme/staydown.toml"
"$program" charter admit "$folder/acme.sdj" --role FULL --into "$folder/draft.sdc" --yes >/dev/null 2>&1
"$program" charter sign "$folder/draft.sdc" --key "$folder/founder.pem" --yes >/dev/null 2>&1
"$program" charter invite --from "$folder/draft.sdc" --out "$folder/invite.sdi" >/dev/null 2>&1
forum=$("$program" charter show "$folder/draft.sdc" --json | field forum_id)

ready() {
    tries=0
    until say status --json >"$folder/status" 2>/dev/null; do
        tries=$((tries + 1))
        test $tries -lt 3000 || { echo "the node does not start: $(tail -3 "$folder/node.log")"; exit 1; }
        sleep 0.2
    done
}

# SHA-256 of a counter; each 10th row is a PDQ hash; on each 1,000th line something is wrong.
python3 - "$rows" "$folder/list.csv" "$folder/expected" <<'END'
import hashlib, sys
rows, table, expected = int(sys.argv[1]), open(sys.argv[2], "w"), open(sys.argv[3], "w")
table.write("type,value,labels,languages,severity,expires,quality\n")
for n in range(rows):
    value, line = hashlib.sha256(b"example %d" % n).hexdigest(), n + 2
    if line % 1000 == 0:
        wrong = [f"sha256,{value[:-1]},symbol,,,,", f"sha256,{value},simbol,,,,", f"pdq,{value},symbol,,,,20",
                 f"sha256,\"{value},symbol,,,,", f"sha256,{value},symbol,fr,7,,"]
        table.write(wrong[line // 1000 % len(wrong)] + "\n")
        expected.write(f"{line}\n")
    elif n % 10 == 0:
        table.write(f"pdq,{value},symbol;other,fr,{n % 5},,80\n")
    else:
        table.write(f"sha256,{value},symbol,fr;pt-BR,{n % 5},,\n")
END
wrong=$(wc -l < "$folder/expected" | tr -d ' ')
good=$((rows - wrong))

# Not through a function: a kill has to reach the program itself.
"$program" --data "$folder/acme" join "$folder/invite.sdi" --forum "$forum" --yes >/dev/null 2>"$folder/node.log" & node=$!
ready

send() { say submit --from "$folder/list.csv" --rejected "$folder/no.csv" "$@"; }
entries() { say status --json | field entries; }
begun=$(date +%s.%N)
"$program" --data "$folder/acme" submit --from "$folder/list.csv" 2>"$folder/first.log" & sender=$!
while [ "$(entries)" -lt $((good / 3)) ]; do sleep 0.1; done
kill -9 $sender; wait $sender 2>/dev/null || true
first=$(entries); first_took=$(python3 -c "import sys,time; print('%.1f' % (time.time() - $begun))")
echo "sender killed after $first entries and $first_took s"
"$program" --data "$folder/acme" submit --from "$folder/list.csv" 2>"$folder/second.log" & sender=$!
while [ "$(entries)" -lt $((good * 2 / 3)) ]; do sleep 0.1; done
kill -9 $node; wait $node 2>/dev/null || true
code=0; wait $sender || code=$?
grep -q 'run the same command again' "$folder/second.log" \
    || { echo "the sender did not tell how to go on: $code $(cat "$folder/second.log")"; exit 1; }
echo "node killed; the sender ended with $code and told how to go on"
again=$(date +%s.%N)
"$program" --data "$folder/acme" run >/dev/null 2>>"$folder/node.log" & node=$!
ready
echo "node up again after $(python3 -c "import time; print('%.1f' % (time.time() - $again))") s with $(entries) entries"
code=0; send --json >"$folder/third" 2>"$folder/third.log" || code=$?
test $code -eq 65 || { echo "expected exit code 65, got $code: $(cat "$folder/third" "$folder/third.log")"; exit 1; }
echo "third run: $(cat "$folder/third" | python3 -c 'import json,sys; t=json.load(sys.stdin); t["error"]["culprits"]=len(t["error"]["culprits"]); print(t)')"
code=0; send --json >"$folder/fourth" 2>/dev/null || code=$?
echo "all said before: $(field rows_per_second < "$folder/fourth") rows/s"

say status --json >"$folder/status"
say log verify --json >"$folder/verified"
python3 - "$folder" "$good" "$wrong" <<'END'
import json, re, sys
folder, good, wrong = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
load = lambda name: json.load(open(f"{folder}/{name}"))
status, verified, third, fourth = load("status"), load("verified"), load("third"), load("fourth")
lines = re.findall(r"^line (\d+)", open(f"{folder}/no.csv.reasons").read(), re.M)
checks = {
    "every good row is an entry": status["entries"] == good,
    "every good row is one record, beside the openings of logs": verified["records"] == good + verified["logs"],
    "the logs verify": not verified.get("first_break"),
    "every row has an outcome": third["said"] + third["said_before"] == good and third["refused"] == wrong,
    "a further run says nothing": fourth["said"] == 0 and fourth["said_before"] == good,
    "the malformed lines are listed, and no others": lines == open(f"{folder}/expected").read().split(),
    "they can be sent again": open(f"{folder}/no.csv").read().count("\n") == wrong + 1,
}
for what, holds in checks.items():
    print(("ok     " if holds else "FAILED ") + what)
sys.exit(0 if all(checks.values()) else 1)
END
clean=$(date +%s.%N)
say list export -o "$folder/out.csv" 2>"$folder/export.log"
echo "export: $(tail -1 "$folder/export.log"), $(python3 -c "import time; print('%.1f' % (time.time() - $clean))") s"
if [ -n "${UNDO:-}" ]; then
    batch=$(field batch < "$folder/fourth"); clean=$(date +%s.%N)
    say batch undo "$batch" --yes --json
    echo "undo: $(python3 -c "import time; print('%.1f' % (time.time() - $clean))") s, $(entries) entries left"
fi
