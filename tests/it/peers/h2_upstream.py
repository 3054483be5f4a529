"""An HTTP/2 upstream on Python's h2, which shares no code with the gateway. What it does about a request, its path says.

Says on standard output, a JSON object a line: first its address, then every connection, request and end of a connection.
"""
import argparse
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

options = argparse.ArgumentParser()
options.add_argument("--unix")
options.add_argument("--busy", action="store_true")
options.add_argument("--streams", type=int)
options.add_argument("--certificate")
options.add_argument("--key")
options.add_argument("--client-ca")
options.add_argument("--alpn", default="h2")
options = options.parse_args()

saying = threading.Lock()
seen = {}
gate = threading.Event()


def say(**what):
    with saying:
        print(json.dumps(what), flush=True)


def first_time(path):
    with saying:
        seen[path] = seen.get(path, 0) + 1
        return seen[path] == 1


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Connection:
    def __init__(self, sock, number):
        self.sock, self.number, self.requests, self.held = sock, number, {}, {}
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False,
                                           normalize_outbound_headers=False)
        self.conn = h2.connection.H2Connection(config)

    def flush(self):
        self.sock.sendall(self.conn.data_to_send())

    def serve(self):
        settings = {}
        if options.streams is not None:
            settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = options.streams
        self.conn.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.conn.initiate_connection()
        self.flush()
        while True:
            data = self.sock.recv(65536)
            if not data:
                return
            for event in self.conn.receive_data(data):
                self.handle(event)
            self.flush()

    def handle(self, event):
        if isinstance(event, h2.events.RequestReceived):
            headers = [[name, value] for name, value in event.headers]
            self.requests[event.stream_id] = {"headers": headers, "body": b"", "trailers": []}
            path = dict(map(tuple, headers)).get(":path", "")
            say(event="head", connection=self.number, stream=event.stream_id, path=path)
            if path.startswith("/at-once"):
                self.respond(event.stream_id, 413, b"no", end=True)
                del self.requests[event.stream_id]
                try:
                    self.conn.reset_stream(event.stream_id, 0)
                except h2.exceptions.StreamClosedError:
                    # The whole request was there already.
                    pass
        elif isinstance(event, h2.events.DataReceived):
            request = self.requests.get(event.stream_id)
            if request is None:
                return
            request["body"] += event.data
            path = dict(map(tuple, request["headers"]))[":path"]
            if not path.startswith("/no-window"):
                self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.requests[event.stream_id]["trailers"] = [[name, value] for name, value in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            if event.stream_id in self.requests:
                self.answer(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            say(event="reset", connection=self.number, stream=event.stream_id, code=int(event.error_code))
            self.held.pop(event.stream_id, None)
        elif isinstance(event, h2.events.WindowUpdated):
            for stream in list(self.held):
                try:
                    self.send_more(stream)
                except h2.exceptions.StreamClosedError:
                    # Its reset has come with the window, and is told next.
                    pass
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            window = event.changed_settings.get(h2.settings.SettingCodes.INITIAL_WINDOW_SIZE)
            if window is not None:
                say(event="window", connection=self.number, bytes=window.new_value)
        elif isinstance(event, h2.events.PingReceived):
            say(event="ping", connection=self.number)

    def respond(self, stream, status, body, headers=(), end=True, length=True):
        fields = [(":status", str(status))] + list(headers)
        if length:
            fields.append(("content-length", str(len(body))))
        self.conn.send_headers(stream, fields)
        if body or end:
            self.conn.send_data(stream, body, end_stream=end)

    def send_more(self, stream):
        while self.held[stream]:
            room = min(self.conn.local_flow_control_window(stream), self.conn.max_outbound_frame_size)
            if room <= 0:
                return
            part, self.held[stream] = self.held[stream][:room], self.held[stream][room:]
            self.conn.send_data(stream, bytes(part), end_stream=not self.held[stream])
            self.flush()
        say(event="sent", connection=self.number, stream=stream)
        del self.held[stream]

    def close(self):
        self.flush()
        self.sock.shutdown(socket.SHUT_RDWR)
        raise ConnectionError

    def raw(self, data):
        self.flush()
        self.sock.sendall(data)

    def answer(self, stream):
        request = self.requests.pop(stream)
        fields = dict(map(tuple, request["headers"]))
        path = fields[":path"]
        say(event="request", connection=self.number, stream=stream, method=fields[":method"], path=path, headers=request["headers"],
            body=request["body"].hex() if len(request["body"]) <= 4096 else "", length=len(request["body"]))
        conn, errors = self.conn, h2.errors.ErrorCodes
        what = path.split("/")[1].split("?")[0]
        if options.busy:
            self.respond(stream, 503, b"busy")
        elif what == "no-length":
            self.respond(stream, 200, b"hello, ", length=False, end=False)
            conn.send_data(stream, b"world", end_stream=True)
        elif what == "trailers":
            self.respond(stream, 200, b"hello", length=False, end=False)
            conn.send_headers(stream, [("x-sum", "5"), ("grpc-status", "0")], end_stream=True)
        elif what == "empty":
            conn.send_headers(stream, [(":status", "204")], end_stream=True)
        elif what == "echo":
            self.respond(stream, 200, b"", length=False, end=False)
            self.held[stream] = memoryview(request["body"])
            self.send_more(stream)
        elif what == "big":
            conn.send_headers(stream, [(":status", "200")])
            self.held[stream] = memoryview(b"x" * int(path.split("/")[2]))
            self.send_more(stream)
        elif what == "refuse" or what == "refuse-once" and first_time(path):
            conn.reset_stream(stream, errors.REFUSED_STREAM)
        elif what == "goaway-once" and first_time(path):
            conn.close_connection(int(path.split("/")[2]), last_stream_id=stream - 1)
            self.close()
        elif what == "goaway-after" and first_time(path):
            conn.close_connection(int(path.split("/")[2]), last_stream_id=stream)
            self.close()
        elif what == "goaway-then-answer":
            self.flush()
            self.raw(frame(7, 0, 0, struct.pack(">II", stream, 0)))
            self.respond(stream, 200, path.encode())
        elif what == "reset" or what == "reset-once" and first_time(path):
            conn.reset_stream(stream, errors.INTERNAL_ERROR)
        elif what == "close" or what == "close-once" and first_time(path):
            self.close()
        elif what == "hang" or what == "no-window":
            pass
        elif what == "slow":
            self.flush()
            time.sleep(float(path.split("/")[2]))
            self.respond(stream, 200, path.encode())
        elif what == "deaf":
            # Neither reads nor answers any more.
            self.flush()
            gate.wait()
        elif what == "half-hang":
            self.respond(stream, 200, b"half", headers=[("content-length", "10")], length=False, end=False)
        elif what == "half-reset":
            self.respond(stream, 200, b"half", headers=[("content-length", "10")], length=False, end=False)
            conn.reset_stream(stream, errors.INTERNAL_ERROR)
        elif what == "half-close":
            self.respond(stream, 200, b"half", headers=[("content-length", "10")], length=False, end=False)
            self.close()
        elif what == "half-end":
            self.raw_head(stream, [(":status", "200"), ("content-length", "10")], 4)
            self.raw(frame(0, 1, stream, b"half"))
        elif what == "two-lengths":
            self.raw_head(stream, [(":status", "200"), ("content-length", "2"), ("content-length", "5")], 4)
            self.raw(frame(0, 1, stream, b"hello"))
        elif what == "many-headers":
            self.raw_head(stream, [(":status", "200")] + [("x-%d" % n, "y") for n in range(300)], 5)
        elif what == "large-header":
            self.raw_head(stream, [(":status", "200"), ("x", "y" * (2 << 20))], 5)
        elif what == "connection-header":
            self.raw_head(stream, [(":status", "200"), ("connection", "close")], 5)
        elif what == "upper-case":
            self.raw_head(stream, [(":status", "200"), ("X-Up", "1")], 5)
        elif what == "no-status":
            self.raw_head(stream, [("x", "y")], 5)
        elif what == "bad-status":
            self.raw_head(stream, [(":status", "abc")], 5)
        elif what == "hints":
            for _ in range(int(path.split("/")[2])):
                self.raw_head(stream, [(":status", "103"), ("link", "</" + "a" * 1000 + ">")], 4)
            self.respond(stream, 200, path.encode())
        elif what == "hints-for-ever":
            while True:
                self.raw_head(stream, [(":status", "103"), ("link", "</" + "a" * 1000 + ">")], 4)
        elif what == "continuation-for-ever":
            self.raw(frame(1, 0, stream, self.block([(":status", "200")])))
            while True:
                self.raw(frame(9, 0, stream, self.block([("x-a", "b" * 1000)])))
        elif what == "empty-continuations":
            self.raw(frame(1, 0, stream, self.block([(":status", "200")])))
            while True:
                self.raw(frame(9, 0, stream, b"") * 1000)
        elif what == "resets-for-ever":
            while True:
                self.raw(frame(3, 0, stream, struct.pack(">I", 8)) * 1000)
        elif what == "settings-for-ever":
            while True:
                self.raw(frame(4, 0, 0, struct.pack(">HI", 4, 65535)) * 1000)
        elif what == "pings-for-ever":
            while True:
                self.raw(frame(6, 0, 0, b"12345678") * 1000)
        elif what == "empty-data-for-ever":
            self.raw_head(stream, [(":status", "200")], 4)
            while True:
                self.raw(frame(0, 0, stream, b"") * 1000)
        elif what == "more-than-the-window":
            self.raw_head(stream, [(":status", "200")], 4)
            for _ in range(2048):
                self.raw(frame(0, 0, stream, b"x" * 16384))
        elif what == "push":
            self.raw(frame(5, 4, stream, struct.pack(">I", 2) + self.block([(":method", "GET"), (":path", "/p"), (":scheme", "http"), (":authority", "a")])))
            self.respond(stream, 200, path.encode())
        elif what == "garbage":
            self.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        elif what == "frame-too-large":
            self.raw(struct.pack(">I", 1 << 20)[1:] + bytes([0, 0]) + struct.pack(">I", stream) + b"x" * (1 << 20))
        elif what == "other-stream":
            self.raw(frame(0, 1, stream + 100, b"hello"))
        else:
            self.respond(stream, 200, path.encode(), headers=[("x-connection", str(self.number)), ("x-stream", str(stream))])

    def block(self, fields):
        return self.conn.encoder.encode(fields, huffman=False)

    def raw_head(self, stream, fields, flags):
        """A head in as many frames as it takes; `flags` are those of the last one (4 ends the head, 5 the stream too)."""
        block = self.block(fields)
        parts = [block[at:at + 16384] for at in range(0, len(block), 16384)] or [b""]
        for n, part in enumerate(parts):
            last = n == len(parts) - 1
            flag = (flags & 4 if last else 0) | (flags & 1 if n == 0 else 0)
            self.raw(frame(1 if n == 0 else 9, flag, stream, part))


def run(sock, number):
    try:
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True)
        chain = sock.getpeercert() if context is not None else None
        say(event="connection", connection=number, tls=sock.version() if context is not None else "",
            alpn=(sock.selected_alpn_protocol() or "") if context is not None else "", certificate=bool(chain))
        Connection(sock, number).serve()
    except (OSError, h2.exceptions.ProtocolError, ssl.SSLError) as error:
        say(event="error", connection=number, error=repr(error))
    finally:
        say(event="closed", connection=number)
        sock.close()


context = None
if options.certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    context.set_alpn_protocols(options.alpn.split(","))
    if options.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(options.client_ca)

if options.unix:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(options.unix)
    say(address=options.unix)
else:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    say(address="127.0.0.1:%d" % listener.getsockname()[1])
listener.listen(128)


def end_with_parent():
    # Ends with the test, however that ends.
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_parent, daemon=True).start()
number = 0
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=run, args=(accepted, number), daemon=True).start()
    number += 1
