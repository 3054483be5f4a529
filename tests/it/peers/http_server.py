"""An HTTP server by Python's own library. Prints its port; ends with its standard input. Argument: the version that it speaks.

GET /events sends an event for each POST /release, ending with POST /release?last; /download?N sends N bytes and GET /progress tells how far
it has come; POST /hold reads its body only after POST /release; PUT /no refuses before the body.
"""
import json
import queue
import select
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATTERN = bytes(range(251)) * 256
released = queue.Queue()
progress = {"written": 0, "blocked_ms": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = sys.argv[1]

    def log_message(self, *_):
        pass

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_expect_100(self):
        if self.path == "/no":
            self.answer(b"no", 417)
            self.close_connection = True
            return False
        return super().handle_expect_100()

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/events":
            return self.events(query)
        if path == "/download":
            return self.download(int(query))
        if path == "/progress":
            return self.answer(json.dumps(progress).encode())
        self.answer(b"hello")

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def do_POST(self):
        path, _, query = self.path.partition("?")
        if path == "/release":
            released.put(query)
            return self.answer(b"")
        if path == "/hold":
            released.get()
        self.answer(json.dumps({"read": self.read_body()}).encode())

    do_PUT = do_POST

    def read_body(self):
        count = 0
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                count += len(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return count
        left = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, 1 << 16))):
            left -= len(piece)
            count += len(piece)
        return count

    def events(self, framing):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        is_chunked = self.protocol_version == "HTTP/1.1" and framing == "chunked"
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif framing == "length":
            self.send_header("Content-Length", "50")
        self.close_connection = True
        self.end_headers()
        for number in range(5):
            is_last = released.get() == "last"
            event = b"data: %d\n\n" % number + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event) if is_chunked else event)
            if is_last:
                break
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    def download(self, size):
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.connection.setblocking(False)
        sent, since = 0, None
        while sent < size:
            at = sent % len(PATTERN)
            try:
                sent += self.connection.send(PATTERN[at:at + min(1 << 16, size - sent)])
                progress["written"], progress["blocked_ms"], since = sent, 0, None
            except BlockingIOError:
                since = since or time.monotonic()
                progress["blocked_ms"] = int((time.monotonic() - since) * 1000)
                select.select([], [self.connection], [], 0.05)
        self.connection.setblocking(True)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
