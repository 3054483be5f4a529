#!/usr/bin/env python3
"""Counts instructions a request, of Sluice and of a bare Pingora proxy: `benches/instructions/run.py [--check 1.08 1.25]`.

Each runs under callgrind: first some requests that are not counted, so that connections are open and tokens have been seen, then N that are, over 4 keep-alive
connections, one request at a time. It repeats within about 1 % on a machine that is busy with other things, where times would not.

  plain   proxying of one route that is public
  full    RS256 tokens that were seen before, a limit by subject, 1,000 routes, headers set and removed, a JSON access log to a file, metrics
  bearer  as plain, with a token in each request, which nobody looks at
  caller  as bearer, and the tokens are verified (they were seen before), two limits, a quota and a plan are counted, and told in headers
  shared  as caller, with the limits and the quota shared over a Redis; of the worker alone, for what it costs a request
  guarded as plain, over four targets by their latency, with ejection, circuits, a cap on requests and retries within a budget; of the worker alone
  tls     as plain, over TLS 1.3

Both binaries are built with the release profile where they are not given by SLUICE and BARE. `--check PLAIN FULL` exits with 1 where a ratio is larger; `--check-caller LIMITS SHARED` where `caller` costs
more instructions than `bearer` by that many, or `shared` more than `caller`; `--check-upstream N` where `guarded` costs more than `plain` by that many.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "compare"))
import peers
import tls
import tokens

CONNECTIONS = 4
ROUTES = 1000
# Of the guarded job.
TARGETS = 4
JOBS = ["bare", "plain", "full", "bearer", "caller", "shared", "guarded", "tls"]
# As many requests are not counted, and every token is among them.
TOKENS = 100
LIMIT = 1000000
TEMPLATES = {"bearer": "plain", "shared": "caller"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000, help="N (default 1000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median counts (default 5)")
    parser.add_argument("--body", type=int, metavar="BYTES", help="size of the answers' bodies (default 110)")
    parser.add_argument("--routes", type=int, default=ROUTES, help=f"of the full job (default {ROUTES})")
    parser.add_argument("--only", help=f"some of {','.join(JOBS)}")
    parser.add_argument("--check-caller", nargs=2, type=int, metavar=("LIMITS", "SHARED"), help="exit with 1 where more instructions are added")
    parser.add_argument("--check-upstream", type=int, metavar="GUARDED", help="exit with 1 where more instructions are added")
    parser.add_argument("--check", nargs=2, type=float, metavar=("PLAIN", "FULL"), help="exit with 1 where a ratio to bare is larger")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is not there: apt-get install valgrind")
    wanted = options.only.split(",") if options.only else JOBS
    commands = binaries(wanted)
    key = tokens.Key(peers.WORK / "keys")
    body = (b"0123456789abcdef" * (options.body // 16 + 1))[: options.body] if options.body else peers.BODY.encode()
    upstreams = [Upstream(body) for _ in range(TARGETS)]
    counts, workers = {}, {}
    for run in range(options.runs):
        for job in wanted:
            all, worker = count(job, commands, key, upstreams, options)
            counts.setdefault(job, []).append(all / options.requests)
            workers.setdefault(job, []).append(worker / options.requests)
            print(f"{run + 1}/{options.runs} {job:7} {counts[job][-1]:9.0f} instructions a request", flush=True)
    middle = {job: statistics.median(all) for job, all in counts.items()}
    print("\n| | instructions a request | ratio to bare | spread of the runs |\n|---|---|---|---|")
    for job, all in counts.items():
        ratio = f"**{middle[job] / middle['bare']:.3f}**" if "bare" in middle else ""
        print(f"| {job} | {middle[job]:,.0f} | {ratio} | {(max(all) - min(all)) / middle[job]:.1%} |")
    failed = []
    added = {}
    if {"bearer", "caller"} <= middle.keys():
        added["caller", "bearer"] = middle["caller"] - middle["bearer"]
    # What threads do in the background, which settle or compare targets, is no cost of a request.
    for job, other in ("shared", "caller"), ("guarded", "plain"):
        if {job, other} <= middle.keys():
            added[job, other] = statistics.median(workers[job]) - statistics.median(workers[other])
    for (job, other), count_of in added.items():
        print(f"\n{job} adds {count_of:,.0f} instructions a request to {other}")
    bounds = dict(zip((("caller", "bearer"), ("shared", "caller")), options.check_caller or ()))
    if options.check_upstream is not None:
        bounds["guarded", "plain"] = options.check_upstream
    failed += [
        f"{job} adds {found:,.0f} to {other}, more than {bounds[job, other]:,}"
        for (job, other), found in added.items()
        if found > bounds.get((job, other), found)
    ]
    if options.check:
        failed += [
            f"{job} costs {middle[job] / middle['bare']:.3f} x bare, more than {bound}"
            for job, bound in zip(("plain", "full"), options.check)
            if job in middle and middle[job] > bound * middle["bare"]
        ]
    if failed:
        raise SystemExit("\n".join(failed))


def binaries(wanted):
    """Paths by job, built where they are not given."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    bare, sluice = os.environ.get("BARE"), os.environ.get("SLUICE")
    if "bare" in wanted and not bare:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--example", "bare-proxy"], cwd=ROOT, check=True)
        bare = str(target / "examples" / "bare-proxy")
    if set(wanted) - {"bare"} and not sluice:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "sluice"], cwd=ROOT, check=True)
        sluice = str(target / "sluice")
    return {"bare": bare, **dict.fromkeys(set(JOBS) - {"bare"}, sluice)}


def count(job, commands, key, upstreams, options):
    """Instructions of a process while it serves so many requests, and those of its busiest thread, which is the worker."""
    upstream = upstreams[0]
    dir = peers.WORK / "run" / f"instructions-{job}"
    shutil.rmtree(dir, ignore_errors=True)
    dir.mkdir(parents=True)
    port, admin, redis = peers.free_port(), peers.free_port(), None
    values = {"port": port, "admin": admin, "upstream": upstream.port, "log": dir / "access.log", "limit": LIMIT, "jwks": key.jwks, "store": "", "shared": ""}
    values["chain"], values["key"] = "", ""
    if job == "tls":
        values["chain"], values["key"], _ = tls.certificate(dir)
        values["log"] = "to: /dev/null"
    values["targets"] = ", ".join(f'"127.0.0.1:{one.port}"' for one in upstreams)
    if job == "shared":
        store = peers.free_port()
        redis = subprocess.Popen(["redis-server", "--port", str(store), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
        values |= {"store": f', limits_store: {{ redis: "127.0.0.1:{store}" }}', "shared": ", shared: true"}
    if job == "bare":
        command = [commands[job], f"127.0.0.1:{port}", f"127.0.0.1:{upstream.port}"]
    else:
        routes = [f"service-{i:04}" for i in range(options.routes)] if job == "full" else []
        file = dir / "sluice.yaml"
        # Otherwise the counting would go on while it waits for nobody.
        text = peers.render(f"sluice/{TEMPLATES.get(job, job)}.yaml", values, routes).replace("threads: 1", "threads: 1, settle: 0s, drain: 1s")
        file.write_text(text)
        command = [commands[job], "run", str(file)]
    with open(dir / "stderr", "wb") as err, open(dir / "stdout", "wb") as out:
        process = subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes", f"--callgrind-out-file={dir}/callgrind.out", *command],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=dir,
        )
    try:
        with Load(job, port, key, upstream.body, options.routes, values["chain"], lambda: process.poll() is None, dir / "stderr") as load:
            load.send(TOKENS)
            counting("on", process)
            load.send(options.requests)
            counting("off", process)
        process.send_signal(signal.SIGINT if job == "bare" else signal.SIGTERM)
        process.wait(120)
    finally:
        for one in filter(None, (process, redis)):
            one.kill()
            one.wait()
    said = (dir / "stderr").read_text(errors="replace")
    threads = [re.search(r"^totals: (\d+)", file.read_text(errors="replace"), re.M) for file in dir.glob("callgrind.out*")]
    threads = [int(found.group(1)) for found in threads if found]
    if not threads or not sum(threads):
        raise SystemExit(f"{job} said no count:\n{said[-3000:]}")
    if job == "full":
        lines = (dir / "access.log").read_bytes().count(b"\n")
        if lines != TOKENS + options.requests:
            raise SystemExit(f"{job} wrote {lines} log lines for {TOKENS + options.requests} requests")
    return sum(threads), max(threads)


def counting(state, process):
    subprocess.run(["callgrind_control", "-i", state, str(process.pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Load:
    """Sends requests one after the other, over each connection in turn; every answer must be right."""

    def __init__(self, job, port, key, body, routes, chain, is_alive, stderr):
        self.job, self.body, self.sent = job, body, 0
        kept = key.tokens(TOKENS)
        if job in ("bearer", "caller", "shared"):
            self.texts = [request("/plain", token) for token in kept]
        elif job == "full":
            # Far from each other, so that few of them share a way into the table.
            places = [i * 7919 % routes for i in range(1000)]
            self.texts = [request(f"/service-{place:04}/items/{place}", kept[i % TOKENS]) for i, place in enumerate(places)]
        else:
            self.texts = [request("/plain", None, "localhost" if chain else "api.test")]
        begin = time.time()
        while True:
            try:
                self.connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(CONNECTIONS)]
                break
            except ConnectionRefusedError:
                if not is_alive() or time.time() - begin > 120:
                    raise SystemExit(f"{job} does not listen:\n{stderr.read_text(errors='replace')[-3000:]}") from None
                time.sleep(0.1)
        for one in self.connections:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if chain:
            self.connections = [tls.context(chain).wrap_socket(one, server_hostname="localhost") for one in self.connections]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.connections:
            one.close()

    def send(self, requests):
        for i in range(self.sent, self.sent + requests):
            connection = self.connections[i % CONNECTIONS]
            connection.sendall(self.texts[i % len(self.texts)])
            answer = b""
            while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 4 + len(self.body):
                piece = connection.recv(65536)
                answer += piece
                if not piece or (len(answer) > 12 and not answer.startswith(b"HTTP/1.1 200 ")):
                    raise SystemExit(f"{self.job}, request {i}: {answer[:2000]!r}")
        self.sent += requests


def request(path, token, host="api.test"):
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: count\r\n{bearer}X-Debug: 1\r\n\r\n".encode()


class Upstream:
    """Answers every request with the same bytes, on threads of this process: what it costs is not counted."""

    def __init__(self, body):
        self.body = body
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Powered-By: upstream\r\nContent-Length: {len(body)}\r\n\r\n"
        self.answer = head.encode() + body
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = listener.getsockname()[1]
        threading.Thread(target=self.accept, args=[listener], daemon=True).start()

    def accept(self, listener):
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        seen = b""
        try:
            while piece := connection.recv(65536):
                seen += piece
                while b"\r\n\r\n" in seen:
                    seen = seen.partition(b"\r\n\r\n")[2]
                    connection.sendall(self.answer)
        except OSError:
            pass


if __name__ == "__main__":
    main()
