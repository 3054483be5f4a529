"""A client of TLS: the `ssl` module of Python, which is OpenSSL.

Takes one JSON text: `port`, `name` (SNI and the host that is verified), `ca`, and optionally `cert` and `key`, `alpn`, `newest` (1.2 or 1.3),
`source` (its own address), and `connections`: a list of lists of requests `[host, path]`, each on a connection of its own, one after the
other. The second and later connections offer the session of the one before. Prints for each connection what was agreed on and the status
and body of each answer, or the error.
"""

import json
import socket
import ssl
import sys

told = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=told["ca"])
if told.get("newest") == "1.2":
    context.maximum_version = ssl.TLSVersion.TLSv1_2
if "cert" in told:
    context.load_cert_chain(told["cert"], told["key"])
if "alpn" in told:
    context.set_alpn_protocols(told["alpn"])


def ask(tls, host, path):
    tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = tls.recv(1)
        if not byte:
            raise EOFError("closed")
        head += byte
    lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    left = int(fields.get("content-length", "0"))
    body = b""
    while len(body) < left:
        body += tls.recv(left - len(body))
    return {"status": int(lines[0].split(" ")[1]), "body": body.decode(), "fields": fields}


said, session = [], None
for requests in told["connections"]:
    source = (told["source"], 0) if "source" in told else None
    one = {"answers": []}
    said.append(one)
    try:
        plain = socket.create_connection(("127.0.0.1", told["port"]), timeout=20, source_address=source)
        with context.wrap_socket(plain, server_hostname=told["name"], session=session) as tls:
            one.update(version=tls.version(), cipher=tls.cipher()[0], alpn=tls.selected_alpn_protocol(), resumed=tls.session_reused)
            for host, path in requests:
                one["answers"].append(ask(tls, host, path))
            # Tickets of 1.3 have come with the answers.
            session = tls.session
    except (OSError, EOFError) as error:
        one["error"] = str(error)
print(json.dumps(said))
