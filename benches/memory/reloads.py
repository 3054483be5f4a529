#!/usr/bin/env python3
"""Whether reloads leak: many reloads of a large file, every other one refused; memory at the end against that after the 50th.

    benches/memory/reloads.py PROGRAM [--reloads 1000] [--routes 1000] [--within 1.10]

Exits with 1 where memory grew beyond the bound. Needs nothing but Python.
"""

import argparse
import sys

from gateway import Gateway, mib


def configuration(routes, turn):
    """Large, and not the same twice: other names, other limits, other targets in each turn."""
    text = [
        "server: { threads: 2, settle: 0s }",
        'listeners: { public: { address: "127.0.0.1:{port}" } }',
        'admin: { address: "127.0.0.1:{admin}" }',
        "access_log: { to: /dev/null }",
        "limits:",
        *[f"  limit-{n}-{turn % 3}: {{ rate: {n + 1 + turn % 7}/s, by: [client_ip] }}" for n in range(10)],
        "upstreams:",
        *[f'  up-{n}: {{ targets: ["127.0.0.1:{10000 + n + turn % 5}"] }}' for n in range(10)],
        "routes:",
    ]
    for n in range(routes):
        name = f"route-{n}-{turn % 4}"
        text.append(
            f'  {name}: {{ match: {{ path: "/service-{n}/items/{{id}}", methods: [GET, POST] }}, auth: public,'
            f" limits: [limit-{n % 10}-{turn % 3}], request_headers: {{ set: {{ x-route: {name} }} }}, upstream: up-{n % 10} }}"
        )
    if turn % 2:
        # A mistake that is found late, when everything else has been compiled.
        text.append("  last: { match: { path: /last }, auth: public, limits: [limit-0-%d], upstream: nobody }" % (turn % 3))
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--routes", type=int, default=1000)
    parser.add_argument("--within", type=float, default=1.10)
    parser.add_argument("--settled", type=int, default=50, help="the reload whose memory counts as 1")
    args = parser.parse_args()
    gateway = Gateway(args.program, configuration(args.routes, 0))
    print(f"start: {mib(gateway.rss())}")
    settled = None
    for turn in range(1, args.reloads + 1):
        gateway.write(configuration(args.routes, turn))
        accepted = gateway.reload()
        if accepted != (turn % 2 == 0):
            raise SystemExit(f"reload {turn} was {'accepted' if accepted else 'refused'}")
        if turn == args.settled:
            settled = gateway.rss()
        if turn % 50 == 0:
            print(f"after {turn} reloads: {mib(gateway.rss())}", flush=True)
    last = gateway.rss()
    gateway.stop()
    ratio = last / settled
    print(f"{args.reloads} reloads of {args.routes} routes: {mib(settled)} after {args.settled}, {mib(last)} at the end, ratio {ratio:.3f}")
    sys.exit(ratio > args.within)


main()
