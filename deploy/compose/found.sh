#!/usr/bin/env bash
# Founds the forum of deploy/compose.yaml, once: founder keys, charter, requests, signatures, invitation, joining.
#
# Every step is a command of staydown inside a container, for the image has no shell. What three companies do on three
# machines, with a telephone in between, is done here by one hand: the trial is real but for that. Running it again goes
# on where it stopped; `docker compose -f deploy/compose.yaml down --volumes` deletes the forum.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

members=(acme bolt cyan)
jurisdictions=(FR GB FR)
# Beside this script, not in a volume: whoever has both holds the founders' keys.
passphrase_file=compose/founders.passphrase

compose() { docker compose -f compose.yaml "$@"; }
# staydown NAME ARGUMENTS: one command as that company. Other members reach it by its name meanwhile.
staydown() {
    local member=$1
    shift
    compose run --rm --no-deps --use-aliases -T "$member" "$@"
}
# Through a pipe, which the engine gives to the container's user; a file would stay ours.
with_passphrase() { base64 -w 0 "$passphrase_file" | staydown "$@" --passphrase-file /dev/stdin; }
# Whether a step has been done: its result can be shown.
exists() { staydown acme --quiet charter show "$1" </dev/null >/dev/null 2>&1; }

umask 077
if [ ! -s "$passphrase_file" ]; then
    head -c 24 /dev/urandom >"$passphrase_file"
fi

if ! exists /exchange/charter-1.sdc; then
    public=()
    for member in "${members[@]}"; do
        with_passphrase "$member" charter key "/exchange/founder-$member.pem" || printf 'the key of %s is kept\n' "$member"
        public+=("/exchange/founder-$member.pem.pub")
    done
    staydown acme charter found --name "Trial Forum" --founder "${public[@]}" --threshold 2 --out /exchange/draft.sdc </dev/null
    requests=()
    for number in "${!members[@]}"; do
        member=${members[$number]}
        staydown "$member" init --founding /exchange/draft.sdc --name "$member" --group "${member^}" \
            --jurisdiction "${jurisdictions[$number]}" --endpoint "$member:7700" --out "/exchange/$member.sdj" </dev/null
        requests+=("/exchange/$member.sdj")
    done
    staydown acme --yes charter admit "${requests[@]}" --role FULL --into /exchange/draft.sdc -o /exchange/charter-1.sdc </dev/null
fi
if ! staydown acme --quiet charter show /exchange/invite.sdi </dev/null >/dev/null 2>&1; then
    for member in acme bolt; do
        with_passphrase "$member" --yes charter sign /exchange/charter-1.sdc --key "/exchange/founder-$member.pem"
    done
fi
# It is a fingerprint that people tell each other; here one hand does both.
staydown acme --quiet --yes charter invite --from /exchange/charter-1.sdc --out /exchange/invite.sdi </dev/null
fingerprint=$(staydown acme charter show /exchange/charter-1.sdc </dev/null | sed -n 's/^Fingerprint  *//p')
printf 'The forum is %s\n' "$fingerprint"

# Each checks the invitation and keeps it. Nobody else is up yet, so nobody is reached (exit 5); they meet when they run.
for member in "${members[@]}"; do
    code=0
    said=$(staydown "$member" join /exchange/invite.sdi --forum "$fingerprint" --once --timeout 1 </dev/null 2>&1) || code=$?
    if [ "$code" != 0 ] && [ "$code" != 5 ]; then
        printf '%s\n' "$said"
        exit "$code"
    fi
done
printf 'acme, bolt and cyan are in. Next: docker compose -f deploy/compose.yaml up -d\n'
