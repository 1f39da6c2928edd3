#!/usr/bin/env python3
"""Writes tests/vectors/tlsh.tsv: what the py-tlsh package makes of 200 generated documents, and of pairs of them.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install py-tlsh
    /tmp/venv/bin/python scripts/tlsh-vectors.py > tests/vectors/tlsh.tsv

The documents are generated again by the test in src/hashing/tlsh.rs; only their hashes are stored.
"""

import hashlib

import tlsh

WORDS = (
    "the forum keeps a list of hashes and each member signs what it says about them so that others can look it up "
    "before a post is shown while no picture film text or address ever leaves the company that found it first"
).split()
MASK = (1 << 64) - 1


class Draw:
    """xorshift64."""

    def __init__(self, seed):
        self.state = (seed * 0x9E3779B97F4A7C15 + 1) & MASK

    def below(self, end):
        x = self.state
        x ^= (x << 13) & MASK
        x ^= x >> 7
        x ^= (x << 17) & MASK
        self.state = x
        return (x >> 32) % end


def words(number):
    draw = Draw(number)
    return [WORDS[draw.below(len(WORDS))] + (str(draw.below(1000)) if draw.below(4) == 0 else "")
            for _ in range(8 + draw.below(40) * (number + 1))]


def document(number):
    draw = Draw(1000 + number)
    kind = number % 4
    if kind == 0:
        return " ".join(words(number)).encode()
    if kind == 1:  # the one before, edited
        text = words(number - 1)
        for _ in range(1 + len(text) * draw.below(12) // 100):
            text[draw.below(len(text))] = "edited"
        return " ".join(text).encode()
    if kind == 2:
        return bytes(draw.below(256) for _ in range(draw.below(4000)))
    return bytes([97 + draw.below(26) for _ in range(1 + draw.below(9))]) * draw.below(60)


def main():
    hashes = {}
    print("# document\tnumber\tsha256, its first half\tTLSH, or none; written by scripts/tlsh-vectors.py with py-tlsh 5.0.0")
    for number in range(200):
        text = document(number)
        hashed = tlsh.hash(text)
        if hashed in ("TNULL", ""):
            hashed = "none"
        else:
            hashes[number] = hashed
        print(f"document\t{number}\t{hashlib.sha256(text).hexdigest()[:32]}\t{hashed}")
    print("# pair\tnumber\tnumber\ttlsh.diff of the two")
    numbers, draw = sorted(hashes), Draw(7)
    pairs = [(n - 1, n) for n in numbers if n % 4 == 1 and n - 1 in hashes]
    pairs += [(numbers[draw.below(len(numbers))], numbers[draw.below(len(numbers))]) for _ in range(400)]
    for a, b in pairs:
        print(f"pair\t{a}\t{b}\t{tlsh.diff(hashes[a], hashes[b])}")


main()
