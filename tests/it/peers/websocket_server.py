"""A WebSocket server by the `websockets` library. Prints its port; ends with its standard input.

/echo gives messages back, /push sends without end, /facts tells about the handshake, /leave closes with 4002.
"""
import asyncio
import json
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def handle(socket):
    path = socket.request.path
    try:
        if path.endswith("/push"):
            while True:
                await socket.send(b"x" * 1000)
                await asyncio.sleep(0.01)
        elif path.endswith("/facts"):
            headers = {name.lower(): value for name, value in socket.request.headers.raw_items()}
            await socket.send(json.dumps({"headers": headers, "subprotocol": socket.subprotocol}))
            pong = await socket.ping(b"from the server")
            await pong
            await socket.send("the pong has come")
        elif path.endswith("/leave"):
            await socket.recv()
            return await socket.close(4002, "enough")
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass


async def main():
    loop = asyncio.get_running_loop()
    def choose(_, offered):
        return next((known for known in ["chat.v2", "chat.v1"] if known in offered), None)

    options = {"select_subprotocol": choose, "max_size": 16 << 20, "ping_interval": None, "close_timeout": 5}
    async with serve(handle, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
