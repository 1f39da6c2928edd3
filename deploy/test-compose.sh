#!/usr/bin/env bash
# Tries deploy/compose/found.sh and the forum of deploy/compose.yaml without a container engine:
#   deploy/test-compose.sh PROGRAM
# The image's root folder is made by the script that makes it in the Dockerfile; each `docker compose run` becomes a chroot
# into it, as the image's user, with the service's volumes and settings. What it does not try: the Dockerfile's own
# steps, the network of the containers, and their limits. Needs root, for chroot and mounts of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=$(realpath "$1")
work=$(mktemp -d /tmp/staydown-compose.XXXXXX)
pids=()
clean() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait || true
    rm -rf "$work"
}
trap clean EXIT

cp -r deploy "$work/deploy"
deploy/image-root.sh "$program" "$work/image"
mkdir -p "$work/bin" "$work/image/proc" "$work/image/dev"
# Names for the members, as the engine's network gives them. Each has a loopback address of its own, and so its own ports.
number=$((RANDOM % 200 + 20))
printf '127.0.%s.1 acme\n127.0.%s.2 bolt\n127.0.%s.3 cyan\n' $number $number $number >"$work/image/etc/hosts"
for volume in acme bolt cyan exchange; do
    install -d -m 0700 -o 10001 -g 10001 "$work/volumes/$volume"
done

# settings SERVICE: its environment, as the composition has it, one NAME=VALUE a line.
python3 - "$work" <<'PY'
import sys, pathlib, yaml
work = pathlib.Path(sys.argv[1])
for name, service in yaml.safe_load(open("deploy/compose.yaml"))["services"].items():
    lines = [f"{key}={value}" for key, value in service["environment"].items()]
    (work / f"{name}.env").write_text("\n".join(lines) + "\n")
PY

# What found.sh calls: docker compose -f FILE run [FLAGS] SERVICE ARGUMENTS, and exec in the same way.
cat >"$work/bin/docker" <<'SHIM'
#!/usr/bin/env bash
set -euo pipefail
[ "$1" = compose ] && [ "$2" = -f ] && { [ "$4" = run ] || [ "$4" = exec ]; } || { echo "shim: what is $*?" >&2; exit 2; }
shift 4
while [[ $1 == -* ]]; do shift; done
service=$1
shift
[ "$1" != staydown ] || shift
address=$(awk -v name="$service" '$2 == name { print $1 }' "$WORK/image/etc/hosts")
mapfile -t settings < <(sed "s/0\.0\.0\.0:7701/$address:7701/" "$WORK/$service.env")
export WORK service
exec unshare --mount --propagation private bash -c '
    mount --bind "$WORK/volumes/$service" "$WORK/image/var/lib/staydown"
    mount --bind "$WORK/volumes/exchange" "$WORK/image/exchange"
    mount -t proc proc "$WORK/image/proc"
    mount --rbind /dev "$WORK/image/dev"
    # As an engine does: what is piped in belongs to the user.
    if [ -p /proc/self/fd/0 ]; then chown 10001 /proc/self/fd/0; fi
    exec "$@"' shim \
    env -i "${settings[@]}" STAYDOWN_DATA=/var/lib/staydown STAYDOWN_LOG_FORMAT=json HOME=/var/lib/staydown PATH=/usr/bin \
    STAYDOWN_PEER_LISTEN="$address:7700" \
    /usr/sbin/chroot --userspec=10001:10001 "$WORK/image" /usr/bin/staydown "$@"
SHIM
chmod +x "$work/bin/docker"
export WORK=$work PATH="$work/bin:$PATH"

compose() { docker compose -f deploy/compose.yaml "$@"; }

printf -- '-- founding\n'
"$work/deploy/compose/found.sh" >"$work/found.out" 2>&1 || { cat "$work/found.out"; exit 1; }
printf -- '-- founding again goes on, and makes no second forum\n'
"$work/deploy/compose/found.sh" >"$work/again.out" 2>&1 || { cat "$work/again.out"; exit 1; }
forum=$(grep '^The forum is' "$work/found.out")
grep -qxF "$forum" "$work/again.out" || { printf 'not %s:\n' "$forum"; cat "$work/again.out"; exit 1; }

printf -- '-- the services\n'
for member in acme bolt cyan; do
    compose run "$member" run >"$work/$member.log" 2>&1 &
    pids+=($!)
done
until_true() {
    local tries=240
    until "$@" >"$work/last.out" 2>&1; do
        tries=$((tries - 1))
        if [ $tries = 0 ]; then
            printf 'never true: %s\n' "$*"
            cat "$work/last.out" "$work"/*.log
            exit 1
        fi
        sleep 0.25
    done
}
listed=sha256:$(printf 'a poster' | sha256sum | cut -d' ' -f1)
until_true compose exec acme staydown submit "$listed" --label symbol
until_true compose exec bolt staydown match "$listed"
until_true compose exec cyan staydown match "$listed"
printf -- '-- what acme submitted is found at bolt and cyan\n'
