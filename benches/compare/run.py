#!/usr/bin/env python3
"""Compares Sluice with its peers, side by side on this machine: `benches/compare/run.py [--quick] [--only sluice,nginx] [--verify]`.

One core for the contestant, the other for the load generator (wrk, 64 keep-alive connections) and the upstream. Rounds alternate between the
contestants, so that whatever else the machine does hits all of them; what counts are the ratios to nginx within a round. Two jobs:

  plain  proxying, nothing else (Sluice writes its access log all the same, to nowhere)
  full   RS256 tokens, a limit by subject, 1,000 routes, headers set and removed, a JSON access log to a file, metrics;
         the load goes over 1,000 routes and 1,000 tokens in turn

Writes target/compare/table.md and exits with 3 if a round was void. `--verify` measures nothing: it proves that every contestant does the job.
"""

import argparse
import datetime
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
import check
import load
import peers
import tokens

ROUTES = 1000
# Far above what one core can do, so that nobody is refused.
LIMIT = 1000000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s: tells whether it works, not how fast")
    parser.add_argument("--only", help="contestants, such as sluice,nginx; nginx is needed for ratios")
    parser.add_argument("--jobs", default="plain,full", help="plain, full or both (default)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds at saturation (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of a round (default 3)")
    parser.add_argument("--rate", type=int, default=4000, help="requests a second of the rounds at a fixed rate, about (default 4000)")
    parser.add_argument("--verify", action="store_true", help="check what every contestant does instead of measuring it")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 1
    return options


def install(names=None):
    """Fetches what these contestants need, by default all: Debian's wrk, haproxy and nginx, and wheels in a venv; nothing if it is there. The upstream is the wheel of nginx."""
    names = {peer.name for peer in peers.PEERS} if names is None else set(names)
    missing = [tool for tool in ("wrk", *({"haproxy"} & names)) if not shutil.which(tool) and not pathlib.Path(f"/usr/sbin/{tool}").exists()]
    if missing:
        apt("install", *missing)
    if "nginx-debian" in names and not pathlib.Path(peers.debian_nginx()).exists():
        unpack("nginx", peers.DEBIAN)
    mark = peers.VENV / "installed"
    there = set(mark.read_text().split()) if mark.exists() else set()
    wanted = {wheel for name, wheel in peers.WHEELS.items() if name in names | {"nginx"}}
    if wanted <= there:
        return
    print("installing", *sorted(wanted - there), flush=True)
    make = [sys.executable, "-m", "venv", str(peers.VENV)]
    if subprocess.run(make, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        apt("install", "python3-venv")
        subprocess.run(make, check=True)
    subprocess.run([str(peers.VENV / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
    mark.write_text(" ".join(sorted(wanted | there)))


def unpack(package, dir):
    """The files of one of Debian's packages, in a folder."""
    dir.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "-qq", "download", package], cwd=dir, stderr=subprocess.DEVNULL, check=False)
    found = sorted(dir.glob(f"{package}_*.deb"))
    if not found or subprocess.run(["dpkg-deb", "--extract", found[-1], dir], check=False).returncode:
        print(f"{package} of Debian is left out: it could not be fetched", flush=True)


def apt(*words):
    command = ["apt-get", "-qq", "-y", *words]
    if os.geteuid() != 0:
        command = ["sudo", "-n", *command]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit(f"could not run `{' '.join(command)}`: run it yourself, then try again")


def void():
    """Ends with a status of its own: what was measured does not count, but it was done."""
    print("void: see the faults above", file=sys.stderr)
    sys.exit(3)


def choose(options):
    chosen = []
    names = options.only.split(",") if options.only else [peer.name for peer in peers.PEERS]
    for name in names:
        peer = next((peer for peer in peers.PEERS if peer.name == name), None)
        if peer is None:
            raise SystemExit(f"`{name}` is not a contestant: expected some of {', '.join(peer.name for peer in peers.PEERS)}")
        if not peer.is_there():
            if options.only:
                raise SystemExit(f"{name} is not there: {peer.version_command()[0]}")
            print(f"{name} is left out: there is no {peer.version_command()[0]}")
            continue
        chosen.append(peer)
    return chosen


def main():
    options = arguments()
    install(options.only and options.only.split(","))
    chosen = choose(options)
    if peers.PROXY_CORE == peers.LOAD_CORE and len(chosen) > 1:
        raise SystemExit("two cores are needed to compare: one for the contestant, one for the load")
    peers.WORK.mkdir(parents=True, exist_ok=True)
    key = tokens.Key(peers.WORK / "keys")
    if options.verify:
        sys.exit(check.verify([peer for peer in chosen if "full" in peer.templates], key))
    routes = [f"service-{i:04}" for i in range(ROUTES)]
    paths = {"plain": peers.WORK / "plain.txt", "full": peers.WORK / "full.txt"}
    paths["plain"].write_text("/plain\n")
    paths["full"].write_text("".join(f"/{r}/items/{i}\t{t}\n" for i, (r, t) in enumerate(zip(routes, key.tokens(ROUTES)))))
    sections, is_void = [], False
    upstream, port = peers.start_upstream(peers.LOAD_CORE)
    try:
        for job in options.jobs.split(","):
            section, void = measure(job, chosen, options, port, key, routes, paths)
            sections.append(section)
            is_void |= void
    finally:
        upstream.stop()
    text = report(chosen, sections)
    (peers.WORK / "table.md").write_text(text)
    print(text)
    if is_void:
        void()


def measure(job, chosen, options, upstream_port, key, routes, paths):
    """The two tables of a job."""
    running, started = [], []
    try:
        line = paths[job].read_text().split("\n")[0]
        for peer in chosen:
            own = job if job in peer.templates else "plain"
            label = peer.name if own == job else f"{peer.name}, plain"
            started.append((peers.Contestant(peer, own, upstream_port, key, routes if own == "full" else [], LIMIT, peers.PROXY_CORE, label), own))
            running.append(started[-1][0])
        nginx = next((peer for peer in chosen if peer.name == "nginx"), None)
        if job == "full" and nginx:
            # What the full job is held against: the same machine, the same rounds, nothing but proxying.
            started.append((peers.Contestant(nginx, "plain", upstream_port, key, [], LIMIT, peers.PROXY_CORE, "nginx, plain"), "plain"))
            running.append(started[-1][0])
        for contestant, own in started:
            path, _, token = (line if own == "full" else "/plain\t").partition("\t")
            contestant.wait_until_ready(path, {"Authorization": f"Bearer {token}"} if token else {})
            load.run(contestant, paths[own], peers.HERE / "load.lua", 1, peers.LOAD_CORE)
        # 64 connections that wait this long between requests make about the rate that was asked for.
        pause = max(1, round(load.CONNECTIONS * 1000 / options.rate))
        saturated = rounds(started, options.rounds, options.seconds, 0, paths, job)
        paced = rounds(started, max(2, options.rounds - 2), options.seconds, pause, paths, job)
    finally:
        for contestant in running:
            contestant.stop()
            load.truncate(contestant.access_log)
    is_void = any(one.faults for all in (saturated, paced) for round in all for one in round.values())
    title = {"plain": "Plain proxying", "full": f"The full job: RS256, limit, {ROUTES} routes and tokens, headers, JSON log, metrics"}[job]
    return (
        f"### {title}\n\nAt saturation, {len(saturated)} rounds of {options.seconds} s:\n\n{table(saturated, started)}\n"
        f"At about {options.rate} requests a second, {len(paced)} rounds of {options.seconds} s:\n\n{table(paced, started)}",
        is_void,
    )


def rounds(started, count, seconds, pause, paths, job):
    all = []
    for number in range(count):
        # Another one begins each time: none is always right after the most expensive one.
        order = started[number % len(started) :] + started[: number % len(started)]
        done = {}
        for contestant, own in order:
            one = done[contestant.label] = load.run(contestant, paths[own], peers.HERE / "load.lua", seconds, peers.LOAD_CORE, pause)
            faults = f"  VOID: {'; '.join(one.faults)}" if one.faults else ""
            kind = "paced" if pause else "saturated"
            print(f"{job:5} {kind:9} {number + 1}/{count} {one.label:13} {one.cost:7.1f} us/request {one.rate:8.0f}/s p99 {one.p99:7.2f} ms{faults}", flush=True)
        all.append(done)
    return all


def table(all, started):
    lines = ["| | CPU a request | ratio to nginx | ratio to nginx, plain | requests/s | p50 | p99 | memory |", "|---|---|---|---|---|---|---|---|"]
    for contestant, _ in started:
        own = [round[contestant.label] for round in all if not round[contestant.label].faults]
        if not own:
            lines.append(f"| {contestant.label} | void | | | | | | |")
            continue
        middle = lambda read: statistics.median(read(one) for one in own)
        lines.append(
            f"| {contestant.label} | {middle(lambda r: r.cost):.1f} us | {ratio(all, contestant.label, 'nginx')} | {ratio(all, contestant.label, 'nginx, plain')} "
            f"| {middle(lambda r: r.rate):,.0f} | {middle(lambda r: r.p50):.2f} ms | {middle(lambda r: r.p99):.2f} ms | {middle(lambda r: r.memory):.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def ratio(all, label, base):
    """The median of the rounds' own ratios, with the least and the largest."""
    found = [
        round[label].cost / round[base].cost
        for round in all
        if base in round and not round[label].faults and not round[base].faults and round[base].cost
    ]
    return f"**{statistics.median(found):.2f}** ({min(found):.2f}-{max(found):.2f})" if found else ""


def report(chosen, sections):
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown CPU")
    lines = [
        f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, {datetime.date.today().isoformat()}; "
        f"`{' '.join(['python3', 'benches/compare/run.py', *sys.argv[1:]])}`",
        "",
        "CPU a request is user and system time of the contestant's processes by the requests that wrk counted; one core for the contestant, one for wrk and "
        "the upstream (nginx, 110 bytes); 64 keep-alive connections. Ratios are medians of the rounds' own ratios, with the least and the largest. "
        "wrk has no fixed rate: there every connection pauses at random between requests.",
        "",
        "; ".join(f"{peer.name} {peer.version()}" for peer in chosen) + ".",
        "",
        *sections,
        "What differs in the full job:",
        *[f"- {peer.name}: {peer.difference}" for peer in chosen if peer.difference],
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
