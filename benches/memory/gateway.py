"""Starts a gateway on a configuration and reads how much memory it holds. Decides nothing about what is too much."""

import http.client
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Gateway:
    """`sluice run` in a folder of its own; `configuration` gets the two ports put in."""

    def __init__(self, program, configuration):
        self.program = str(pathlib.Path(program).resolve())
        self.dir = tempfile.TemporaryDirectory()
        self.port, self.admin = free_port(), free_port()
        self.file = pathlib.Path(self.dir.name, "sluice.yaml")
        self.write(configuration)
        self.log = open(pathlib.Path(self.dir.name, "log"), "wb")
        self.process = subprocess.Popen([self.program, "run", self.file], stdout=subprocess.DEVNULL, stderr=self.log)
        until = time.monotonic() + 60
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the gateway did not start: " + pathlib.Path(self.log.name).read_text())
            time.sleep(0.05)

    def write(self, configuration):
        half = self.file.with_suffix(".half")
        half.write_text(configuration.replace("{port}", str(self.port)).replace("{admin}", str(self.admin)))
        half.rename(self.file)

    def ask(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body

    def is_ready(self):
        try:
            return self.ask("/readyz")[0] == 200
        except OSError:
            return False

    def reload(self):
        """Whether it was accepted."""
        return subprocess.run([self.program, "reload", self.file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def rss(self):
        """Resident memory in bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.log.close()
        self.dir.cleanup()


def mib(count):
    return f"{count / 2**20:.1f} MiB"


def most_descriptors(wanted):
    import resource
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted and os.geteuid() == 0:
        hard = wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
