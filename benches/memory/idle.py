#!/usr/bin/env python3
"""How much memory an idle gateway holds, and what each idle keep-alive connection adds.

    benches/memory/idle.py PROGRAM [--connections 10000] [--start-below 30] [--idle-below 200]

Every connection has had an upstream's answer before it rests. Exits with 1 beyond a bound (MB). Needs nothing but Python.
"""

import argparse
import socket
import subprocess
import sys
import time

from gateway import Gateway, free_port, mib, most_descriptors

CONFIGURATION = """
server: { threads: 2, settle: 0s }
listeners: { public: { address: "127.0.0.1:{port}", deadlines: { keep_alive: 10m } } }
admin: { address: "127.0.0.1:{admin}" }
access_log: { to: /dev/null }
upstreams: { echo: { targets: ["127.0.0.1:{echo}"] } }
routes: { all: { match: { path: /** }, auth: public, upstream: echo } }
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--start-below", type=float, default=30)
    parser.add_argument("--idle-below", type=float, default=200)
    args = parser.parse_args()
    # The gateway inherits the bound, and takes half of them for clients.
    needed = 2 * (args.connections + 50)
    if most_descriptors(needed) < needed:
        raise SystemExit(f"{args.connections} connections need `ulimit -n {needed}` at least")
    port = free_port()
    echo = subprocess.Popen([args.program, "echo", "--address", f"127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
    try:
        measure(args, Gateway(args.program, CONFIGURATION.replace("{echo}", str(port))))
    finally:
        echo.terminate()
        echo.wait(60)


def measure(args, gateway):
    time.sleep(1)
    start = gateway.rss()
    print(f"idle after start: {mib(start)}")
    held = []
    for n in range(args.connections):
        # Each from one of many addresses, for there are only so many ports.
        client = socket.create_connection(("127.0.0.1", gateway.port), 60, ("127.0.0.%d" % (2 + n % 200), 0))
        client.sendall(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
        held.append(client)
        if len(held) % 500 == 0:
            for one in held[-500:]:
                if not one.recv(65536).startswith(b"HTTP/1.1 200 "):
                    raise SystemExit("a request was not answered")
    time.sleep(1)
    loaded = gateway.rss()
    each = (loaded - start) / args.connections
    print(f"{args.connections} idle keep-alive connections: {mib(loaded)}, {each / 1024:.1f} KiB each")
    for one in held:
        one.close()
    gateway.stop()
    sys.exit(start > args.start_below * 1e6 or loaded > args.idle_below * 1e6)


main()
