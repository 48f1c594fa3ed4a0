"""A second load client, as a user would write it: plain asyncio streams. Its figures check those of `client.py`.

python bench/reader.py http://127.0.0.1:8090 --model slow --rate 20 --count 100 --chats 200 --ramp 2
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from client import Times, arguments, raise_limit_of_open_files, requests_of, run_and_print
from wire import Answer, Events, ProtocolError, request

ONE_READ = 64 * 1024


class Connection:
    """One connection, for one request after the other."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host, self._reader, self._writer = host, reader, writer

    @classmethod
    async def open(cls, url: str) -> Self:
        parts = urlsplit(url)
        return cls(parts.netloc, *await asyncio.open_connection(parts.hostname, parts.port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    def post(self, path: str, body: dict[str, Any]) -> None:
        self.send(request(self._host, path, body))

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def contents(self) -> AsyncIterator[bytes]:
        """The content of one answer, in pieces. Raises ProtocolError, also if the request is refused."""
        answer = Answer()
        while not answer.finished:
            data = await self._reader.read(ONE_READ)
            if not data:
                raise ProtocolError("the answer ends too early")
            content = answer.feed(data)
            if answer.status not in (0, 200):
                raise ProtocolError(f"answered {answer.status}: {content[:200]!r}")
            yield content

    async def content(self) -> bytes:
        return b"".join([part async for part in self.contents()])


async def chat(url: str, request: bytes, times: Times) -> None:
    times.began = time.perf_counter()
    events = Events()
    try:
        async with await Connection.open(url) as connection:
            connection.send(request)
            async for content in connection.contents():
                times.note(events.feed(content), time.perf_counter())
        times.problem = events.verdict()
    except (OSError, ProtocolError) as error:
        times.problem = str(error)
    times.ended = time.perf_counter()


async def run(options: argparse.Namespace) -> Sequence[Times]:
    make = requests_of(options)
    chats = [Times() for _ in range(options.chats)]
    async with asyncio.TaskGroup() as tasks:
        for times in chats:
            tasks.create_task(chat(options.url, make(), times))
            await asyncio.sleep(options.ramp / options.chats)
    return chats


def main() -> None:
    raise_limit_of_open_files()
    options = arguments(__doc__).parse_args()
    run_and_print(lambda: asyncio.run(run(options)), options.rate)


if __name__ == "__main__":
    main()
