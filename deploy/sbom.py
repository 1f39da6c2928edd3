#!/usr/bin/env python3
"""What a release is made of: a CycloneDX 1.5 document, and the licences of all components.

Reads `cargo metadata --locked` for one target and takes the components that are linked into the program; what only builds
or tests it is left out. A licence under which we may not ship, or none, ends with exit 1 and the component's name. The same
Cargo.lock gives the same bytes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"

# Permissive: to be shipped inside a program of any licence, with the notice kept. MPL-2.0 would want its own files' source
# to be offered, the GPL family more; none of them is in here, and a new one must be talked about first.
PERMISSIVE = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CC0-1.0", "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "OpenSSL", "Unicode-3.0", "Unicode-DFS-2016", "Unlicense",
    "Zlib",
}


def allowed(expression):
    """Whether an SPDX expression lets us choose permissive licences only. `/` is the old way to write OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        holds = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            other = both()
            holds = holds or other
        return holds

    def both():
        holds = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            other = one()
            holds = holds and other
        return holds

    def one():
        if not tokens:
            raise ValueError(f"{expression!r} is no licence expression")
        word = tokens.pop(0)
        if word == "(":
            holds = either()
            if not tokens or tokens.pop(0) != ")":
                raise ValueError(f"{expression!r}: a bracket is not closed")
            return holds
        if tokens and tokens[0] == "WITH":
            tokens.pop(0)
            word = f"{word} WITH {tokens.pop(0)}"
        return word in PERMISSIVE

    holds = either()
    if tokens:
        raise ValueError(f"{expression!r}: {tokens[0]!r} is left over")
    return holds


def written(expression):
    """The expression as SPDX writes it today."""
    return " ".join(expression.replace("/", " OR ").split())


def metadata(features):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    if features:
        command += ["--features", features]
    return json.loads(subprocess.run(command, cwd=SOURCE, check=True, stdout=subprocess.PIPE).stdout)


def linked(described):
    """The root's id, and what each linked package depends on: normal dependencies only, proc macros left out."""
    packages = {package["id"]: package for package in described["packages"]}
    nodes = {node["id"]: node for node in described["resolve"]["nodes"]}
    root = described["resolve"]["root"]
    edges, waiting = {}, [root]
    while waiting:
        name = waiting.pop()
        if name in edges:
            continue
        edges[name] = sorted(
            dep["pkg"]
            for dep in nodes[name]["deps"]
            if dep["pkg"] != root
            and any(kind["kind"] is None for kind in dep["dep_kinds"])
            and not any("proc-macro" in target["kind"] for target in packages[dep["pkg"]]["targets"])
        )
        waiting += edges[name]
    return root, packages, edges


def checksums():
    with open(SOURCE / "Cargo.lock", "rb") as file:
        lock = tomllib.load(file)
    return {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, sums):
    described = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
        "scope": "required",
        "licenses": [{"expression": written(package["license"])}],
    }
    if sums.get((package["name"], package["version"])):
        described["hashes"] = [{"alg": "SHA-256", "content": sums[package["name"], package["version"]]}]
    if package.get("repository"):
        described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return described


def document(root, packages, edges, sums):
    ours = packages[root]
    parts = [component(packages[name], sums) for name in edges if name != root]
    parts.sort(key=lambda part: part["bom-ref"])
    # A serial number is demanded; made of the content, it is the same for the same content.
    content = json.dumps([part["bom-ref"] for part in parts] + [sums.get(key) or "" for key in sorted(sums)])
    made = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), timezone.utc)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, purl(ours) + content)}",
        "version": 1,
        "metadata": {
            "timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": purl(ours),
                "name": ours["name"],
                "version": ours["version"],
                "purl": purl(ours),
                "licenses": [{"expression": ours["license"]}],
            },
            "properties": [{"name": "cargo:target", "value": TARGET}],
        },
        "components": parts,
        "dependencies": [
            {"ref": purl(packages[name]), "dependsOn": sorted(purl(packages[dep]) for dep in edges[name])}
            for name in sorted(edges, key=lambda name: purl(packages[name]))
        ],
    }


def listing(root, packages, edges):
    lines = ["The components of staydown that are linked into the program, and the licence of each.", ""]
    names = sorted((packages[name] for name in edges if name != root), key=lambda p: (p["name"], p["version"]))
    lines += [f"{package['name']} {package['version']}: {written(package['license'])}" for package in names]
    return "\n".join(lines) + "\n"


def refused(root, packages, edges):
    """What may not be shipped, with the reason."""
    found = []
    for name in edges:
        package = packages[name]
        expression = package["license"]
        if not expression:
            found.append(f"{package['name']} {package['version']} names no licence")
        elif not allowed(expression):
            found.append(f"{package['name']} {package['version']} is {expression}, expected a permissive licence")
    return sorted(found)


def check_itself():
    for expression, expected in [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only", False),
        ("MIT/Apache-2.0", True),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", True),
        ("MIT AND GPL-2.0-only", False),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("GPL-3.0-only OR MIT AND MPL-2.0", False),
    ]:
        assert allowed(expression) == expected, expression


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sbom", type=Path, help="write the CycloneDX document here")
    parser.add_argument("--licences", type=Path, help="write the list of licences here")
    parser.add_argument("--features", help="features of the build, as cargo takes them")
    args = parser.parse_args()
    check_itself()
    root, packages, edges = linked(metadata(args.features))
    found = refused(root, packages, edges)
    if found:
        print("\n".join(f"error: {line}" for line in found), file=sys.stderr)
        sys.exit(1)
    if args.sbom:
        text = json.dumps(document(root, packages, edges, checksums()), indent=1, ensure_ascii=False)
        args.sbom.write_text(text + "\n")
    if args.licences:
        args.licences.write_text(listing(root, packages, edges))
    print(f"{len(edges) - 1} components, all under permissive licences", file=sys.stderr)


if __name__ == "__main__":
    main()
