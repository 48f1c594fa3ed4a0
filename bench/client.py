"""A load client in a process of its own: raw sockets on one epoll, to cost less than what it measures.

    python bench/client.py http://127.0.0.1:8090 --model slow --rate 20 --count 100 --chats 500 --ramp 2

Each chat has a connection of its own, opened when the chat starts and closed after the last byte of the answer.
With `--kept` the next chat takes the connection over. The client checks the number of every event and the terminal
status of every chat. It prints one JSON object, its own CPU time included.
"""

import argparse
import errno
import json
import resource
import select
import socket
import sys
import time
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil
from urllib.parse import urlsplit

from wire import DELTA, MADE, PROTOCOLS, Answer, ProtocolError, request

ONE_READ = 256 * 1024


class Times:
    """What a client notes of one chat, on the clock that the handlers read too."""

    def __init__(self) -> None:
        self.began = 0.0
        self.first_event = 0.0
        self.ended = 0.0
        self.deltas = array("d")
        """When each delta arrived."""
        self.delays = array("d")
        """How long each stamped delta was on its way."""
        self.events = 0
        self.problem: str | None = None

    def note(self, frames: list[bytes], now: float) -> None:
        if frames and not self.events:
            self.first_event = now
        self.events += len(frames)
        for frame in frames:
            if DELTA in frame:
                self.deltas.append(now)
                if made := MADE.search(frame):
                    self.delays.append(now - float(made[1]))


class Chat:
    """One request and its answer."""

    def __init__(self, request: bytes, connection: socket.socket | None, protocol: str) -> None:
        self.times = Times()
        self.times.began = time.perf_counter()
        self.kept = connection is not None
        self.socket = connection or socket.socket()
        self.socket.setblocking(False)
        self._request = request
        self._answer = Answer()
        _, _, events = PROTOCOLS[protocol]
        self._events = events()

    @property
    def ended(self) -> bool:
        return self.times.ended > 0

    def connect(self, address: tuple[str, int]) -> None:
        error = self.socket.connect_ex(address)
        if error not in (0, errno.EINPROGRESS):
            self.end(f"cannot connect: {errno.errorcode[error]}")

    def ask(self) -> None:
        """The socket is writable: the connection stands, or will not."""
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.end(f"cannot connect: {errno.errorcode[error]}")
            return
        try:
            self.socket.sendall(self._request)
        except OSError as lost:
            self.end(f"connection lost: {lost.strerror}")

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
        try:
            content = self._answer.feed(data)
            if self._answer.status not in (0, 200):
                self.end(f"answered {self._answer.status}")
                return
            self.times.note(self._events.feed(content), now)
        except ProtocolError as error:
            self.end(str(error))
            return
        if self._answer.finished:
            self.end(self._events.verdict())

    def end(self, problem: str | None) -> None:
        self.times.ended = time.perf_counter()
        self.times.problem = problem


class Load:
    """Chats of one kind, started over `ramp` seconds, with at most `parallel` at a time."""

    def __init__(self, options: argparse.Namespace) -> None:
        url = urlsplit(options.url)
        self.options = options
        self.address = (url.hostname or "127.0.0.1", url.port or 80)
        self.requests = requests_of(options)
        self.chats: list[Times] = []

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
            while starts and starts[-1] <= now and len(live) < options.parallel:
                starts.pop()
                self._start(epoll, live)
            wake = starts[-1] if starts and len(live) < options.parallel else deadline
            for descriptor, event in epoll.poll(max(0, wake - now)):
                chat = live.get(descriptor)
                if chat is None:  # standard input: the end of the holding
                    return self._end(live, None)
                if event & select.EPOLLOUT:
                    chat.ask()
                    if not chat.ended:
                        epoll.modify(descriptor, select.EPOLLIN)
                else:
                    chat.read()
                if chat.ended:
                    self._leave(epoll, live, descriptor, starts)
            if options.hold and not holding and not starts and all(chat.times.deltas for chat in live.values()):
                holding = True
                print(json.dumps({"holding": len(live)}), flush=True)
                epoll.register(sys.stdin, select.EPOLLIN)
        return self._end(live, f"still open after {options.deadline:.0f} s")

    def _leave(self, epoll: select.epoll, live: dict[int, Chat], descriptor: int, starts: list[float]) -> None:
        """A chat has ended: close its connection, or give it to the next chat."""
        chat = live.pop(descriptor)
        if self.options.kept and starts and chat.times.problem is None:
            starts.pop()
            self._start(epoll, live, chat.socket)
        else:
            chat.socket.close()

    def _start(self, epoll: select.epoll, live: dict[int, Chat], kept: socket.socket | None = None) -> None:
        chat = Chat(self.requests(), kept, self.options.protocol)
        self.chats.append(chat.times)
        if kept:
            chat.ask()
        else:
            chat.connect(self.address)
        if chat.ended:
            chat.socket.close()  # takes it out of the epoll, too
            return
        live[chat.socket.fileno()] = chat
        if not kept:
            epoll.register(chat.socket, select.EPOLLOUT)

    def _end(self, live: dict[int, Chat], problem: str | None) -> None:
        for chat in live.values():
            chat.end(problem)
            chat.socket.close()


def requests_of(options: argparse.Namespace) -> Callable[[], bytes]:
    """Makes the requests of this process: each has a session of its own."""
    name, number = uuid.uuid4().hex[:12], 0
    host = urlsplit(options.url).netloc

    def make() -> bytes:
        nonlocal number
        number += 1
        path, body_of, _ = PROTOCOLS[options.protocol]
        return request(host, path, body_of(f"{name}-{number}", options.model, options.rate, options.count))

    return make


def report(chats: Sequence[Times], rate: float) -> dict[str, object]:
    good = [chat for chat in chats if chat.problem is None]
    pause = 1 / rate
    late = [1000 * (after - before - pause) for chat in chats for before, after in pairwise(chat.deltas)]
    return {
        "chats": len(chats),
        "completed": len(good),
        "problems": Counter(chat.problem for chat in chats if chat.problem is not None),
        "events": sum(chat.events for chat in chats),
        "gap_late_ms": spread(late),
        "delay_ms": spread([1000 * delay for chat in chats for delay in chat.delays]),
        "first_event_ms": spread([1000 * (chat.first_event - chat.began) for chat in chats if chat.events]),
        "first_delta_ms": spread([1000 * (chat.deltas[0] - chat.began) for chat in chats if chat.deltas]),
        "chat_s": spread([chat.ended - chat.began for chat in good]),
        "all_s": round(max(chat.ended for chat in chats) - min(chat.began for chat in chats), 3),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum; empty when there are no values."""
    ordered = sorted(values)
    ranks = {"p50": 0.50, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[ceil(rank * len(ordered)) - 1], 3) for name, rank in ranks.items() if ordered}


def raise_limit_of_open_files() -> None:
    """As far as allowed: every chat is a connection here and one in the server, which inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--model", required=True, help="the kind of chat, see measured.py")
    parser.add_argument("--rate", type=float, default=20.0, help="deltas per second of a slow chat")
    parser.add_argument("--count", type=int, default=100, help="deltas of a chat")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="process")
    parser.add_argument("--chats", type=int, default=1)
    parser.add_argument("--ramp", type=float, default=0.0, help="seconds over which the chats start")
    return parser


def run_and_print(run: Callable[[], Sequence[Times]], rate: float) -> None:
    """Print the report with the CPU time and the seconds that `run` took in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    chats = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps(report(chats, rate) | {"client_cpu_s": round(cpu, 3), "wall_s": round(wall, 3)}))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--parallel", type=int, default=sys.maxsize, help="chats at a time")
    parser.add_argument("--kept", action="store_true", help="the next chat takes over the connection")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of it, one after the other")
    parser.add_argument("--hold", action="store_true", help="keep the chats open until standard input ends")
    parser.add_argument("--deadline", type=float, default=120.0, help="seconds for one round")
    raise_limit_of_open_files()
    options = parser.parse_args()
    load = Load(options)

    def run() -> Sequence[Times]:
        load.run()
        return load.chats

    run_and_print(run, options.rate)


if __name__ == "__main__":
    main()
