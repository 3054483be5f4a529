"""A WebSocket client by the `websockets` library. Arguments: what to do, the URL, headers as JSON. Prints one JSON object."""
import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


def opened(url, headers, **options):
    return connect(url, additional_headers=headers, proxy=None, ping_interval=None, max_size=16 << 20, open_timeout=20, **options)


async def exchange(url, headers):
    async with opened(url, headers, subprotocols=["chat.v1", "chat.v0"]) as socket:
        told = {
            "subprotocol": socket.subprotocol,
            "extensions": socket.response.headers.get_all("sec-websocket-extensions"),
            "echoed": [],
        }
        for message in ["hello", "", b"\0\r\n\r\nGET / HTTP/1.1\r\n\r\n", "ä" * 100, "text " * 838_861, bytes(range(256)) * 16_384]:
            await socket.send(message)
            told["echoed"].append(await socket.recv() == message)
        await socket.send(["three ", "fragments ", "of one"])
        told["echoed"].append(await socket.recv() == "three fragments of one")
        await (await socket.ping(b"from the client"))
        told["pong"] = True
        await socket.close(4001, "done")
        told["close"] = [socket.close_code, socket.close_reason]
    return told


async def facts(url, headers):
    async with opened(url, headers) as socket:
        return {"facts": json.loads(await socket.recv()), "pong": await socket.recv()}


async def stay(url, headers, busy=False):
    """Stays until the other side ends it."""
    async with opened(url, headers) as socket:
        count = 0
        try:
            if busy:
                await socket.send("begin")
            while True:
                await socket.recv()
                count += 1
        except ConnectionClosed as closed:
            frame = closed.rcvd
            return {"received": count, "close": frame and [frame.code, frame.reason]}


async def talk(url, headers):
    """Likewise, and is never silent."""
    async with opened(url, headers) as socket:
        count = 0
        try:
            while True:
                await socket.send("again")
                await socket.recv()
                count += 1
        except ConnectionClosed as closed:
            frame = closed.rcvd
            return {"received": count, "close": frame and [frame.code, frame.reason]}


async def busy(url, headers):
    return await stay(url, headers, busy=True)


async def main():
    what, url, headers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    try:
        told = await globals()[what](url, headers)
    except InvalidStatus as refused:
        response = refused.response
        told = {"status": response.status_code, "problem": json.loads(response.body)}
    print(json.dumps(told))


asyncio.run(main())
