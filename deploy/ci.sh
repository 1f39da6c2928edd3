#!/usr/bin/env bash
# The part of .ci/run that looks at the packages, after `cargo test` has built the program: the checks of deploy/check.sh, then
# the Debian package and the composition of three, each tried with the program of the tests. A release is not built
# here; deploy/package.sh and deploy/reproduce.sh do that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)

# command:package
tools=(systemd-analyze:systemd shellcheck:shellcheck dpkg-shlibdeps:dpkg-dev man:man-db adduser:adduser setpriv:util-linux)
wanted=()
for tool in "${tools[@]}"; do
    command -v "${tool%%:*}" >/dev/null || wanted+=("${tool##*:}")
done
# Debian's modules are of Debian's Python, whatever else is in the path.
/usr/bin/python3 -c 'import yaml' 2>/dev/null || wanted+=(python3-yaml)
/usr/bin/python3 -c 'import seccomp' 2>/dev/null || wanted+=(python3-seccomp)
if [ ${#wanted[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    { "${as_root[@]}" apt-get update -q && "${as_root[@]}" apt-get install -y -q --no-install-recommends "${wanted[@]}"; } ||
        printf 'could not be installed: %s\n' "${wanted[*]}"
fi
export PATH=/usr/bin:$PATH

deploy/check.sh

folder=${CARGO_TARGET_DIR:-target}
program=$folder/debug/staydown
if [ ! -x "$program" ]; then
    printf 'left out: %s is not there, so there is nothing to package\n' "$program"
    [ "${CI:-}" != true ]
    exit
fi
# Half the time of an optimised one, and it runs for a minute.
command -v cargo-deb >/dev/null || cargo install cargo-deb --version 3.8.0 --locked --debug --quiet --target-dir "$folder/cargo-deb"
deploy/package.sh --no-build --profile dev -o "$folder/package"
if ! "${as_root[@]}" unshare --mount true 2>/dev/null; then
    printf 'left out: this machine gives no mounts of our own, so neither package nor composition is tried\n'
    exit
fi
"${as_root[@]}" deploy/test-compose.sh "$program"
if [ -e /var/lib/staydown ] || [ -e /etc/staydown ]; then
    printf 'left out: this machine has a staydown, which the test of the package would remove\n'
    exit
fi
"${as_root[@]}" env CI="${CI:-}" deploy/test-deb.sh "$folder"/package/staydown_*.deb
