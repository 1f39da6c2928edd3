#!/usr/bin/env bash
# Builds the release and puts it into a Debian package: deploy/package.sh [-o DIR] [--profile dev|release] [--no-build]
#
# What the package holds beside the program is made by the program itself (man pages, completions, the built-in policy)
# or from Cargo.lock (the list of components, the licences), so that it cannot lag behind. The same source gives the same
# bytes, in whatever folder and at whatever time: deploy/reproduce.sh checks that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=target/debian profile=release build=yes
while [ $# -gt 0 ]; do
    case $1 in
        -o) out=$2; shift 2 ;;
        --profile) profile=$2; shift 2 ;;
        --no-build) build=no; shift ;;
        *) printf 'package.sh: what is %s?\n' "$1" >&2; exit 2 ;;
    esac
done
command -v cargo-deb >/dev/null || {
    printf 'package.sh: cargo-deb is missing; fix: cargo install cargo-deb --version 3.8.0 --locked\n' >&2
    exit 1
}

# shellcheck source=deploy/reproducible.env
. deploy/reproducible.env

if [ "$build" = yes ]; then
    cargo build --locked --bin staydown --profile "$profile"
fi
folder=$([ "$profile" = dev ] && echo debug || echo "$profile")
program=${CARGO_TARGET_DIR:-target}/$folder/staydown

# cargo-deb looks for these below the source, wherever the build is.
parts=target/package
rm -rf "$parts"
mkdir -p "$parts/man" "$parts/completions"
"$program" man -o "$parts/man"
"$program" completions bash >"$parts/completions/staydown.bash"
"$program" completions zsh >"$parts/completions/_staydown"
"$program" completions fish >"$parts/completions/staydown.fish"
"$program" policy show --built-in >"$parts/policy.toml"
# The example with every key, and those few set that differ for a service of the machine: where its files are, and that the
# group staydown may use the socket.
set_key() {
    sed -i "s|^#$1 = .*|$1 = \"$2\"|" "$parts/staydown.toml"
    grep -qx "$1 = \"$2\"" "$parts/staydown.toml" || { printf 'package.sh: the example has no key %s\n' "$1" >&2; exit 1; }
}
"$program" config example >"$parts/staydown.toml"
set_key data /var/lib/staydown
set_key socket /run/staydown/local.sock
set_key mode 0660
python3 deploy/sbom.py --sbom "$parts/sbom.cdx.json" --licences "$parts/licences.txt"

mkdir -p "$out"
strip=()
[ "$profile" = release ] || strip=(--no-strip --fast)
cargo deb --no-build --locked --profile "$profile" "${strip[@]}" --no-dbgsym --output "$out"
