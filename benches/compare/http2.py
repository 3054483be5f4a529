#!/usr/bin/env python3
"""HTTP/2 from clients, 100 streams a connection, beside Envoy and HAProxy: `benches/compare/http2.py [--only sluice,envoy] [--rounds 5] [--seconds 3]`.

Plain proxying to an upstream of HTTP/1.1, by prior knowledge, over 4 connections. One core for the contestant, the other for h2load and the
upstream; rounds alternate, and what counts are the ratios to Envoy within a round. Writes target/compare/http2.md; exits with 3 if a round was void.
"""

import argparse
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
import peers
import run
import tokens

BASE = "envoy"
NAMES = ["sluice", BASE, "haproxy"]
CONNECTIONS, STREAMS = 4, 100


def measure(contestant, seconds):
    """Microseconds of CPU a request, requests a second, and what makes the round void."""
    before = contestant.cpu()
    command = [
        "taskset", "-c", str(peers.LOAD_CORE), "h2load", "-t", "1", "-c", str(CONNECTIONS), "-m", str(STREAMS), "-D", str(seconds),
        f"http://127.0.0.1:{contestant.port}/plain",
    ]
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + 60, check=False).stdout
    cpu = contestant.cpu() - before
    found = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out)
    if not found or "Application protocol: h2c" not in out:
        raise SystemExit(f"h2load failed against {contestant.label}:\n{out}")
    done, succeeded, failed, errored, timeout = map(int, found.groups())
    faults = [f"{count} {what}" for count, what in ((done - succeeded, "not 2xx"), (failed, "failed"), (errored, "errored"), (timeout, "timeouts")) if count]
    if not done:
        faults.append("no requests")
    return cpu / max(done, 1) * 1e6, done / seconds, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    names = options.only.split(",")
    run.install(names)
    if not shutil.which("h2load"):
        run.apt("install", "nghttp2-client")
    peers.WORK.mkdir(parents=True, exist_ok=True)
    key = tokens.Key(peers.WORK / "keys")
    chosen = [peer for peer in peers.PEERS if peer.name in names and peer.is_there()]
    upstream, port = peers.start_upstream(peers.LOAD_CORE)
    started, all, is_void = [], [], False
    try:
        for peer in chosen:
            started.append(peers.Contestant(peer, "plain", port, key, [], 0, peers.PROXY_CORE))
            started[-1].wait_until_ready("/plain", {})
            measure(started[-1], 1)
        for number in range(options.rounds):
            done = {}
            for contestant in started[number % len(started) :] + started[: number % len(started)]:
                cost, rate, faults = measure(contestant, options.seconds)
                is_void |= bool(faults)
                print(f"http2 {number + 1}/{options.rounds} {contestant.label:8} {cost:7.1f} us/request {rate:8.0f}/s {'VOID: ' + '; '.join(faults) if faults else ''}", flush=True)
                if not faults:
                    done[contestant.label] = (cost, rate)
            all.append(done)
    finally:
        for contestant in started:
            contestant.stop()
        upstream.stop()
    lines = [f"HTTP/2, {CONNECTIONS} connections of {STREAMS} streams, {options.rounds} rounds of {options.seconds} s; `{' '.join(sys.argv)}`", "",
             f"| | CPU a request | ratio to {BASE} | requests/s |", "|---|---|---|---|"]
    for contestant in started:
        own = [done[contestant.label] for done in all if contestant.label in done]
        ratios = [done[contestant.label][0] / done[BASE][0] for done in all if contestant.label in done and BASE in done]
        if own:
            shown = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""
            lines.append(f"| {contestant.label} {contestant.peer.version()} | {statistics.median(c for c, _ in own):.1f} us | {shown} | {statistics.median(r for _, r in own):,.0f} |")
    text = "\n".join(lines) + "\n"
    pathlib.Path(peers.WORK / "http2.md").write_text(text)
    print(text)
    if is_void:
        run.void()


if __name__ == "__main__":
    main()
