#!/usr/bin/env python3
"""Whether an upstream that swallows every packet slows the others: p99 of two upstreams while a third works, and while it does not.

    benches/upstreams/blackhole.py PROGRAM [--pairs 7] [--seconds 5] [--within 1.10]

Three upstreams of one target each, and the same load in both halves of a pair, about 2,000 requests a second to the two and 500 to the third.
In one half the third has an echo; in the other a listener whose backlog is full, so that the kernel drops what would open a connection and
each request waits for `timeouts.connect`. Exits with 1 where the median of the pairs' ratios is above the bound, or where the memory of the
gateway after the last pair is more than 5 % above that after the middle one. Needs wrk.
"""

import argparse
import json
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "memory"))
from gateway import Gateway, free_port, mib

CONFIGURATION = """
server: { threads: 2, settle: 0s }
listeners: { public: { address: "127.0.0.1:{port}" } }
admin: { address: "127.0.0.1:{admin}" }
access_log: { to: /dev/null }
upstreams:
  one: { targets: ["127.0.0.1:ONE"] }
  two: { targets: ["127.0.0.1:TWO"] }
  three: { targets: ["127.0.0.1:THREE"] }
routes:
  one: { match: { path: /one }, auth: public, upstream: one }
  two: { match: { path: /two }, auth: public, upstream: two }
  three: { match: { path: /three }, auth: public, upstream: three }
"""


class Hole:
    """A listener that takes nobody: its backlog of none is full."""

    def __init__(self, port):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.socket.listen(0)
        self.filling = socket.create_connection(("127.0.0.1", port))
        with socket.socket() as late:
            late.settimeout(0.5)
            try:
                late.connect(("127.0.0.1", port))
            except TimeoutError:
                return
        raise SystemExit("the backlog is not full: this kernel takes more than asked for")

    def close(self):
        self.filling.close()
        self.socket.close()


def echo(program, port):
    process = subprocess.Popen([program, "echo", "--address", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.05)
    raise SystemExit("an echo did not start")


def end(process):
    process.kill()
    process.wait()


def wrk(port, file, connections, pause, seconds):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", HERE.parent / "compare" / "load.lua", f"http://127.0.0.1:{port}/", "--", file, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def summary(process):
    return json.loads(re.search(r"^SUMMARY (.*)$", process.communicate()[0], re.M)[1])


def half(gateway, dir, seconds):
    """p99 in milliseconds of the two, and what came of the third."""
    third = wrk(gateway.port, dir / "third", 32, 64, seconds)
    two = summary(wrk(gateway.port, dir / "two", 32, 16, seconds))
    third = summary(third)
    if two["status"] or two["timeout"] or two["read"]:
        raise SystemExit(f"the two upstreams were not well: {two}")
    return two["p99"] / 1000, third


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--within", type=float, default=1.10)
    args = parser.parse_args()
    ports = [free_port() for _ in range(3)]
    echoes = [echo(args.program, port) for port in ports[:2]]
    text = CONFIGURATION
    for word, port in zip(["ONE", "TWO", "THREE"], ports):
        text = text.replace(word, str(port))
    gateway = Gateway(args.program, text)
    ratios, memory = [], []
    with tempfile.TemporaryDirectory() as name:
        dir = pathlib.Path(name)
        (dir / "two").write_text("/one\t\n/two\t\n")
        (dir / "third").write_text("/three\t\n")
        for pair in range(args.pairs):
            process = echo(args.program, ports[2])
            well, answered = half(gateway, dir, args.seconds)
            end(process)
            hole = Hole(ports[2])
            ill, refused = half(gateway, dir, args.seconds)
            hole.close()
            if answered["status"] or refused["status"] < refused["requests"]:
                raise SystemExit(f"the third did not fail as it should: {answered}, then {refused}")
            ratios.append(ill / well)
            memory.append(gateway.rss())
            print(f"pair {pair + 1}: p99 {well:.2f} ms, {ill:.2f} ms with the third swallowed ({refused['requests']} of its requests failed), {mib(memory[-1])}", flush=True)
    gateway.stop()
    for process in echoes:
        end(process)
    ratio, grown = statistics.median(ratios), memory[-1] / memory[len(memory) // 2]
    print(f"p99 of the others, median of {args.pairs} pairs: ratio {ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f}); memory {grown:.3f} of that after the middle pair")
    sys.exit(ratio > args.within or grown > 1.05)


main()
