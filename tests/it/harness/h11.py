"""Reads recorded connections with h11, a strict parser that shares no code with the gateway.

Input: a JSON list, one hexadecimal text a connection. Output: a JSON list, one list of requests a connection; an error is the last entry.
"""
import json
import sys

import h11


def fields(headers):
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]


def read(data):
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    conn.receive_data(data)
    conn.receive_data(b"")
    requests = []
    while True:
        try:
            event = conn.next_event()
        except h11.RemoteProtocolError as error:
            requests.append({"error": str(error)})
            return requests
        if isinstance(event, h11.Request):
            requests.append({
                "method": event.method.decode(), "target": event.target.decode("latin-1"),
                "version": event.http_version.decode(), "headers": fields(event.headers), "body": "", "complete": False,
            })
        elif isinstance(event, h11.Data):
            requests[-1]["body"] += bytes(event.data).hex()
        elif isinstance(event, h11.EndOfMessage):
            requests[-1]["complete"] = True
            requests[-1]["trailers"] = fields(event.headers)
            # A tunnel's bytes are not HTTP.
            if conn.their_state is h11.MIGHT_SWITCH_PROTOCOL:
                return requests
            conn.send(h11.Response(status_code=204, headers=[]))
            conn.send(h11.EndOfMessage())
            if conn.our_state is not h11.DONE:
                return requests
            conn.start_next_cycle()
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED or event is h11.NEED_DATA:
            return requests


json.dump([read(bytes.fromhex(connection)) for connection in json.load(sys.stdin)], sys.stdout)
