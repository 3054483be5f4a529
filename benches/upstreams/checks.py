#!/usr/bin/env python3
"""What watching costs: the processor time of health checks of many targets, and nothing else going on.

    benches/upstreams/checks.py PROGRAM [--targets 10000] [--every 10] [--seconds 60] [--fresh]

With --fresh each check opens a connection, else each goes over that of the one before. The targets are addresses of 127/8 at which two echoes
listen (each takes half of its descriptors for clients), a thousand an upstream. Prints the share of one core and the microseconds a check; exits
with 1 where a target is out. Needs nothing but Python.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "memory"))
from gateway import Gateway, free_port, mib, most_descriptors

TICK = os.sysconf("SC_CLK_TCK")


def configuration(targets, every, ports, fresh):
    text = [
        "server: { threads: 2, settle: 0s }",
        'listeners: { public: { address: "127.0.0.1:{port}" } }',
        'admin: { address: "127.0.0.1:{admin}" }',
        "upstreams:",
    ]
    upstreams = range(0, targets, 1000)
    pool = ", pool: { idle: 0s }" if fresh else ""
    for first in upstreams:
        port = ports[first // 1000 % len(ports)]
        addresses = ", ".join(f'"127.{1 + n // 65536}.{n // 256 % 256}.{n % 256}:{port}"' for n in range(first + 1, min(first + 1000, targets) + 1))
        text.append(f"  u{first}: {{ targets: [{addresses}], health: {{ path: /healthz, every: {every}s }}{pool} }}")
    text.append("routes:")
    text += [f"  r{first}: {{ match: {{ path: /{first} }}, auth: public, upstream: u{first} }}" for first in upstreams]
    return "\n".join(text) + "\n"


def cpu(process):
    """Seconds of processor time so far."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--targets", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--fresh", action="store_true")
    args = parser.parse_args()
    most_descriptors(args.targets + 2000)
    ports = [free_port(), free_port()]
    command = lambda port: [args.program, "echo", "--address", f"0.0.0.0:{port}"]
    echoes = [subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for port in ports]
    try:
        time.sleep(1)
        gateway = Gateway(args.program, configuration(args.targets, args.every, ports, args.fresh))
        # The first round finds everything out.
        time.sleep(2 * args.every)
        before, since = cpu(gateway.process), time.monotonic()
        time.sleep(args.seconds)
        used, took = cpu(gateway.process) - before, time.monotonic() - since
        upstreams = json.loads(gateway.ask("/status")[1])["upstreams"]
        out = sum(not target["healthy"] for targets in upstreams.values() for target in targets)
        checks = args.targets * took / args.every
        print(
            f"{args.targets} targets checked every {args.every} s, {'a connection each' if args.fresh else 'connections kept'}: {100 * used / took:.1f} % of a core, {used / checks * 1e6:.0f} us a check,"
            f" {mib(gateway.rss())}; {out} are out"
        )
        gateway.stop()
    finally:
        for echo in echoes:
            echo.terminate()
            echo.wait(60)
    sys.exit(out > 0)


main()
