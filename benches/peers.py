#!/usr/bin/env python3
"""The same lists, queries and pixels through what others use: FAISS, python-threatexchange, PyPI pdqhash.

scripts/peers.sh runs it; docs/performance.md says what is compared. Starts our benches, which write lists, queries and
answers; holds every answer against ours; and measures both sides in turn, CPU time of one thread, so that what
disturbs the machine disturbs both. Exits with 1 when an answer differs and with 2 when an aim is missed.
"""

import argparse
import ctypes
import pathlib
import statistics
import subprocess
import sys
import time

import faiss
import numpy
import pdqhash
from threatexchange.signal_type.pdq.pdq_index import PDQIndex

BITS = 256
THRESHOLD = 31
# threatexchange's PDQMultiHashIndex: 16 tables of 16 bits; search() sets nflip to threshold // tables.
TABLES = 16
FLIPS = THRESHOLD // TABLES
# Turns of single queries, and CPU seconds that one of them should take; a peer needs 50 ms a query at 10 M.
TURNS = 7
TURN_SECONDS = 0.5
QUERIES_MIN = 20
# Turns of whole batches; above the size below one, which takes a minute there.
BATCH_TURNS = 3
# Its Python objects and its map of ids take several times the memory of the hashes, and are not measured above this.
THREATEXCHANGE_ENTRIES_MAX = 1_000_000
# The first columns of a query's answer sorted, so that answers can be compared as arrays.
ANSWER = numpy.dtype([("query", "<u4"), ("distance", "<u4"), ("hash", "V32")])
# Least ratio of a peer's time to ours: (entries, peer, how many queries at once).
AIMS = {(1_000_000, "multi", 1): 100, (10_000_000, "multi", 1): 500, (1_000_000, "multi", 1000): 250}
# Width, height, hashes computed in a turn, turns, least ratio.
PICTURES = [(512, 512, 20, 15, 4), (4000, 3000, 1, 9, 10)]


class Ours:
    """Our bench in a process of its own, which answers each line with one line."""

    def __init__(self, command, *arguments):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([*command.split(), *map(str, arguments)], stdin=pipe, stdout=pipe, text=True)

    def line(self):
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit("our bench ended before its turn: its last words are above")
        return line

    def ask(self, what):
        print(what, file=self.process.stdin, flush=True)
        return self.line()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Run:
    """One generated list, and what we said about it."""

    def __init__(self, folder, ours):
        self.kind, self.ours_bytes = ours.line().split()
        self.ours = ours
        read = lambda name: numpy.fromfile(folder / self.kind / name, dtype=numpy.uint8).reshape(-1, BITS // 8)
        self.list, self.queries = read("list"), read("queries")
        self.answers = numpy.fromfile(folder / self.kind / "answers", dtype=ANSWER)
        size = len(self.list)
        self.name = (f"{size // 10**6} M" if size >= 10**6 else f"{size // 1000} k") + f" {self.kind}"

    def in_turn(self, what, turns, theirs):
        """Medians of the peer's time, of ours around it, and of their ratio."""
        before, rows = float(self.ours.ask(what)), []
        for turn in range(turns):
            us = theirs(turn)
            after = float(self.ours.ask(what))
            rows.append((us, (before + after) / 2, 2 * us / (before + after)))
            before = after
        return [statistics.median(column) for column in zip(*rows)]


class Table:
    """Rows as they come, and what was not as it should be."""

    def __init__(self):
        self.rows = []
        self.missed = []

    def row(self, run, peer, at_once, measured, key=None):
        theirs_us, ours_us, ratio = measured
        least = AIMS.get((len(run.list), key, at_once)) if run.kind == "random" else None
        aim = self.aim(f"{run.name}, {peer}, {at_once} at once", ratio, least)
        self.add(run.name, peer, f"{at_once} at once" if at_once > 1 else "alone", theirs_us, ours_us, ratio, aim)

    def aim(self, what, ratio, least):
        if least is None:
            return ""
        if ratio < least:
            self.missed.append(f"{what}: {ratio:.1f} times, at least {least} is the aim")
        return f">= {least}" + (" MISSED" if ratio < least else "")

    def add(self, what, peer, how, theirs_us, ours_us, ratio, aim):
        self.rows.append([what, peer, how, f"{theirs_us:,.1f}", f"{ours_us:,.2f}", f"{ratio:,.1f}", aim])
        print("  " + ", ".join(self.rows[-1]), file=sys.stderr, flush=True)

    def print(self):
        head = ["of", "peer", "queries", "peer, us CPU", "ours, us CPU", "times", "aim"]
        widths = [max(len(row[i]) for row in [head, *self.rows]) for i in range(len(head))]
        for row in [head, ["-" * width for width in widths], *self.rows]:
            cells = [cell.rjust(w) if i in (3, 4, 5) else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
            print("| " + " | ".join(cells) + " |")


def cpu_us(work):
    begun = time.process_time()
    result = work()
    return result, 1e6 * (time.process_time() - begun)


def alone(run, ask, queries):
    """Single queries, as many in a turn as the time allows, all of them in the end if there is time."""
    sample = [cpu_us(lambda query=query: ask(query))[1] for query in queries[:10]]
    count = max(QUERIES_MIN, min(len(queries), int(1e6 * TURN_SECONDS / statistics.median(sample))))

    def turn(number):
        some = [queries[(number * count + i) % len(queries)] for i in range(count)]
        return cpu_us(lambda: [ask(query) for query in some])[1] / count

    return run.in_turn("alone", TURNS, turn)


def large(run):
    return len(run.list) > THREATEXCHANGE_ENTRIES_MAX


def resident():
    """Bytes of memory of this process; what was freed is given back first."""
    ctypes.CDLL(None).malloc_trim(0)
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    return 0


def rows_of(run, limits, distances, ids):
    """A range search's answer in the form of ours. FAISS says distances of binary indices as 32-bit numbers."""
    rows = numpy.empty(len(ids), dtype=ANSWER)
    rows["query"] = numpy.repeat(numpy.arange(len(limits) - 1, dtype=numpy.uint32), numpy.diff(limits).astype(numpy.int64))
    rows["distance"] = distances
    rows["hash"] = numpy.ascontiguousarray(run.list[ids]).view("V32").ravel()
    return rows


def in_order(rows):
    return rows[numpy.lexsort((rows["hash"].astype("S32"), rows["distance"], rows["query"]))]


def agree(run, peer, rows):
    """Recall 100 %, nothing extra: or the run has failed."""
    ours, theirs = set(run.answers.tolist()), set(rows.tolist())
    if len(ours) != len(run.answers) or len(theirs) != len(rows) or ours != theirs:
        missing, extra = len(theirs - ours), len(ours - theirs)
        sys.exit(f"{run.name}: of {len(theirs)} answers of {peer} we lack {missing} and have {extra} more")
    print(f"  {run.name}: {len(ours)} matches, the same as {peer}", file=sys.stderr, flush=True)


def faiss_index(run, table, index, peer, key):
    before = resident()
    index.add(run.list)
    peer = f"{peer}, {(resident() - before) / len(run.list):.0f} B an entry"
    radius = THRESHOLD + 1  # FAISS takes what is nearer than the radius
    table.row(run, peer, 1, alone(run, lambda query: index.range_search(query[None, :], radius), run.queries), key)
    answers = []

    def turn(_):
        answer, us = cpu_us(lambda: index.range_search(run.queries, radius))
        answers.append(answer)
        return us / len(run.queries)

    table.row(run, peer, len(run.queries), run.in_turn("at once", 1 if large(run) else BATCH_TURNS, turn), key)
    agree(run, peer, rows_of(run, *answers[0]))


def threatexchange(run, table):
    if large(run):
        return
    before = resident()
    index = PDQIndex((row.tobytes().hex(), number) for number, row in enumerate(run.list))
    entry = (resident() - before) / len(run.list)
    queries = [row.tobytes().hex() for row in run.queries]
    peer = f"threatexchange PDQIndex, {entry:.0f} B an entry"
    table.row(run, peer, 1, alone(run, index.query, queries))
    found = [(number, match) for number, query in enumerate(queries[:100]) for match in index.query(query)]
    theirs = {(number, match.similarity_info.distance, run.list[match.metadata].tobytes()) for number, match in found}
    ours = {(row["query"].item(), row["distance"].item(), row["hash"].tobytes()) for row in run.answers if row["query"] < 100}
    if ours != theirs:
        sys.exit(f"{run.name}: threatexchange answers otherwise")
    _, insertion = cpu_us(lambda: index.add("00" * 32, len(run.list)))
    print(f"  {run.name}: one more entry takes threatexchange {insertion / 1e6:.1f} s", file=sys.stderr)


def matching(folder, command, size, table):
    faiss.omp_set_num_threads(1)
    ours = Ours(command, "--size", size, "--exchange", folder)
    for _ in ["random", "correlated"]:
        run = Run(folder, ours)
        multi = faiss.IndexBinaryMultiHash(BITS, TABLES, BITS // TABLES)
        multi.nflip = FLIPS
        faiss_index(run, table, multi, "FAISS MultiHash", "multi")
        del multi
        faiss_index(run, table, faiss.IndexBinaryFlat(BITS), "FAISS Flat", "flat")
        threatexchange(run, table)
        if large(run):
            break
        print("next", file=ours.process.stdin, flush=True)
    ours.end()


def picture(width, height):
    """Gradients, a few edges and noise: something with frequencies of all sorts."""
    chance = numpy.random.default_rng(width)
    x, y = numpy.meshgrid(numpy.linspace(0, 1, width), numpy.linspace(0, 1, height))
    plane = sum(numpy.sin(a * x + b * y + c) for a, b, c in chance.uniform(-40, 40, (6, 3)))
    pixels = numpy.stack([plane * k + (x > 0.3) * 2 + (y > 0.6) for k in (1, 0.7, 0.4)], axis=2)
    pixels += chance.normal(0, 0.3, pixels.shape)
    return numpy.ascontiguousarray(((pixels - pixels.min()) / numpy.ptp(pixels) * 255).astype(numpy.uint8))


def hashing(folder, command, table):
    ours = Ours(command)
    for width, height, runs, turns, least in PICTURES:
        pixels = picture(width, height)
        file = folder / "pixels"
        file.write_bytes(pixels.tobytes())
        rows = []
        for _ in range(turns):
            said = ours.ask(f"{width} {height} {runs} {file}")
            hash, quality, ns = (said.split() + ["", "", ""])[:3]
            (bits, theirs_quality), us = cpu_us(lambda: [pdqhash.compute(pixels) for _ in range(runs)][-1])
            theirs = numpy.packbits(bits.astype(numpy.uint8)).tobytes().hex()
            if (theirs, str(theirs_quality)) != (hash, quality):
                sys.exit(f"{width}x{height}: pdqhash says {theirs} of quality {theirs_quality}, we say {said}")
            rows.append((us / runs, int(ns) / 1000, us / runs / (int(ns) / 1000)))
        theirs_us, ours_us, ratio = (statistics.median(column) for column in zip(*rows))
        what = f"PDQ of {width}x{height}"
        table.add(what, "pdqhash.compute", "pixels in memory", theirs_us, ours_us, ratio, table.aim(what, ratio, least))
        file.unlink()
    ours.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="1m", help="entries of the lists: 100k, 1m or 10m")
    parser.add_argument("--matching", metavar="COMMAND", help="our index: `cargo bench --bench matching --`")
    parser.add_argument("--hashing", metavar="COMMAND", help="our PDQ: `cargo bench --bench hashing -- --pixels`")
    parser.add_argument("folder", type=pathlib.Path, help="where lists and pixels are exchanged")
    arguments = parser.parse_args()
    table = Table()
    if arguments.hashing:
        hashing(arguments.folder, arguments.hashing, table)
    if arguments.matching:
        matching(arguments.folder, arguments.matching, arguments.size, table)
    table.print()
    for missed in table.missed:
        print(f"missed: {missed}", file=sys.stderr)
    return 2 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
