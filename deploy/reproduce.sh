#!/usr/bin/env bash
# Builds the package twice, in two folders, at two times of day, and compares: deploy/reproduce.sh [PACKAGE.deb]
#
# With a package: builds once, from the commit that is checked out, and compares with it. That is how a company finds
# out whether the package that it was given is made of the source that it has read. Takes as long as two release builds (one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
given=${1:+$(realpath "$1")}
# A short and a long path: a path that gets into the program changes its length too.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/staydown-reproduce.XXXXXX")
trap 'rm -rf "$work"' EXIT
[ -z "$(git status --porcelain)" ] || { printf 'reproduce.sh: there are changes that are not committed; they are not built\n' >&2; }

# build NAME: a clone of this commit, built and packaged in a folder of that name; prints the package.
build() {
    local folder=$work/$1
    git clone -q --no-hardlinks . "$folder"
    (
        cd "$folder"
        unset CARGO_TARGET_DIR SOURCE_DATE_EPOCH
        deploy/package.sh -o "$folder/out" >"$work/$1.log" 2>&1 || { tail -n 30 "$work/$1.log" >&2; exit 1; }
    )
    mv "$folder"/out/*.deb "$work/$1.deb"
    # A build is several GB; only its result is needed.
    rm -rf "$folder"
    printf '%s\n' "$work/$1.deb"
}

first=${given:-$(build a)}
second=$(build a-folder-with-a-much-longer-name)
sha256sum "$first" "$second"
if cmp -s "$first" "$second"; then
    printf 'the same, byte for byte\n'
    exit 0
fi
printf 'they differ; the files that do:\n'
listing() {
    mkdir "$work/inside"
    dpkg-deb --raw-extract "$1" "$work/inside"
    (cd "$work/inside" && find . -type f -exec sha256sum {} + | sort -k 2)
    rm -rf "$work/inside"
}
listing "$first" >"$work/first"
listing "$second" >"$work/second"
diff "$work/first" "$work/second" || true
exit 1
