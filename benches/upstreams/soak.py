#!/usr/bin/env python3
"""Whether anything piles up: many clients, while the file is reloaded, a target flaps and a list of targets changes.

    benches/upstreams/soak.py PROGRAM [--minutes 20] [--clients 2000] [--within 1.05]

Three upstreams of small echoes: `steady`, which nobody touches; `flapping`, of whose two targets one is killed and started again and again;
`listed`, whose targets come from a file that changes every few seconds. Every other reload is refused. Of `steady` and `listed` every
answer has to be 200, of `flapping` an answer may be what an upstream's failure is called. A connection that is closed without having been
announced is a fault. Memory and descriptors are compared between the second tenth of the time and the last. Exits with 1 where anything is
unexplained or grew. Needs nothing but Python.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "memory"))
from gateway import Gateway, free_port, mib, most_descriptors

CONFIGURATION = """
server: { threads: 2, settle: 0s }
listeners: { public: { address: "127.0.0.1:{port}", deadlines: { keep_alive: 10m } } }
admin: { address: "127.0.0.1:{admin}" }
access_log: { to: /dev/null }
limits: { all: { rate: RATE/s, by: [client_ip] } }
upstreams:
  steady: { targets: [STEADY], health: { path: /healthz } }
  flapping: { targets: [FLAPPING], health: { path: /healthz, every: 500ms, timeout: 250ms } }
  listed: { targets_from: { file: LIST } }
routes:
  steady: { match: { path: /steady }, auth: public, limits: [all], upstream: steady }
  flapping: { match: { path: /flapping }, auth: public, upstream: flapping }
  listed: { match: { path: /listed }, auth: public, upstream: UPSTREAM }
"""
# What a target that dies may be called, and what a gateway without one answers.
EXPLAINED = {"upstream-closed", "upstream-connect-failed", "upstream-connect-timeout", "no-healthy-target"}
PATHS = ["/steady", "/flapping", "/listed"]


class Echo:
    def __init__(self, program, name):
        self.program, self.name, self.port = program, name, free_port()
        self.start()

    def start(self):
        command = [self.program, "echo", "--address", f"127.0.0.1:{self.port}", "--name", self.name]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def address(self):
        return f'"127.0.0.1:{self.port}"'


class Seen:
    """What clients have seen."""

    def __init__(self):
        self.answers = collections.Counter()
        self.faults = collections.Counter()


async def client(port, seen, until, pause):
    """Asks along one connection after the other, each for as long as the gateway keeps it."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as why:
            seen.faults[f"connect: {why}"] += 1
            await asyncio.sleep(1)
            continue
        try:
            while loop.time() < until:
                await asyncio.sleep(random.uniform(0, 2 * pause))
                if not await ask(reader, writer, random.choice(PATHS), seen):
                    break
        except (OSError, asyncio.IncompleteReadError) as why:
            seen.faults[f"closed without being announced: {type(why).__name__}"] += 1
        writer.close()


async def ask(reader, writer, path, seen):
    """One request; whether the connection stays."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    lines = head.split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    body = await reader.readexactly(int(fields["content-length"]))
    status = int(lines[0].split()[1])
    code = json.loads(body).get("code", "") if status != 200 else ""
    seen.answers[path, status, code] += 1
    if status != 200 and not (path == "/flapping" and code in EXPLAINED):
        seen.faults[f"{path} was answered {status} {code}"] += 1
    return fields.get("connection") != "close"


async def every(seconds, until, turn):
    """`turn(n)` in a thread of its own, again and again."""
    loop, n = asyncio.get_running_loop(), 0
    while loop.time() + seconds < until:
        await asyncio.sleep(seconds)
        await loop.run_in_executor(None, turn, n)
        n += 1


async def soak(args, gateway, text, flapper, listed, file):
    loop, seen, samples, reloads = asyncio.get_running_loop(), Seen(), [], collections.Counter()
    begin = loop.time()
    until = begin + args.minutes * 60

    def reload(n):
        wanted = n % 2 == 0
        rate = 1_000_000 + n
        gateway.write(text.replace("RATE", str(rate)).replace("UPSTREAM", "listed" if wanted else "nobody"))
        accepted = gateway.reload()
        reloads[accepted] += 1
        if accepted != wanted:
            seen.faults[f"a reload was {'accepted' if accepted else 'refused'}"] += 1

    def flap(n):
        flapper.kill() if n % 2 == 0 else flapper.start()

    def relist(n):
        write_list(file, [listed[(n + i) % len(listed)] for i in range(2)])

    def sample(_):
        samples.append((loop.time() - begin, gateway.rss(), len(os.listdir(f"/proc/{gateway.process.pid}/fd"))))
        if len(samples) % 12 == 0:
            _, rss, open_files = samples[-1]
            print(f"{(loop.time() - begin) / 60:5.1f} min: {sum(seen.answers.values())} answers, {mib(rss)}, {open_files} descriptors", flush=True)

    clients = [client(gateway.port, seen, until, args.pause) for _ in range(args.clients)]
    await asyncio.gather(*clients, every(3, until, reload), every(5, until, flap), every(4, until, relist), every(5, until, sample))
    return seen, samples, reloads


def write_list(file, echoes):
    half = file.with_suffix(".half")
    half.write_text("".join(f"- {echo.address}\n" for echo in echoes))
    half.rename(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--pause", type=float, default=2.0, help="mean seconds between an answer and a client's next request")
    parser.add_argument("--within", type=float, default=1.05)
    args = parser.parse_args()
    most_descriptors(4 * args.clients + 1000)
    with tempfile.TemporaryDirectory() as dir:
        file = pathlib.Path(dir, "targets.yaml")
        steady = [Echo(args.program, f"steady-{n}") for n in range(3)]
        flapping = [Echo(args.program, f"flapping-{n}") for n in range(2)]
        listed = [Echo(args.program, f"listed-{n}") for n in range(4)]
        try:
            write_list(file, listed[:2])
            text = CONFIGURATION.replace("LIST", str(file))
            for word, echoes in [("STEADY", steady), ("FLAPPING", flapping)]:
                text = text.replace(word, ", ".join(echo.address for echo in echoes))
            gateway = Gateway(args.program, text.replace("RATE", "1000000").replace("UPSTREAM", "listed"))
            seen, samples, reloads = asyncio.run(soak(args, gateway, text, flapping[1], listed, file))
            gateway.stop()
        finally:
            for echo in steady + flapping + listed:
                echo.kill()
    sys.exit(not tell(args, seen, samples, reloads))


def tell(args, seen, samples, reloads):
    """Whether all is well."""
    for (path, status, code), count in sorted(seen.answers.items()):
        print(f"{path} {status} {code}: {count}")
    print(f"{reloads[True]} reloads were accepted, {reloads[False]} refused")
    for fault, count in seen.faults.items():
        print(f"UNEXPLAINED {fault}: {count}")
    total = args.minutes * 60
    settled = [sample for sample in samples if 0.1 <= sample[0] / total < 0.2]
    last = [sample for sample in samples if sample[0] / total >= 0.9]
    good = not seen.faults
    for what, at, shown in [("memory", 1, mib), ("descriptors", 2, str)]:
        before, after = (int(statistics.median(sample[at] for sample in part)) for part in (settled, last))
        print(f"{what}: {shown(before)} in the second tenth, {shown(after)} in the last, ratio {after / before:.3f}")
        good &= after <= before * args.within
    return good


main()
