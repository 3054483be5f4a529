"""One round: wrk against one contestant, what it cost, and whether it counts.

A round is void if any answer was not 200, a connection failed, a log line was dropped or is not JSON with status 200, or there are not as many lines
as requests. wrk hangs up in the middle of its last requests, up to one a connection: the contestant may have logged those too, or not.
"""

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass, field

CONNECTIONS = 64


@dataclass
class Round:
    label: str
    requests: int
    seconds: float
    cpu: float
    p50: float
    p99: float
    memory: float
    faults: list = field(default_factory=list)

    @property
    def rate(self):
        return self.requests / self.seconds

    @property
    def cost(self):
        """Microseconds of CPU a request."""
        return self.cpu / max(self.requests, 1) * 1e6


def run(contestant, requests_file, script, seconds, core, pause=0):
    truncate(contestant.access_log)
    dropped = contestant.dropped_log_lines()
    before = contestant.cpu()
    command = [
        "taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script),
        f"http://127.0.0.1:{contestant.port}/", "--", str(requests_file), str(pause),
    ]
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + 60, check=False).stdout
    after = contestant.cpu()
    found = re.search(r"^SUMMARY (.*)$", out, re.M)
    if not found:
        raise SystemExit(f"wrk failed:\n{out}")
    said = json.loads(found.group(1))
    round = Round(
        contestant.label, said["requests"], said["micros"] / 1e6, after - before, said["p50"] / 1000, said["p99"] / 1000, contestant.memory()
    )
    round.faults = faults(said, contestant, contestant.dropped_log_lines() - dropped)
    return round


def truncate(log):
    """Empties a log, which is quiet: the round before waited for its last lines."""
    if log is not None and log.exists():
        os.truncate(log, 0)


def settle(log, quiet=1.3, patience=8):
    """Waits until the log has not grown for longer than its writer's flush interval."""
    size, since, begin = -1, time.time(), time.time()
    while time.time() - since < quiet and time.time() - begin < patience:
        now = log.stat().st_size if log.exists() else 0
        if now != size:
            size, since = now, time.time()
        time.sleep(0.1)


def faults(said, contestant, dropped):
    found = [f"{said[kind]} {what}" for kind, what in (
        ("status", "answers that are not 2xx"), ("connect", "failed connects"), ("read", "failed reads"), ("write", "failed writes"),
        ("timeout", "timeouts")) if said[kind]]
    if said["requests"] == 0:
        found.append("no requests")
    if dropped:
        found.append(f"{dropped:.0f} log lines dropped")
    if contestant.process.poll() is not None:
        found.append("it ended")
    if contestant.access_log is not None:
        settle(contestant.access_log)
        found += log_faults(contestant.access_log, said["requests"])
    return found


def log_faults(log, requests):
    lines = good = bad = 0
    with open(log, "rb") as file:
        if log.stat().st_size:
            # HAProxy does not append: after a truncation its file begins with a hole.
            file.seek(os.lseek(file.fileno(), 0, os.SEEK_DATA))
        for line in file:
            lines += 1
            try:
                entry = json.loads(line.lstrip(b"\0"))
                # 499 and its like: wrk hung up on this one; counted as a line, not as an answer.
                good += entry["status"] in (200, "200")
            except (ValueError, KeyError, TypeError):
                bad += 1
    found = []
    if bad:
        found.append(f"{bad} log lines are not JSON with a status")
    if not requests <= lines <= requests + CONNECTIONS:
        found.append(f"{lines} log lines for {requests} requests")
    if good < requests:
        found.append(f"{good} lines with status 200 for {requests} requests")
    return found
