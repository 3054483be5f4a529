"""A gRPC client by `grpcio`. Arguments: what to do, the address, metadata as JSON, and with TLS the authority and the name. Prints one JSON object."""
import json
import sys
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

what, address, metadata = sys.argv[1], sys.argv[2], list(json.loads(sys.argv[3]).items())
options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20), ("grpc.enable_retries", 0)]
if len(sys.argv) > 4:
    with open(sys.argv[4], "rb") as authority:
        credentials = grpc.ssl_channel_credentials(authority.read())
    channel = grpc.secure_channel(address, credentials, options=options + [("grpc.ssl_target_name_override", sys.argv[5])])
else:
    channel = grpc.insecure_channel(address, options=options)
BIG = bytes(range(256)) * (4 << 12)


def method(name):
    kind = {"ServerStream": "unary_stream", "FailLate": "unary_stream", "Wait": "unary_stream", "ClientStream": "stream_unary", "Bidi": "stream_stream"}
    return getattr(channel, kind.get(name, "unary_unary"))(f"/echo.Echo/{name}")


def call(name, request, **more):
    return method(name)(request, metadata=metadata, timeout=more.pop("timeout", 20), **more)


def told(error):
    fields = {key: value for key, value in (error.trailing_metadata() or []) if isinstance(value, str)}
    fields |= {key: value for key, value in (error.initial_metadata() or []) if isinstance(value, str)}
    return {"code": error.code().name, "details": error.details(), "fields": fields}


def failure(ask):
    try:
        return {"answer": repr(ask())}
    except grpc.RpcError as error:
        return told(error)


def kinds():
    answer, unary = method("Unary").with_call(b"hello", metadata=metadata, timeout=20)
    trailers = dict(unary.trailing_metadata())
    got = {
        "unary": answer.decode(),
        "trailers": [trailers["x-trailer"], list(trailers["x-bin-bin"])],
        "server_stream": [piece.decode() for piece in call("ServerStream", b"a")],
        "client_stream": call("ClientStream", iter([b"a", b"bc", b"", b"def"])).decode(),
    }
    # The next is sent only when the answer to the last has come, so nothing may be held back.
    turn = threading.Semaphore(1)

    def requests():
        for number in range(20):
            turn.acquire()
            yield str(number).encode()

    seen = []
    for piece in call("Bidi", requests()):
        seen.append(int(piece))
        turn.release()
    got["bidi"] = seen == list(range(20))
    stub = health_pb2_grpc.HealthStub(channel)
    got["health"] = stub.Check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=20).status
    watch = stub.Watch(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=20)
    got["watch"] = next(iter(watch)).status
    watch.cancel()
    return got


def large():
    return {
        "unary": call("Unary", BIG) == BIG,
        "server_stream": [piece == BIG for piece in call("ServerStream", BIG)],
        "client_stream": call("ClientStream", iter([BIG, BIG, BIG])).decode(),
        # The server reads no message before it is rid of its answer to the one before.
        "bidi": [piece == BIG for piece in call("Bidi", iter([BIG, BIG, BIG, BIG]))],
        "compressed": call("Compressed", BIG, compression=grpc.Compression.Gzip) == BIG,
        "deflated": call("Unary", BIG, compression=grpc.Compression.Deflate) == BIG,
    }


def failures():
    late = call("FailLate", b"x")
    pieces = []
    try:
        for piece in late:
            pieces.append(piece.decode())
    except grpc.RpcError as error:
        late = told(error)
    return {
        "fail": failure(lambda: call("Fail", b"")),
        "late": {"pieces": pieces, "error": late},
        "unknown": failure(lambda: call("NoSuchMethod", b"")),
    }


def cancel():
    waiting = call("Wait", b"begun")
    first = next(iter(waiting)).decode()
    waiting.cancel()
    until = time.monotonic() + 15
    while (count := int(call("Cancelled", b""))) < 1 and time.monotonic() < until:
        time.sleep(0.02)
    return {"first": first, "cancelled": count, "code": waiting.code().name}


def deadline():
    return {
        "left": float(call("TimeLeft", b"", timeout=7).decode()),
        "none": method("TimeLeft")(b"", metadata=metadata).decode(),
        "own": failure(lambda: call("WaitUnary", b"x", timeout=0.3))["code"],
    }


def unary():
    return failure(lambda: call("Unary", b"hello"))


def hang():
    """The client's own clock is left out: what ends the call is the gateway."""
    return failure(lambda: method("WaitUnary")(b"x", metadata=metadata))


def hang_late():
    waiting = method("Wait")(b"x", metadata=metadata)
    pieces = []
    return {"error": failure(lambda: [pieces.append(piece.decode()) for piece in waiting]), "pieces": pieces}


def sent():
    return {"metadata": call("Metadata", b"").decode()}


def stream():
    """A stream that lives until standard input ends, one message at a time."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    turn = threading.Semaphore(1)

    def requests():
        number = 0
        while not over.is_set():
            turn.acquire()
            yield str(number).encode()
            number += 1
            time.sleep(0.05)

    count = 0
    try:
        for piece in method("Bidi")(requests(), metadata=metadata):
            if int(piece) != count:
                return {"wrong": int(piece), "count": count}
            count += 1
            turn.release()
    except grpc.RpcError as error:
        return {"count": count, "error": told(error)}
    return {"count": count, "error": None}


def unaries():
    """One call after the other until standard input ends."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    count, errors = 0, []
    while not over.is_set():
        try:
            count += method("Unary")(str(count).encode(), metadata=metadata, timeout=20) == str(count).encode()
        except grpc.RpcError as error:
            errors.append(told(error))
        time.sleep(0.01)
    return {"count": count, "errors": errors}


print(json.dumps(globals()[what]()))
channel.close()
