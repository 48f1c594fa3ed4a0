"""A load client in a separate process: raw sockets on one epoll, so that it needs less CPU than the server.

    python bench/client.py http://127.0.0.1:8090 --model slow --rate 20 --count 100 --chats 500 --ramp 2

Each chat has a connection of its own, opened when the chat starts (one that waits for its first request runs
into the server's keep-alive timer) and closed after the last byte of the answer. Of every event the client
checks the number, of every chat the terminal status; it prints one JSON object, its own CPU time included.
"""

import argparse
import errno
import json
import re
import resource
import select
import socket
import sys
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from urllib.parse import urlsplit

DELTA = b'"delta":true'
MADE = re.compile(rb"\"text\":\"token @([0-9.]+) \"}$")
"""Finds the time stamp of a delta. The final events, which repeat it, do not match."""

ONE_READ = 256 * 1024


class Chat:
    """One request, and its response as far as it has arrived."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.began = 0.0
        self.ended = 0.0
        self.deltas = array("d")
        """When each delta arrived."""
        self.delays = array("d")
        """The time from the handler to the client, for each stamped delta."""
        self.events = 0
        self.problem: str | None = None
        self._in_head = True
        self._wire = bytearray()
        self._text = b""
        self._last = b""

    def connect(self, address: tuple[str, int]) -> None:
        self.began = time.perf_counter()
        error = self.socket.connect_ex(address)
        if error not in (0, errno.EINPROGRESS):
            self.end(f"cannot connect: {errno.errorcode[error]}")

    def ask(self, request: bytes) -> None:
        """Handle a writable socket: the connection was made or has failed."""
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.end(f"cannot connect: {errno.errorcode[error]}")
        else:
            self.socket.sendall(request)

    def read(self) -> None:
        try:
            data = self.socket.recv(ONE_READ)
        except OSError as error:
            self.end(f"connection lost: {error.strerror}")
            return
        now = time.perf_counter()
        if not data:
            self.end("the answer ends too early")
            return
        self._wire += data
        if self._in_head:
            self._head()
        if not self._in_head and not self.ended:
            finished = self._chunks()
            self._frames(now)
            if finished and not self.ended:
                self.end(self._verdict())

    def _head(self) -> None:
        head, separator, rest = self._wire.partition(b"\r\n\r\n")
        if not separator:
            return
        status = head.split(b"\r\n", 1)[0].decode()
        if " 200" not in status:
            self.end(f"answered {status}")
        elif b"transfer-encoding: chunked" not in head.lower():
            self.end("the answer is not chunked")
        self._in_head = False
        self._wire = rest

    def _chunks(self) -> bool:
        """Move the content of whole chunks to the text; True after the last one."""
        wire, at = self._wire, 0
        parts = [self._text]
        finished = False
        while not finished and (line := wire.find(b"\r\n", at)) != -1:
            start = line + 2
            stop = start + int(wire[at:line], 16)
            if len(wire) < stop + 2:
                break
            parts.append(bytes(wire[start:stop]))
            finished = start == stop
            at = stop + 2
        del wire[:at]
        self._text = b"".join(parts)
        return finished

    def _frames(self, now: float) -> None:
        *frames, self._text = self._text.split(b"\n\n")
        for frame in frames:
            number = self.events
            if frame.startswith(b'id: %d\ndata: {"sequence_number":%d,' % (number, number)):
                self.events += 1
                self._last = frame
                if DELTA in frame:
                    self.deltas.append(now)
                    if made := MADE.search(frame):
                        self.delays.append(now - float(made[1]))
            elif b"data:" in frame:
                self.end(f"event {number} expected, not {frame[:40]!r}")
                return

    def _verdict(self) -> str | None:
        if not self._last:
            return "no event at all"
        event = json.loads(self._last.partition(b"data: ")[2])
        if event["object"] == "response" and event["status"] == "completed":
            return None
        return f"ended by {event['object']} {event['status']}: {event.get('error')}"

    def end(self, problem: str | None) -> None:
        self.ended = time.perf_counter()
        self.problem = problem
        self.socket.close()


class Load:
    """Chats of one kind, started one after the other over `ramp` seconds."""

    def __init__(self, options: argparse.Namespace) -> None:
        url = urlsplit(options.url)
        self.options = options
        self.address = (url.hostname or "127.0.0.1", url.port or 80)
        body = {"input": [{"role": "user", "content": "x"}], "model": options.model}
        body |= {"rate": options.rate, "count": options.count}
        encoded = json.dumps(body).encode()
        self.request = (
            b"POST /process HTTP/1.1\r\nhost: %b\r\naccept: text/event-stream\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (url.netloc.encode(), len(encoded), encoded)
        )
        self.chats: list[Chat] = []

    def run(self) -> None:
        for _ in range(self.options.rounds):
            with select.epoll() as epoll:
                self._round(epoll)

    def _round(self, epoll: select.epoll) -> None:
        options = self.options
        began = time.perf_counter()
        deadline = began + options.deadline
        starts = [began + i * options.ramp / options.chats for i in reversed(range(options.chats))]
        live: dict[int, Chat] = {}
        holding = False
        while starts or live:
            now = time.perf_counter()
            if now > deadline:
                break
            while starts and starts[-1] <= now:
                starts.pop()
                self._start(epoll, live)
            for descriptor, event in epoll.poll((starts[-1] if starts else deadline) - now):
                chat = live.get(descriptor)
                if chat is None:  # standard input was closed: end the held chats
                    return self._end(live, None)
                if event & select.EPOLLOUT:
                    chat.ask(self.request)
                    if not chat.ended:
                        epoll.modify(descriptor, select.EPOLLIN)
                else:
                    chat.read()
                if chat.ended:
                    del live[descriptor]
            if options.hold and not holding and not starts and all(chat.deltas for chat in live.values()):
                holding = True
                print(json.dumps({"holding": len(live)}), flush=True)
                epoll.register(sys.stdin, select.EPOLLIN)
        return self._end(live, f"still open after {options.deadline:.0f} s")

    def _start(self, epoll: select.epoll, live: dict[int, Chat]) -> None:
        chat = Chat()
        self.chats.append(chat)
        chat.connect(self.address)
        if not chat.ended:
            live[chat.socket.fileno()] = chat
            epoll.register(chat.socket, select.EPOLLOUT)

    def _end(self, live: dict[int, Chat], problem: str | None) -> None:
        for chat in live.values():
            chat.end(problem)

    def report(self) -> dict[str, object]:
        good = [chat for chat in self.chats if chat.problem is None]
        pause = 1 / self.options.rate
        late = [(after - before - pause) * 1000 for chat in self.chats for before, after in pairwise(chat.deltas)]
        firsts = [(chat.deltas[0] - chat.began) * 1000 for chat in self.chats if chat.deltas]
        return {
            "chats": len(self.chats),
            "completed": len(good),
            "problems": Counter(chat.problem for chat in self.chats if chat.problem is not None),
            "events": sum(chat.events for chat in self.chats),
            "gap_late_ms": spread(late),
            "delay_ms": spread([1000 * delay for chat in self.chats for delay in chat.delays]),
            "first_delta_ms": spread(firsts),
            "chat_s": spread([chat.ended - chat.began for chat in good]),
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum; empty when there are no values."""
    ordered = sorted(values)
    ranks = {"p50": 0.50, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[ceil(rank * len(ordered)) - 1], 3) for name, rank in ranks.items() if ordered}


def raise_limit_of_open_files() -> None:
    """Raise the limit of open files as far as allowed: each chat needs one here and one in the server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--model", required=True, help="the kind of chat, see agents.py")
    parser.add_argument("--rate", type=float, default=20.0, help="deltas per second of a slow chat")
    parser.add_argument("--count", type=int, default=100, help="deltas of a chat")
    parser.add_argument("--chats", type=int, default=1)
    parser.add_argument("--ramp", type=float, default=0.0, help="seconds over which the chats start")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of it, one after the other")
    parser.add_argument("--hold", action="store_true", help="keep the chats open until standard input ends")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds for one round")
    raise_limit_of_open_files()
    load = Load(parser.parse_args())
    wall, cpu = time.perf_counter(), time.process_time()
    load.run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps(load.report() | {"client_cpu_s": round(cpu, 3), "wall_s": round(wall, 3)}))


if __name__ == "__main__":
    main()
