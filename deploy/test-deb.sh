#!/usr/bin/env bash
# Tries the Debian package on this machine: deploy/test-deb.sh PACKAGE.deb
#
# Installs it with apt, checks what it brings, founds a forum of two nodes, runs one of them as the unit does (as-unit.py)
# and looks up at one what the other has listed, installs it again as an upgrade does, removes it, purges it, and looks at
# what is left. Takes everything away again. It refuses a machine that has a staydown already. Needs root on Debian.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
package=$(realpath "${1:?which package}")
[ "$(id -u)" = 0 ] || { printf 'test-deb.sh: needs root, to install\n' >&2; exit 1; }
for there in /etc/staydown /var/lib/staydown /run/staydown /usr/bin/staydown; do
    [ ! -e $there ] || { printf 'test-deb.sh: %s is there; this test is not for a machine with a node\n' $there >&2; exit 1; }
done
! getent passwd staydown >/dev/null || { printf 'test-deb.sh: there is a user staydown\n' >&2; exit 1; }

work=$(mktemp -d /var/tmp/staydown-deb.XXXXXX)
chmod 0755 "$work"
nodes=()
clean() {
    code=$?
    trap - EXIT
    for pid in "${nodes[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait || true
    [ "$code" = 0 ] || tail -n 30 "$work"/*.log "$work"/*.out 2>/dev/null || true
    dpkg --purge staydown >/dev/null 2>&1 || true
    rm -rf /var/lib/staydown /etc/staydown /run/staydown /etc/credstore/staydown.log-seed "$work"
    rmdir /etc/credstore 2>/dev/null || true
    deluser --quiet --system staydown 2>/dev/null || true
    exit "$code"
}
trap clean EXIT
step() { printf -- '-- %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
# In words, what must hold: must COMMAND...
must() { "$@" >"$work/must.out" 2>&1 || { cat "$work/must.out" >&2; fail "$*"; }; }
until_true() {
    local tries=300
    until "$@" >"$work/until.out" 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { cat "$work/until.out" >&2; fail "never true: $*"; }
        sleep 0.2
    done
}
mode_of() { stat -c '%a %U:%G' "$1"; }
expect_mode() { [ "$(mode_of "$1")" = "$2" ] || fail "$1 is $(mode_of "$1"), expected $2"; }
as_user=(--reuid staydown --regid staydown --init-groups)
# A command as the service's user, with the settings of the package.
as_service() { setpriv "${as_user[@]}" env "${quiet_web[@]}" staydown --config /etc/staydown/staydown.toml "$@"; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

export DEBIAN_FRONTEND=noninteractive
install_package() { apt-get install -y -q --no-install-recommends --allow-downgrades --reinstall "$package" >"$work/apt.out" 2>&1; }

step 'install'
install_package || { cat "$work/apt.out"; fail 'apt does not install it'; }
grep -q 'joined no forum yet' "$work/apt.out" || fail 'the first installation does not say what comes next'
must staydown --version
expect_mode /var/lib/staydown '700 staydown:staydown'
expect_mode /etc/staydown/staydown.toml '644 root:root'
# shellcheck disable=SC2016 # dpkg's own variables
conffiles=$(dpkg-query -W -f '${Conffiles}\n' staydown | awk 'NF { print $1 }')
[ "$conffiles" = /etc/staydown/staydown.toml ] || fail "other configuration files than expected: $conffiles"
[ "$(getent passwd staydown | cut -d: -f6,7)" = /var/lib/staydown:/usr/sbin/nologin ] || fail "user: $(getent passwd staydown)"
must bash -n /usr/share/bash-completion/completions/staydown
for page in staydown.1 staydown-run.1 staydown.toml.5; do
    file=/usr/share/man/man${page##*.}/$page.gz
    must test -s "$file"
    if command -v man >/dev/null; then must man --warnings -l "$file"; fi
done
must python3 -c 'import json; assert len(json.load(open("/usr/share/doc/staydown/sbom.cdx.json"))["components"]) > 100'
must test -s /usr/share/doc/staydown/licences.txt
must staydown policy check /usr/share/doc/staydown/examples/policy.toml
must test -L /etc/systemd/system/multi-user.target.wants/staydown.service
unit=/usr/lib/systemd/system/staydown.service
must test -f "$unit"
if command -v systemd-analyze >/dev/null; then
    must systemd-analyze verify --man=no "$unit"
    must systemd-analyze security --offline=true --threshold=20 "$unit"
fi
condition=$(sed -n 's/^ConditionPathExists=//p' "$unit")
[ ! -e "$condition" ] || fail "$condition is there: the unit would start a node that has joined nothing"

step 'a forum of two'
# The ports of this machine may be taken: what an operator would write into the settings.
port=$(free_port) port_bolt=$(free_port)
quiet_web=(STAYDOWN_WEB_LISTEN=127.0.0.1:0)
sed -i "s|^#\?listen = \"0.0.0.0:7700\"|listen = \"127.0.0.1:$port\"|" /etc/staydown/staydown.toml
grep -q "127.0.0.1:$port" /etc/staydown/staydown.toml || fail 'the settings have no peer.listen to change'
install -d -o staydown -g staydown -m 0700 "$work/desk" "$work/bolt"
printf 'correct horse battery staple\n' >"$work/desk/passphrase"
chown staydown: "$work/desk/passphrase"
chmod 0600 "$work/desk/passphrase"
desk=$work/desk
# No function: a process of its own, that is ended by its number.
bolt=(setpriv "${as_user[@]}" env "${quiet_web[@]}" STAYDOWN_DATA="$work/bolt" STAYDOWN_PEER_LISTEN="127.0.0.1:$port_bolt" staydown)
# The first installation left /var/lib/staydown; the socket's folder comes with the service.
must as_service charter key "$desk/a.pem" --passphrase-file "$desk/passphrase"
must as_service charter key "$desk/b.pem" --passphrase-file "$desk/passphrase"
must as_service charter found --name 'Package Forum' --founder "$desk/a.pem.pub" "$desk/b.pem.pub" --threshold 2 --out "$desk/draft.sdc"
must as_service init --founding "$desk/draft.sdc" --name acme --group Acme --jurisdiction FR --endpoint "127.0.0.1:$port" --out "$desk/acme.sdj"
must "${bolt[@]}" init --founding "$desk/draft.sdc" --name bolt --group Bolt --jurisdiction GB --endpoint "127.0.0.1:$port_bolt" --out "$desk/bolt.sdj"
must as_service --yes charter admit "$desk/acme.sdj" "$desk/bolt.sdj" --role FULL --into "$desk/draft.sdc" --out "$desk/charter.sdc"
for founder in a b; do
    must as_service --yes charter sign "$desk/charter.sdc" --key "$desk/$founder.pem" --passphrase-file "$desk/passphrase"
done
must as_service charter invite --from "$desk/charter.sdc" --out "$desk/invite.sdi"
forum=$(as_service charter show "$desk/charter.sdc" | sed -n 's/^Fingerprint  *//p')
"${bolt[@]}" join "$desk/invite.sdi" --forum "$forum" >"$work/bolt.log" 2>&1 &
nodes+=($!)
# As README.Debian says: the socket beside the data, for the service's folder is not there yet.
must as_service --socket /var/lib/staydown/local.sock join --once --timeout 60 "$desk/invite.sdi" --forum "$forum"
must test -e "$condition"
expect_mode /var/lib/staydown/keys/log-root.pem '600 staydown:staydown'

step 'the service, within the bounds of its unit'
# One of the secrets comes as a credential, as the unit would load it.
install -d -m 0700 /etc/credstore
mv /var/lib/staydown/keys/log-seed /etc/credstore/staydown.log-seed
chown root:root /etc/credstore/staydown.log-seed
/usr/bin/python3 deploy/as-unit.py "$unit" --set "${quiet_web[0]}" >"$work/acme.out" 2>"$work/acme.log" &
service=$!
nodes+=("$service")
until_true grep -q '^notify: .*READY=1' "$work/acme.out"
expect_mode /run/staydown '755 staydown:staydown'
expect_mode /run/staydown/local.sock '660 staydown:staydown'
listed=sha256:$(printf 'a poster' | sha256sum | cut -d' ' -f1)
must as_service submit "$listed" --label symbol
until_true "${bolt[@]}" match "$listed"
until_true as_service match "$listed"
# Root's own shell, without a word about where anything is: the settings of the machine's service are found.
must env -u STAYDOWN_DATA HOME=/nonexistent staydown match "$listed"
must env HOME=/nonexistent staydown status

step 'ffmpeg within the same bounds'
if command -v ffmpeg >/dev/null; then
    # Within the unit /tmp and /var/tmp are others.
    drawn=/var/lib/staydown/drawn.mp4
    ffmpeg -nostdin -loglevel error -f lavfi -i testsrc=size=320x240:duration=4 -c:v mpeg4 "$drawn"
    chown staydown: "$drawn"
    staydown --json hash "$drawn" >"$work/outside.out"
    /usr/bin/python3 deploy/as-unit.py "$unit" --set "${quiet_web[0]}" -- /usr/bin/staydown --json hash "$drawn" >"$work/inside.all"
    rm "$drawn"
    grep -v '^ended: ' "$work/inside.all" >"$work/inside.out"
    grep -qi vpdq "$work/outside.out" || fail "no frames of the video: $(cut -c1-300 "$work/outside.out")"
    cmp "$work/outside.out" "$work/inside.out" || fail "ffmpeg does not work in the unit: $(cut -c1-300 "$work/inside.out")"
else
    [ "${CI:-}" != true ] || fail 'ffmpeg is missing in CI'
    printf 'skipped: ffmpeg is missing\n'
fi

step 'reload, upgrade, stop'
kill -HUP $service
until_true grep -q '^notify: .*RELOADING=1' "$work/acme.out"
# The second READY=1 ends the reload.
until_true sh -c "[ \$(grep -c '^notify: .*READY=1' '$work/acme.out') -ge 2 ]"
install_package || { cat "$work/apt.out"; fail 'it does not install over itself'; }
grep -q "127.0.0.1:$port" /etc/staydown/staydown.toml || fail 'an upgrade has put the settings back'
must env HOME=/nonexistent staydown status
kill -TERM $service
code=0
wait $service || code=$?
[ $code = 0 ] || fail "the service ended with $code"
grep -q '^notify: .*STOPPING=1' "$work/acme.out" || fail 'it did not say that it stops'
rm -rf /run/staydown # as the manager does

step 'remove'
must dpkg --remove staydown
[ ! -e /usr/bin/staydown ] || fail 'the program is still there'
must test -f /etc/staydown/staydown.toml
must test -f /var/lib/staydown/keys/log-root.pem

step 'purge'
printf '[[rule]]\n' >/etc/staydown/policy.toml
before=$(find /var/lib/staydown -type f ! -name '*.addr' -exec sha256sum {} + | sort)
dpkg --purge staydown >"$work/purge.out" 2>&1 || { cat "$work/purge.out"; fail 'it cannot be purged'; }
grep -q 'kept /var/lib/staydown with the keys' "$work/purge.out" || fail "the purge does not say what it keeps: $(cat "$work/purge.out")"
[ ! -e /etc/staydown/staydown.toml ] || fail 'the settings are still there'
must test -f /etc/staydown/policy.toml
[ ! -e /run/staydown ] || fail '/run/staydown is still there'
[ ! -e /etc/systemd/system/multi-user.target.wants/staydown.service ] || fail 'the unit is still enabled'
must getent passwd staydown
[ "$(find /var/lib/staydown -type f ! -name '*.addr' -exec sha256sum {} + | sort)" = "$before" ] || fail 'the purge changed the data'
expect_mode /var/lib/staydown '700 staydown:staydown'
left=$(find / -xdev \( -path /proc -o -path "$work" -o -path /var/lib/staydown -o -path /etc/staydown -o -path /work -o -path /tmp -o -path /root -o -path /home \) -prune \
    -o -newer "$work/desk/passphrase" -name '*staydown*' -print 2>/dev/null | grep -v '^/etc/credstore/' || true)
[ -z "$left" ] || fail "left over: $left"

step 'installed again, the same node goes on'
rm /etc/staydown/policy.toml
install_package || { cat "$work/apt.out"; fail 'it does not install again'; }
! grep -q 'joined no forum yet' "$work/apt.out" || fail 'it does not see that this node has joined'
sed -i "s|^#\?listen = \"0.0.0.0:7700\"|listen = \"127.0.0.1:$port\"|" /etc/staydown/staydown.toml
/usr/bin/python3 deploy/as-unit.py "$unit" --set "${quiet_web[0]}" >"$work/again.out" 2>"$work/again.log" &
service=$!
nodes+=("$service")
until_true grep -q '^notify: .*READY=1' "$work/again.out"
until_true env HOME=/nonexistent staydown match "$listed"
kill -TERM $service
wait $service || fail 'the service did not end well'
printf 'the package installs, runs within its unit, upgrades, and leaves what it should\n'
