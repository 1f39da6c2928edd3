#!/usr/bin/env python3
"""Half an hour of a node's life, and what it takes of the machine.

    scripts/load.py BINARY [MINUTES] [OUT]

Starts `BINARY demo` (a forum of five nodes on loopback), and then, until MINUTES (30) have passed: looks hashes up over
HTTP at bolt, submits at acme, keeps consoles open at cyan and leafs through their pages, and scrapes the metrics of all
three. Every ten seconds it notes what each node process holds: resident memory, descriptors, threads, bytes on disk. OUT (load.csv)
gets the figures, and OUT with .svg the graph. The summary compares the second sixth of the time with the last one: the
first is warm-up. It ends with 1 if a request failed, or if descriptors have grown.

Needs Python 3.9 or later and nothing else. All traffic is on 127.0.0.1, and everything stops by itself.
"""

import csv
import hashlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

NAMES = ["acme", "bolt", "cyan"]
LOOKUPS_PER_S = 100
SUBMISSIONS_PER_S = 4
CONSOLES = 4
PAGE_EVERY_S = 3
SCRAPE_EVERY_S = 15
SAMPLE_EVERY_S = 10
PAGES = ["/", "/list", "/review", "/members", "/sync", "/policy", "/incidents", "/submit", "/access"]

stop = threading.Event()
lock = threading.Lock()
counts: dict = {}
failures: list = []


def count(what, took_ms=None):
    with lock:
        entry = counts.setdefault(what, [0, []])
        entry[0] += 1
        if took_ms is not None and len(entry[1]) < 500_000:
            entry[1].append(took_ms)


def failed(what, why):
    with lock:
        failures.append(f"{what}: {why}")


class Caller:
    """One connection that is opened again when it was closed."""

    def __init__(self, console, token):
        parts = urllib.parse.urlsplit(console)
        self.host, self.port, self.token, self.connection = parts.hostname, parts.port, token, None

    def ask(self, method, path, body=None, headers=None):
        for attempt in (1, 2):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
                self.connection.request(method, path, body, {"authorization": f"Bearer {self.token}", **(headers or {})})
                answer = self.connection.getresponse()
                return answer.status, answer.headers, answer.read()
            except (OSError, http.client.HTTPException):
                self.connection = None
                if attempt == 2:
                    raise

    def json(self, path, message):
        return self.ask("POST", path, json.dumps(message), {"content-type": "application/json"})


def every(seconds, what, act):
    """Carries `act` out in a steady rhythm; what came late is not made up for."""
    due = time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        due = max(due + seconds, time.monotonic() - 1)
        begun = time.monotonic()
        try:
            act()
            count(what, (time.monotonic() - begun) * 1000)
        except Exception as error:  # whatever it is, it is a finding
            failed(what, repr(error))


def expect(status, wanted, body):
    if status not in wanted:
        raise RuntimeError(f"status {status}, expected {wanted}: {body[:200]!r}")


def lookups(console, token, listed):
    caller = Caller(console, token)

    def act():
        known = random.random() < 0.1 and listed
        value = random.choice(listed) if known else hashlib.sha256(os.urandom(8)).hexdigest()
        status, _, body = caller.json("/v1/lookup", {"signals": [{"type": "sha256", "value": value}]})
        expect(status, [200], body)

    every(2 / LOOKUPS_PER_S, "lookup", act)


def submissions(console, token, listed):
    caller = Caller(console, token)

    def act():
        value = hashlib.sha256(os.urandom(8)).hexdigest()
        opinion = {"signal": {"type": "sha256", "value": value}, "stance": "SUBMIT", "labels": ["symbol"], "severity": 2}
        status, _, body = caller.json("/v1/submissions", {"statements": [opinion]})
        expect(status, [200, 201, 202], body)
        listed.append(value)
        del listed[:-1000]

    every(1 / SUBMISSIONS_PER_S, "submission", act)


def sign_in(console, token):
    caller = Caller(console, "")
    form = urllib.parse.urlencode({"token": token})
    host = urllib.parse.urlsplit(console).netloc
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": f"http://{host}"}
    connection = http.client.HTTPConnection(caller.host, caller.port, timeout=60)
    connection.request("POST", "/login", form, headers)
    answer = connection.getresponse()
    body = answer.read()
    cookie = answer.headers.get("set-cookie", "").split(";")[0]
    if not cookie.startswith("staydown_session"):
        raise RuntimeError(f"no session: {answer.status} {body[:200]!r}")
    return caller, cookie


def leaf(console, token):
    caller, cookie = sign_in(console, token)

    def act():
        connection = http.client.HTTPConnection(caller.host, caller.port, timeout=60)
        connection.request("GET", random.choice(PAGES), headers={"cookie": cookie, "accept": "text/html"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        expect(answer.status, [200], body)

    every(PAGE_EVERY_S, "page", act)


def hear(console, token):
    """An open page: its stream of events, opened again when it ends."""
    while not stop.is_set():
        try:
            caller, cookie = sign_in(console, token)
            connection = http.client.HTTPConnection(caller.host, caller.port, timeout=60)
            connection.request("GET", "/events", headers={"cookie": cookie, "accept": "text/event-stream"})
            answer = connection.getresponse()
            expect(answer.status, [200], b"")
            while not stop.is_set():
                line = answer.readline()
                if not line:
                    break
                if line.startswith(b"event:"):
                    count("event")
            connection.close()
        except Exception as error:
            if not stop.is_set():
                failed("events", repr(error))
                stop.wait(1)


def scrape(console, token):
    caller = Caller(console, token)

    def act():
        status, _, body = caller.ask("GET", "/metrics")
        expect(status, [200], body)

    every(SCRAPE_EVERY_S, "scrape", act)


def held(pid, folder):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    size = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)
    return {
        "rss_mib": int(fields["VmRSS"].split()[0]) / 1024,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(fields["Threads"]),
        "disk_mib": size / (1 << 20),
    }


def start(binary, temporary):
    """The demo, its consoles, and the processes of its nodes."""
    demo = subprocess.Popen([binary, "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, "TMPDIR": temporary})
    consoles, told = {}, []
    for line in demo.stdout:
        told.append(line)
        found = re.match(r"\s+(\w+)\s.*console (http://[^/]+)/#t=(\S+)", line)
        if found:
            consoles[found[1]] = (found[2], found[3])
        if "Ctrl-C" in line or "Try" in line:
            break
    if len(consoles) < len(NAMES):
        raise SystemExit("the demo did not come up:\n" + "".join(told))
    threading.Thread(target=lambda: [None for _ in demo.stdout], daemon=True).start()
    nodes = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                arguments = file.read().decode().split("\0")
        except OSError:
            continue
        if "--exit-with-stdin" in arguments and temporary in " ".join(arguments):
            folder = arguments[arguments.index("--data") + 1]
            nodes[os.path.basename(folder)] = (int(pid), folder)
    return demo, consoles, {name: nodes[name] for name in NAMES}


def graph(rows, path):
    """Memory and descriptors over time, one line a node."""
    width, height, left, top = 760, 200, 60, 30
    colours = dict(zip(NAMES, ["#1f6feb", "#b35900", "#1a7f37"]))
    end = max(row["seconds"] for row in rows) or 1
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + left + 20} {2 * (height + 60)}" font-family="sans-serif" font-size="12">',
             '<rect width="100%" height="100%" fill="white"/>']
    for panel, (key, title) in enumerate([("rss_mib", "resident memory, MiB"), ("descriptors", "open descriptors")]):
        base = top + panel * (height + 60)
        highest = max(row[key] for row in rows) * 1.15 or 1
        parts.append(f'<text x="{left}" y="{base - 10}">{title}</text>')
        for step in range(5):
            y = base + height - height * step / 4
            parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#ddd"/>'
                         f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{highest * step / 4:.0f}</text>')
        for minute in range(0, int(end // 60) + 1, max(1, int(end // 600))):
            x = left + width * minute * 60 / end
            parts.append(f'<text x="{x}" y="{base + height + 16}" text-anchor="middle">{minute}</text>')
        for place, name in enumerate(NAMES):
            points = " ".join(f'{left + width * row["seconds"] / end:.1f},{base + height - height * row[key] / highest:.1f}'
                              for row in rows if row["node"] == name)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="1.5"/>'
                         f'<text x="{left + 200 + 60 * place}" y="{base - 10}" fill="{colours[name]}">{name}</text>')
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*parts, "</svg>\n"]))


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))] if values else float("nan")


def summary(rows, minutes):
    grown = False
    span = max(row["seconds"] for row in rows)
    parts = {"early": (span / 6, span / 3), "late": (span * 5 / 6, span)}
    for name in NAMES:
        means = {}
        for part, (begin, end) in parts.items():
            of_part = [row for row in rows if row["node"] == name and begin <= row["seconds"] <= end]
            means[part] = {key: sum(row[key] for row in of_part) / max(1, len(of_part))
                           for key in ["rss_mib", "descriptors", "threads", "disk_mib"]}
        words = ", ".join(f"{key} {means['early'][key]:.1f} -> {means['late'][key]:.1f}" for key in means["early"])
        print(f"{name}: {words}")
        grown |= means["late"]["descriptors"] > means["early"]["descriptors"] + 2
    for what, (number, took) in sorted(counts.items()):
        times = f", p50 {quantile(took, 0.5):.1f} ms, p99 {quantile(took, 0.99):.1f} ms" if took else ""
        print(f"{what}: {number} in {minutes:g} minutes{times}")
    print(f"failures: {len(failures)}")
    for failure in failures[:10]:
        print("  " + failure)
    return grown


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    binary, minutes = os.path.abspath(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 30.0
    out = sys.argv[3] if len(sys.argv) > 3 else "load.csv"
    with tempfile.TemporaryDirectory() as temporary:
        demo, consoles, nodes = start(binary, temporary)
        try:
            listed: list = []
            tasks = [(lookups, consoles["bolt"]), (lookups, consoles["bolt"]), (submissions, consoles["acme"])]
            threads = [threading.Thread(target=task, args=(*at, listed), daemon=True) for task, at in tasks]
            threads += [threading.Thread(target=task, args=consoles["cyan"], daemon=True)
                        for task in [hear, leaf] for _ in range(CONSOLES)]
            threads += [threading.Thread(target=scrape, args=consoles[name], daemon=True) for name in NAMES]
            for thread in threads:
                thread.start()
            rows, begun = [], time.monotonic()
            while time.monotonic() - begun < minutes * 60 and demo.poll() is None:
                seconds = round(time.monotonic() - begun, 1)
                rows += [{"seconds": seconds, "node": name, **held(*nodes[name])} for name in NAMES]
                stop.wait(SAMPLE_EVERY_S)
            ended = demo.poll() is not None
            stop.set()
            for thread in threads:
                thread.join(5)
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(30)
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    graph(rows, os.path.splitext(out)[0] + ".svg")
    grown = summary(rows, minutes)
    sys.exit(1 if failures or grown or ended else 0)


if __name__ == "__main__":
    main()
