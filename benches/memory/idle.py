#!/usr/bin/env python3
"""Memory of the gateway after its start, and with 10,000 idle keep-alive connections, each after one request: `benches/memory/idle.py [--check 30 200]`.

Resident megabytes of the process of the release binary (or of SLUICE), one thread, the default 64 MiB for limits. `--check START CONNECTED` exits
with 1 where more is taken.
"""

import argparse
import os
import pathlib
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET /idle HTTP/1.1\r\nHost: api.test\r\nUser-Agent: idle\r\n\r\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--check", nargs=2, type=float, metavar=("START", "CONNECTED"))
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = options.connections + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"{wanted} descriptors are needed, {hard} are allowed: see `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    binary = os.environ.get("SLUICE") or str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "sluice")
    upstream, port, admin = serve(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as dir:
        file = pathlib.Path(dir) / "sluice.yaml"
        file.write_text(
            f"server: {{ threads: 1 }}\naccess_log: {{ to: {dir}/access.log }}\n"
            f'listeners: {{ public: {{ address: "127.0.0.1:{port}", connections: {{ max: 20000, per_address: 20000 }}, deadlines: {{ keep_alive: 10m }} }} }}\n'
            f'admin: {{ address: "127.0.0.1:{admin}" }}\n'
            f'limits: {{ callers: {{ rate: 1000000/s, by: [client_ip] }} }}\nupstreams: {{ app: {{ targets: ["127.0.0.1:{upstream}"] }} }}\n'
            "routes: { all: { match: { path: /** }, auth: public, upstream: app, limits: [callers] } }\n"
        )
        process = subprocess.Popen([binary, "run", str(file)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            first = connect(port, process)
            first.close()
            time.sleep(1)
            start = resident(process.pid)
            print(f"after the start: {start:.1f} MB", flush=True)
            connections = []
            for _ in range(options.connections):
                connection = connect(port, process)
                connection.sendall(REQUEST)
                answer = b""
                while not answer.endswith(b"\r\n\r\nok"):
                    piece = connection.recv(4096)
                    answer += piece
                    if not piece or not b"HTTP/1.1 200".startswith(answer[:12]):
                        raise SystemExit(f"not a 200: {answer!r}")
                connections.append(connection)
            time.sleep(1)
            connected = resident(process.pid)
            each = (connected - start) * 1024 / options.connections
            print(f"with {options.connections} idle connections: {connected:.1f} MB, {each:.1f} KB each", flush=True)
        finally:
            process.kill()
            process.wait()
    if options.check and (start > options.check[0] or connected > options.check[1]):
        raise SystemExit(f"more than {options.check[0]:.0f} MB or {options.check[1]:.0f} MB")


def connect(port, process):
    begin = time.time()
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            if process.poll() is not None or time.time() - begin > 30:
                raise SystemExit("the gateway does not listen") from None
            time.sleep(0.05)


def resident(pid):
    statm = pathlib.Path(f"/proc/{pid}/statm").read_text().split()
    return int(statm[1]) * os.sysconf("SC_PAGE_SIZE") / 1048576


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def serve():
    """An upstream on threads of this process."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def answer(connection):
        seen = b""
        while piece := connection.recv(65536):
            seen += piece
            while b"\r\n\r\n" in seen:
                seen = seen.partition(b"\r\n\r\n")[2]
                connection.sendall(ANSWER)

    def accept():
        while True:
            threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


if __name__ == "__main__":
    main()
