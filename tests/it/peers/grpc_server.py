"""A gRPC server by `grpcio`, with the standard health service. Prints its port; ends with its standard input.

Messages are bytes. /echo.Echo/: Unary and Bidi give back what they get, ServerStream gives it three times, ClientStream tells how many
bytes came, Fail ends with NOT_FOUND, FailLate after two messages, Wait never ends by itself, TimeLeft tells the deadline, Cancelled how
many calls were cancelled, Compressed compresses its answer. With the argument `busy`, Unary ends with UNAVAILABLE.
"""
import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2_grpc

cancelled = 0
lock = threading.Lock()


def unary(request, context):
    if "busy" in sys.argv:
        # Nothing was said yet, so the answer is a head that ends the stream.
        context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
    context.set_trailing_metadata([("x-trailer", "from the server"), ("x-bin-bin", b"\x00\xff")])
    return request


def server_stream(request, _):
    for _ in range(3):
        yield request


def client_stream(requests, _):
    return str(sum(len(request) for request in requests)).encode()


def bidi(requests, _):
    yield from requests


def fail(_, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 100 % sure, ä")


def fail_late(request, context):
    yield request
    yield request
    context.abort(grpc.StatusCode.DATA_LOSS, "lost")


def wait(request, context):
    over = threading.Event()

    def end():
        global cancelled
        with lock:
            cancelled += 1
        over.set()

    context.add_callback(end)
    yield request
    over.wait()


def wait_unary(request, context):
    for answer in wait(request, context):
        pass
    return answer


def time_left(_, context):
    left = context.time_remaining()
    return ("none" if left is None or left > 1e8 else str(left)).encode()


def metadata(_, context):
    return repr(sorted((key, value) for key, value in context.invocation_metadata())).encode()


def compressed(request, context):
    context.set_compression(grpc.Compression.Gzip)
    return request


def sum_cancelled(*_):
    return str(cancelled).encode()


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
    "WaitUnary": grpc.unary_unary_rpc_method_handler(wait_unary),
    "TimeLeft": grpc.unary_unary_rpc_method_handler(time_left),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "Cancelled": grpc.unary_unary_rpc_method_handler(sum_cancelled),
    "Compressed": grpc.unary_unary_rpc_method_handler(compressed),
}
options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)]
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=options)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", handlers),))
health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(0)
