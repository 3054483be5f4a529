#!/usr/bin/env python3
"""Compares TLS of Sluice, nginx and HAProxy, side by side: `benches/compare/tls.py [--quick] [--only sluice,nginx] [--jobs full,resumed,requests,bytes,idle]`.

One core for the contestant, the other for the load and the upstream; rounds alternate, and what counts are the ratios to nginx within a round. ECDSA P-256.

  full      a new connection, a full TLS 1.3 handshake and one request each: CPU a handshake
  resumed   the same with a ticket of an earlier connection
  requests  64 keep-alive connections: CPU a request
  bytes     answers of 1 MiB over 8 connections: CPU a MiB
  idle      memory of each of 2,000 connections that have had an answer

No side has an access log. With `--logged` each writes the JSON line of run.py's full job for every request, to a file (without route and subject,
of which there are none here), and a round is void, as there, unless there are as many lines with status 200 as requests and none was dropped.

Writes target/compare/tls.md, and exits with 3 if a round was void. Needs what run.py needs.
"""

import argparse
import os
import pathlib
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import load
import peers
import run

NAMES = ["sluice", "sluice-optimized", "nginx", "nginx-debian", "haproxy"]
TEMPLATES = {"sluice": "sluice/tls.yaml", "sluice-optimized": "sluice/tls.yaml", "nginx": "nginx/tls.conf", "nginx-debian": "nginx/tls.conf", "haproxy": "haproxy/tls.cfg"}
MIB = 1 << 20


def logs(name, log):
    """What stands for the access log in a template: the line of the full job, or none."""
    if log is None:
        return {"log": {"sluice": "to: /dev/null, sample: 0%", "nginx": "access_log off;", "haproxy": ""}[name], "log-global": ""}
    template = next(peer for peer in peers.PEERS if peer.name == name).templates["full"]
    lines = [line.strip() for line in (peers.HERE / template).read_text().splitlines()]
    match name:
        case "sluice":
            wanted = [re.search(r"to: .*(?= \})", line)[0] for line in lines if line.startswith("access_log: ")]
        case "nginx":
            wanted = lines[next(at for at, line in enumerate(lines) if line.startswith("log_format ")):]
            wanted = wanted[: next(at for at, line in enumerate(wanted) if line.startswith("access_log ")) + 1]
        case "haproxy":
            begins = ("log global", "option dontlognull", "unique-id-format ", "log-format ", *(f"http-request set-var(txn.{what}) " for what in ("host", "path", "query", "agent")))
            wanted = [line for line in lines if line.startswith(begins)]
    text = "\n    ".join(wanted).replace("<<log>>", str(log))
    for what in ("$route", "$jwt_claim_sub", "%[var(txn.route)]", "%[var(txn.sub),json(utf8s)]"):
        text = text.replace(what, "")
    # HAProxy logs to its stdout, which is the file.
    return {"log": text, "log-global": next((line for line in lines if line.startswith("log stdout ")), "")}


def certificate(dir):
    chain, key, pem = dir / "tls.pem", dir / "tls.key", dir / "tls.both"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", chain], check=True, stderr=subprocess.DEVNULL)
    pem.write_text(chain.read_text() + key.read_text())
    return chain, key, pem


def start_upstream():
    dir = peers.WORK / "run" / "tls-upstream"
    shutil.rmtree(dir, ignore_errors=True)
    dir.mkdir(parents=True)
    (dir / "mib").write_bytes(os.urandom(MIB))
    port = peers.free_port()
    text = peers.render("upstream/nginx.conf", {"port": port, "dir": dir, "body": peers.BODY}, [])
    (dir / "nginx.conf").write_text(text.replace("location / {", f"location = /mib {{ root {dir}; }}\n        location / {{", 1))
    running = peers.Running("upstream", [peers.nginx(), "-p", str(dir), "-e", f"{dir}/error.log", "-c", f"{dir}/nginx.conf"], peers.LOAD_CORE, dir)
    await_port(running, port)
    return running, port


def await_port(running, port):
    begin = time.time()
    while time.time() - begin < 30:
        if running.process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{running.name} does not listen:\n{running.complaint()}")


class Contestant(peers.Running):
    def __init__(self, name, upstream, files, is_logged):
        peer = next(peer for peer in peers.PEERS if peer.name == name)
        self.peer, self.port, self.admin, self.requests, self.voids = peer, peers.free_port(), peers.free_port(), 0, []
        dir = peers.WORK / "run" / f"{name}-tls"
        shutil.rmtree(dir, ignore_errors=True)
        dir.mkdir(parents=True)
        chain, key, pem = files
        self.access_log = dir / "access.log" if is_logged else None
        values = {"port": self.port, "admin": self.admin, "upstream": upstream, "dir": dir, "chain": chain, "key": key, "pem": pem}
        values |= logs(name.partition("-")[0], self.access_log)
        file = dir / pathlib.Path(TEMPLATES[name]).name
        file.write_text(peers.render(TEMPLATES[name], values, []))
        super().__init__(name, peer.command(str(file), str(dir)), peers.PROXY_CORE, dir, self.access_log if name == "haproxy" else None)
        await_port(self, self.port)

    dropped_log_lines = peers.Contestant.dropped_log_lines

    def measured(self, measure):
        """What a round costs, none where it is void: its log does not tell all of its requests."""
        if self.access_log is None:
            return measure(self)
        load.truncate(self.access_log)
        dropped, self.requests = self.dropped_log_lines(), 0
        cost = measure(self)
        load.settle(self.access_log)
        faults = load.log_faults(self.access_log, self.requests)
        if lost := self.dropped_log_lines() - dropped:
            faults.append(f"{lost:.0f} log lines dropped")
        self.voids += faults
        if faults:
            print(f"VOID: {self.name}: {'; '.join(faults)}", flush=True)
        return None if faults else cost


def context(chain):
    made = ssl.create_default_context(cafile=chain)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    return made


ASK = b"GET /plain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def handshakes(contestant, seconds, chain, resumed):
    """Microseconds of CPU a connection: handshake and one request."""
    client, session, count, reused = context(chain), None, 0, 0
    os.sched_setaffinity(0, {peers.LOAD_CORE})
    before, until = contestant.cpu(), time.time() + seconds
    while time.time() < until:
        with socket.create_connection(("127.0.0.1", contestant.port)) as plain:
            with client.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
                tls.sendall(ASK)
                got = b"".join(iter(lambda: tls.recv(65536), b""))
                if not got.startswith(b"HTTP/1.1 200"):
                    raise SystemExit(f"{contestant.name} answered {got[:80]}")
                reused += tls.session_reused
                if resumed:
                    session = tls.session
        count += 1
    if resumed and reused < count - 1 or not resumed and reused:
        raise SystemExit(f"{contestant.name}: {reused} of {count} were resumed")
    contestant.requests = count
    return (contestant.cpu() - before) / count * 1e6


def wrk(contestant, seconds, path, connections):
    """Microseconds of CPU a request."""
    before = contestant.cpu()
    out = subprocess.run(
        ["taskset", "-c", str(peers.LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"https://localhost:{contestant.port}{path}"],
        capture_output=True, text=True, check=True).stdout
    used = contestant.cpu() - before
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"{contestant.name}: {out}")
    contestant.requests = int(re.search(r"(\d+) requests in", out).group(1))
    return used / contestant.requests * 1e6


def idle(contestant, chain, connections=2000):
    """Bytes a connection."""
    client, held = context(chain), []
    start = contestant.memory()
    for _ in range(connections):
        tls = client.wrap_socket(socket.create_connection(("127.0.0.1", contestant.port)), server_hostname="localhost")
        tls.sendall(ASK.replace(b"Connection: close\r\n", b""))
        tls.recv(65536)
        held.append(tls)
    time.sleep(1)
    each = (contestant.memory() - start) * 1e6 / connections
    for tls in held:
        tls.close()
    contestant.requests = connections
    return each


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s")
    parser.add_argument("--only", default=",".join(NAMES))
    parser.add_argument("--jobs", default="full,resumed,requests,bytes,idle")
    parser.add_argument("--logged", action="store_true", help="every side writes its access log")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 1
    run.install(options.only.split(","))
    peers.WORK.mkdir(parents=True, exist_ok=True)
    files = certificate(peers.WORK)
    jobs = {
        "full": ("full handshake", "us", lambda one: handshakes(one, options.seconds, files[0], False)),
        "resumed": ("resumed handshake", "us", lambda one: handshakes(one, options.seconds, files[0], True)),
        "requests": ("keep-alive request", "us", lambda one: wrk(one, options.seconds, "/plain", 64)),
        "bytes": ("1 MiB", "us", lambda one: wrk(one, options.seconds, "/mib", 8)),
        "idle": ("idle connection", "bytes", lambda one: idle(one, files[0])),
    }
    upstream, port = start_upstream()
    contestants = []
    lines = ["| | what | cost | ratio to nginx |", "|---|---|---|---|"]
    try:
        there = {peer.name for peer in peers.PEERS if peer.is_there()}
        contestants = [Contestant(name, port, files, options.logged) for name in options.only.split(",") if name in there]
        for job in options.jobs.split(","):
            what, unit, measure = jobs[job]
            rounds = []
            for number in range(1 if job == "idle" else options.rounds):
                order = contestants[number % len(contestants):] + contestants[: number % len(contestants)]
                costs = {one.name: one.measured(measure) for one in order}
                rounds.append({name: cost for name, cost in costs.items() if cost is not None})
                print(job, number + 1, {name: round(cost, 1) for name, cost in rounds[-1].items()}, flush=True)
            for one in contestants:
                own = [found for found in rounds if one.name in found]
                if not own:
                    lines.append(f"| {one.name} | {what} | void | |")
                    continue
                ratios = [found[one.name] / found["nginx"] for found in own if found.get("nginx")]
                middle = statistics.median(found[one.name] for found in own)
                ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""
                lines.append(f"| {one.name} | {what} | {middle:,.0f} {unit} | {ratio} |")
    finally:
        for one in [*contestants, upstream]:
            one.stop()
    text = "\n".join(lines) + "\n"
    (peers.WORK / "tls.md").write_text(text)
    print(text)
    if any(one.voids for one in contestants):
        run.void()


if __name__ == "__main__":
    main()
