#!/usr/bin/env python3
"""Writes tests/vectors/pdq-drawn.tsv and pdq-dihedral.tsv: what PyPI pdqhash 0.2.8 makes of our drawings.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install pdqhash==0.2.8 numpy
    /tmp/venv/bin/python scripts/pdq-vectors.py
"""

import os
import pathlib
import subprocess
import tempfile

import numpy
import pdqhash

ROOT = pathlib.Path(__file__).resolve().parent.parent
VECTORS = ROOT / "tests" / "vectors"


def hexed(bits):
    return numpy.packbits(bits.astype(numpy.uint8)).tobytes().hex()


def draw(path):
    """The program draws; nothing of its hashing is asked."""
    command = ["cargo", "test", "--lib", "--", "--ignored", "--exact", "hashing::pdq::tests::write_the_drawings"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "STAYDOWN_DRAWINGS": str(path)}, check=True)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(os.environ.get("STAYDOWN_DRAWINGS") or pathlib.Path(folder) / "drawings")
        if not path.exists():
            draw(path)
        hashes = ["# kind\tseed or grey level\twidth\theight\tpdq\tquality"]
        positions = ["# kind\tseed\twidth\theight\tpdq in the eight positions"]
        with open(path, "rb") as drawings:
            while head := drawings.readline():
                kind, seed, width, height, in_all_positions = head.decode().rstrip("\n").split("\t")
                shape = (int(height), int(width), 3)
                pixels = numpy.frombuffer(drawings.read(shape[0] * shape[1] * 3), dtype=numpy.uint8).reshape(shape)
                start = [kind, seed, width, height]
                bits, quality = pdqhash.compute(pixels)
                hashes.append("\t".join([*start, hexed(bits), str(quality)]))
                if in_all_positions == "true":
                    positions.append("\t".join([*start, *map(hexed, pdqhash.compute_dihedral(pixels)[0])]))
    (VECTORS / "pdq-drawn.tsv").write_text("\n".join(hashes) + "\n")
    (VECTORS / "pdq-dihedral.tsv").write_text("\n".join(positions) + "\n")
    print(f"{len(hashes) - 1} hashes, {len(positions) - 1} in all positions")


main()
