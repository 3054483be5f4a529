#!/usr/bin/env python3
"""Has very many clients, each with a ticket of its own, come back: `benches/tls/resumption.py [--clients 10000] [--binary target/release/sluice]`.

Each makes one full TLS 1.3 handshake and a request; then the configuration is reloaded, and each comes back once, in another order, to
whichever worker takes it. Tells how many were resumed, and the memory of the gateway before and after. OpenSSL by Python's `ssl` is the client.
"""

import argparse
import pathlib
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import time

CONFIG = """
server: {{ threads: 2 }}
admin: {{ address: "127.0.0.1:{admin}" }}
access_log: {{ to: /dev/null }}
listeners:
  l:
    address: "127.0.0.1:{port}"
    tls: {{ certificates: {{ main: {{ chain: chain.pem, key: key.pem }} }}, handshakes_per_address: 1000000/s }}
routes: {{ r: {{ match: {{ path: /** }}, auth: public, respond: {{ status: 204 }} }} }}
"""
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def come(context, port, session):
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost", session=session) as tls:
        tls.sendall(ASK)
        answer = b"".join(iter(lambda: tls.recv(4096), b""))
        if not answer.startswith(b"HTTP/1.1 204"):
            sys.exit(f"answered {answer[:80]!r}")
        return tls.session_reused, tls.session


def kilobytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--clients", type=int, default=10_000)
    args.add_argument("--binary", default="target/release/sluice")
    args = args.parse_args()
    binary = str(pathlib.Path(args.binary).resolve())
    with tempfile.TemporaryDirectory() as folder:
        dir = pathlib.Path(folder)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost", "-keyout", dir / "key.pem", "-out", dir / "chain.pem"], check=True, stderr=subprocess.DEVNULL)
        port, admin = free_port(), free_port()
        (dir / "sluice.yaml").write_text(CONFIG.format(port=port, admin=admin))
        gateway = subprocess.Popen([binary, "run", "sluice.yaml"], cwd=dir, stderr=subprocess.DEVNULL)
        try:
            begin = time.time()
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if time.time() - begin > 30:
                        sys.exit("the gateway does not listen")
                    time.sleep(0.05)
            context = ssl.create_default_context(cafile=dir / "chain.pem")
            for _ in range(200):
                come(context, port, None)
            before = kilobytes(gateway.pid)
            sessions = [come(context, port, None)[1] for _ in range(args.clients)]
            after = kilobytes(gateway.pid)
            subprocess.run([binary, "reload", "sluice.yaml"], cwd=dir, check=True, stdout=subprocess.DEVNULL)
            random.Random(1).shuffle(sessions)
            resumed = sum(come(context, port, session)[0] for session in sessions)
            last = kilobytes(gateway.pid)
        finally:
            gateway.terminate()
            gateway.wait()
    print(f"{len(sessions)} clients, {len({session.id for session in sessions})} sessions: {resumed} resumed after a reload")
    print(f"memory of the gateway: {before} KiB, {after} KiB with all tickets given out, {last} KiB after all have come back")


main()
