#!/usr/bin/env python3
"""How well targets are chosen: Sluice, HAProxy and Envoy, side by side on the same targets.

    benches/compare/balance.py [--rounds 3] [--seconds 5]

Two jobs, each algorithm in turn, rounds alternating:

  shares  five targets that take 5 ms for a request, however many they have, with weights 5, 4, 3, 2 and 1: how far the share of any target is from its weight, in points of percent
  slow    five targets of equal weight that serve one request at a time, four in 4 ms and one in 20 ms on average, at about 300 requests a
          second, at which a fifth is more than the slow one can do: its share, p50 and p99

Writes target/compare/balance.md. Needs what run.py needs.
"""

import argparse
import asyncio
import json
import multiprocessing
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
import peers
import tls

WEIGHTS = [5, 4, 3, 2, 1]
MEANS = {"shares": [0.005] * 5, "slow": [0.004] * 4 + [0.020]}
ALGORITHMS = {
    "sluice": ["round_robin", "least_requests", "peak_ewma", "random"],
    "haproxy": ["roundrobin", "leastconn", "random"],
    "envoy": ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"],
}


def serve(ports, means, at_once, ready):
    """Targets of one job, each of which serves so many requests at once."""

    async def target(port, mean, name):
        turn = asyncio.Semaphore(at_once)

        async def connection(reader, writer):
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    async with turn:
                        await asyncio.sleep(random.expovariate(1 / mean))
                    writer.write(f"HTTP/1.1 200 OK\r\nX-Target: {name}\r\nContent-Length: 2\r\n\r\nok".encode())
            except (asyncio.IncompleteReadError, OSError):
                writer.close()

        return await asyncio.start_server(connection, "127.0.0.1", port)

    async def all():
        running = [await target(port, mean, n) for n, (port, mean) in enumerate(zip(ports, means))]
        ready.set()
        await asyncio.gather(*(server.serve_forever() for server in running))

    asyncio.run(all())


def configuration(name, algorithm, port, admin, ports, weights, dir):
    """The file's name and text."""
    targets = list(zip(ports, weights))
    if name == "sluice":
        written = ", ".join(f"{{ address: '127.0.0.1:{port}', weight: {weight} }}" for port, weight in targets)
        return "sluice.yaml", (
            f"server: {{ threads: 1 }}\nlisteners: {{ public: {{ address: '127.0.0.1:{port}' }} }}\naccess_log: {{ to: /dev/null }}\n"
            f"upstreams: {{ app: {{ targets: [{written}], balance: {algorithm} }} }}\n"
            "routes: { all: { match: { path: /** }, auth: public, upstream: app } }\n"
        )
    if name == "haproxy":
        servers = "".join(f"    server s{n} 127.0.0.1:{port} weight {weight}\n" for n, (port, weight) in enumerate(targets))
        text = peers.render("haproxy/plain.cfg", {"port": port, "dir": dir, "upstream": 0}, [])
        return "haproxy.cfg", re.sub(r"    server one .*\n", f"    balance {algorithm}\n{servers}", text)
    ends = ",".join(
        f"{{ load_balancing_weight: {weight}, endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}"
        for port, weight in targets
    )
    text = peers.render("envoy/plain.yaml", {"port": port, "admin": admin, "upstream": 0}, [])
    text = re.sub(r"endpoints: \[.*\]\n", f"endpoints: [{{ lb_endpoints: [{ends}] }}]\n", text)
    return "envoy.yaml", text.replace("    type: STATIC\n", f"    type: STATIC\n    lb_policy: {algorithm}\n")


def start(name, algorithm, job, ports, weights):
    peer = next(peer for peer in peers.PEERS if peer.name == name)
    dir = peers.WORK / "run" / f"balance-{name}-{algorithm}-{job}"
    shutil.rmtree(dir, ignore_errors=True)
    dir.mkdir(parents=True)
    port = peers.free_port()
    file, text = configuration(name, algorithm, port, peers.free_port(), ports, weights, dir)
    (dir / file).write_text(text)
    running = peers.Running(name, peer.command(str(dir / file), str(dir)), peers.PROXY_CORE, dir)
    running.port = port
    tls.await_port(running, port)
    return running


def wrk(port, connections, pause, seconds):
    script = peers.HERE / "balance.lua"
    command = ["taskset", "-c", str(peers.LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script, f"http://127.0.0.1:{port}/", "--", str(pause)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    said = json.loads(re.search(r"^SUMMARY (.*)$", out, re.M)[1])
    if said["errors"]:
        raise SystemExit(f"not every answer was good: {said}")
    return said


def measure(job, args):
    """By contestant and algorithm, what each round gave."""
    ports = [peers.free_port() for _ in WEIGHTS]
    ready = multiprocessing.Event()
    targets = multiprocessing.Process(target=serve, args=(ports, MEANS[job], 1000 if job == "shares" else 1, ready), daemon=True)
    targets.start()
    ready.wait(30)
    found = {}
    try:
        for _ in range(args.rounds):
            for name, algorithms in ALGORITHMS.items():
                for algorithm in algorithms:
                    running = start(name, algorithm, job, ports, WEIGHTS if job == "shares" else [1] * 5)
                    try:
                        said = wrk(running.port, *((32, 10) if job == "shares" else (64, 200)), args.seconds)
                    finally:
                        running.stop()
                    total = sum(said["targets"].values())
                    shares = [100 * said["targets"].get(str(n), 0) / total for n in range(5)]
                    found.setdefault((name, algorithm), []).append((shares, said["p50"] / 1000, said["p99"] / 1000))
                    print(job, name, algorithm, [f"{share:.1f}" for share in shares], f"p99 {said['p99'] / 1000:.1f} ms", flush=True)
    finally:
        targets.terminate()
        targets.join()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    args = parser.parse_args()
    lines = ["**Five targets with weights 5 to 1**: the farthest that a share is from its weight", "", "| | algorithm | points of percent |", "|---|---|---|"]
    wanted = [100 * weight / sum(WEIGHTS) for weight in WEIGHTS]
    for (name, algorithm), rounds in measure("shares", args).items():
        error = statistics.median(max(abs(share - want) for share, want in zip(shares, wanted)) for shares, _, _ in rounds)
        lines.append(f"| {name} | {algorithm} | {error:.2f} |")
    lines += ["", "**Four targets of 4 ms and one of 20 ms**, one request at a time each", "", "| | algorithm | share of the slow one | p50 | p99 |", "|---|---|---|---|---|"]
    for (name, algorithm), rounds in measure("slow", args).items():
        share, p50, p99 = (statistics.median(values) for values in zip(*((shares[4], p50, p99) for shares, p50, p99 in rounds)))
        lines.append(f"| {name} | {algorithm} | {share:.1f} % | {p50:.1f} ms | {p99:.1f} ms |")
    table = "\n".join(lines) + "\n"
    (peers.WORK / "balance.md").write_text(table)
    print(table)


main()
