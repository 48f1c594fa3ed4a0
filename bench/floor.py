"""The floor under every figure: a bare Trio server that does one `send_all` per event, and nothing else.

It answers the same requests with frames of the same size, so the same client can load it. What it costs on a
machine at a given minute is the unit in which `measure.py` states the cost of the app.
"""

import argparse
import json
import time
from functools import partial

import trio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
FRAME = (
    b'id: %d\ndata: {"sequence_number":%d,"object":"content","status":"in_progress","error":null,'
    b'"type":"text","index":0,"delta":true,"msg_id":"msg_0123456789abcdef0123456789ab","text":"%b"}\n\n'
)
LAST_FRAME = b'id: %d\ndata: {"sequence_number":%d,"object":"response","status":"completed"}\n\n'
END = b"0\r\n\r\n"


def chunk(template: bytes, number: int, *text: bytes) -> bytes:
    frame = template % (number, number, *text)
    return b"%x\r\n%b\r\n" % (len(frame), frame)


async def order(stream: trio.SocketStream) -> dict:
    """The JSON body of the one request of this connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some()
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += await stream.receive_some()
    return json.loads(body)


async def answer(stream: trio.SocketStream) -> None:
    async with stream:
        chat = await order(stream)
        await stream.send_all(HEAD)
        if chat["model"] == "idle":
            await stream.send_all(chunk(FRAME, 0, b"token "))
            await stream.receive_some()  # the end of the connection
            return
        pause = 1 / chat["rate"] if chat["model"] == "slow" else 0
        for number in range(chat["count"]):
            text = b"token "
            if pause:
                await trio.sleep(pause)
                text = b"token @%.6f " % time.perf_counter()
            await stream.send_all(chunk(FRAME, number, text))
        await stream.send_all(chunk(LAST_FRAME, chat["count"]))
        await stream.send_all(END)


async def serve(port: int) -> None:
    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, answer, port, host="127.0.0.1")
        [listener] = await nursery.start(listen)
        port = listener.socket.getsockname()[1]
        print(f"floor is ready on http://127.0.0.1:{port} (Ctrl-C stops it)", flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=0)
    trio.run(serve, arguments.parse_args().port)
