#!/usr/bin/env bash
# What can be checked of deploy/ without building anything and without installing anything: the unit, the scripts, the
# composition, the Dockerfile, the chart, the licences. Under CI=true a tool that is missing is a failure; otherwise it is said what
# was left out. deploy/test-deb.sh and deploy/test-compose.sh try the rest with a program.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
# has TOOL PACKAGE: whether it is here.
has() {
    command -v "$1" >/dev/null && return 0
    [ "${CI:-}" != true ] || fail "$1 is missing in CI (Debian: $2)"
    printf 'left out: %s is missing (Debian: apt-get install %s)\n' "$1" "$2"
    return 1
}

# Highest exposure that systemd's analysis may find, in tenths of its ten.
exposure_max=20
if has systemd-analyze systemd; then
    unit=deploy/systemd/staydown.service
    systemd-analyze security --offline=true --no-pager --threshold=$exposure_max $unit >"$work/security" || {
        cat "$work/security"
        fail "systemd calls $unit more exposed than it may be"
    }
    tail -n 1 "$work/security"
    # Where the program is not installed, another one stands in for it: the rest of the unit is what is looked at.
    sed 's|^ExecStart=/usr/bin/staydown |ExecStart=/bin/true |' $unit >"$work/staydown.service"
    systemd-analyze verify --man=no "$work/staydown.service" 2>"$work/verify" || true
    ! grep -F "staydown.service" "$work/verify" || fail 'systemd does not understand the unit'
fi

if has shellcheck shellcheck; then
    shellcheck -x deploy/*.sh deploy/compose/*.sh
    # #DEBHELPER# is where cargo-deb puts its part.
    shellcheck deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm
fi

# Everything that the package takes from the source is there; what the build makes is in target/package.
python3 - <<'PY'
import glob, tomllib
manifest = tomllib.load(open("Cargo.toml", "rb"))
deb = manifest["package"]["metadata"]["deb"]
sources = [asset[0] for asset in deb["assets"] if not asset[0].startswith("target/")]
missing = [source for source in [*sources, deb["changelog"], deb["license-file"][0]] if not glob.glob(source)]
assert not missing, f"Cargo.toml names files for the package that are not there: {missing}"
version = manifest["package"]["version"]
first = open(deb["changelog"]).readline()
assert f"({version}-" in first, f"deploy/debian/changelog begins with {first!r}, expected version {version}"
chart = open("deploy/helm/staydown/Chart.yaml").read()
assert f'appVersion: "{version}"' in chart, f"Chart.yaml has another appVersion than {version}"
PY

if python3 -c 'import yaml' 2>/dev/null; then
    python3 - <<'PY'
import yaml
composition = yaml.safe_load(open("deploy/compose.yaml"))
assert list(composition["services"]) == ["acme", "bolt", "cyan"]
for name, service in composition["services"].items():
    assert service["read_only"] and service["cap_drop"] == ["ALL"], name
    assert all(port.startswith("127.0.0.1:") for port in service["ports"]), f"{name} is reached from other machines"
    volumes = [volume.split(":")[0] for volume in service["volumes"]]
    assert volumes == [name, "exchange"] and set(volumes) <= set(composition["volumes"]), name
PY
    python3 deploy/check-chart.py
elif [ "${CI:-}" = true ]; then
    fail 'python3-yaml is missing in CI'
else
    printf 'left out: python3-yaml is missing (Debian: apt-get install python3-yaml)\n'
fi
if docker compose version >/dev/null 2>&1; then
    docker compose -f deploy/compose.yaml config --quiet
elif command -v docker-compose >/dev/null; then
    # The old one does not know the name of a composition.
    sed '/^name:/d' deploy/compose.yaml >deploy/compose.old.yaml
    docker-compose -f deploy/compose.old.yaml config --quiet || { rm deploy/compose.old.yaml; fail 'docker-compose does not understand compose.yaml'; }
    rm deploy/compose.old.yaml
else
    printf 'left out: docker compose config, for there is no docker compose\n'
fi

# The Dockerfile: every file that it copies or runs, no root, the words that a build would stop at.
python3 - <<'PY'
import pathlib, re
text = pathlib.Path("Dockerfile").read_text().replace("\\\n", " ")
lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
known = {"ARG", "FROM", "RUN", "COPY", "LABEL", "USER", "ENV", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
assert not (unknown := {line[0] for line in lines} - known), unknown
stages = {match.group(1) for line in lines if line[0] == "FROM" and (match := re.search(r" AS (\S+)", line[1]))}
assert all(stage in stages for stage in re.findall(r"--from=(\S+)", text)), stages
for script in re.findall(r"deploy/\S+\.(?:sh|env)", text):
    assert pathlib.Path(script).is_file(), f"the Dockerfile runs {script}, which is not there"
assert [line[1] for line in lines if line[0] == "USER"] == ["10001:10001"]
ignored = pathlib.Path(".dockerignore").read_text().split()
assert ".git" in ignored and "**/*.pem" in ignored
PY
printf 'Dockerfile and composition: sound as far as can be seen without an engine\n'

python3 deploy/sbom.py --sbom "$work/sbom.json" --licences "$work/licences.txt"
python3 deploy/sbom.py --sbom "$work/again.json" 2>/dev/null
cmp "$work/sbom.json" "$work/again.json" || fail 'the list of components differs from one time to the next'
