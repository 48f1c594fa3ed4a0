"""What clients of other implementations of A2A must see of an app, whatever their language and version."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from . import a2a_cuts as cuts

AGENT = Path(__file__).parents[1] / "e2e" / "agents" / "a2a_agent.py"


class Peer:
    """An app in a process, and a client of another implementation, which is started for each scenario."""

    def __init__(self, served: cuts.Agent, folder: Path, command: list[str], binding: str) -> None:
        self.served = served
        self.folder = folder
        self._command = command
        self._binding = binding

    @property
    def marks(self) -> list[str]:
        """What the handler has written: where it begins, is cancelled and ends."""
        return (self.folder / "marks").read_text().split("\n")

    async def run(self, scenario: str, *arguments: str, url: str | None = None) -> Any:
        return json.loads(await self._output(scenario, *arguments, url=url))

    async def cut(self, proxy: cuts.Proxy, *arguments: str) -> Any:
        """Run the scenario `cut` through the proxy, and cut its connections when the client asks for it."""
        async with self._started("cut", *arguments, url=proxy.url) as (process, lines):
            with trio.fail_after(60):
                assert await anext(lines) == "cut me", process
                proxy.cut()
                return json.loads(await anext(lines))

    async def _output(self, scenario: str, *arguments: str, url: str | None) -> str:
        done = await trio.run_process(
            [*self._command, url or self.served.url, self._binding, scenario, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def _started(self, scenario: str, *arguments: str, url: str) -> Any:
        return _lines([*self._command, url, self._binding, scenario, *arguments])


@asynccontextmanager
async def _lines(command: list[str]) -> AsyncIterator[tuple[trio.Process, AsyncIterator[str]]]:
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        async with aclosing(_split(process.stdout)) as lines:
            yield process, lines
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _split(pipe: Any) -> AsyncGenerator[str, None]:
    rest = b""
    while True:
        piece = await pipe.receive_some()
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode()
        assert piece, "the client has ended"


@asynccontextmanager
async def peer(
    folder: Path, command: list[str], binding: str, *, public: str = "", **env: str
) -> AsyncIterator[Peer]:
    port = cuts.free_port()
    settings = {"FOLDER": str(folder), "PORT": str(port), "PUSH_HOSTS": "127.0.0.1", **env}
    async with cuts.agent(folder, [str(AGENT)], port, **settings) as served:
        yield Peer(served, folder, command, binding)


async def check_card(peer: Peer) -> None:
    assert await peer.run("card") == {"name": "Ada", "streaming": True, "skills": ["do"]}


async def check_send(peer: Peer) -> None:
    seen = await peer.run("send", "say a b c")
    assert (seen["state"], seen["text"]) == ("completed", "a b c ")
    assert seen["task"]
    bare = await peer.run("send", "reply yes")
    assert (bare["task"], bare["said"]) == ("", "bare yes")
    failed = await peer.run("send", "fail")
    assert (failed["state"], failed["text"]) == ("failed", "almost ")
    assert "secret" not in json.dumps(failed)
    assert (await peer.run("send", "reject"))["state"] == "rejected"


async def check_stream(peer: Peer) -> None:
    seen = await peer.run("stream", "say a b c")
    assert (seen["state"], seen["text"]) == ("completed", "a b c ")
    assert seen["kinds"][0] == "task"
    assert seen["kinds"].count("artifact_update") >= 3
    assert seen["kinds"][-1] == "status_update"
    bare = await peer.run("stream", "reply yes")
    assert (bare["kinds"], bare["said"]) == (["message"], "bare yes")


async def check_turns(peer: Peer) -> None:
    for way in ("send", "stream"):
        asked = await peer.run(way, "ask")
        assert (asked["state"], asked["said"]) == ("input-required", "Which colour?")
        told = await peer.run(way, "red", asked["task"], asked["context"])
        assert (told["state"], told["task"]) == ("completed", asked["task"])
        assert "so " in told["text"]
        first = await peer.run(way, "say one")
        second = await peer.run(way, "history", "", first["context"])
        assert (second["context"], second["task"] != first["task"]) == (first["context"], True)


async def check_subscribe(peer: Peer) -> None:
    seen = await peer.run("subscribe", str(peer.folder / "opened"))
    assert seen["before"] == "before "
    assert seen["kinds"][0] == "task"
    assert (seen["state"], seen["text"]) == ("completed", "before after")
    assert "cancelled gate" not in peer.marks


async def check_cut(peer: Peer) -> None:
    async with cuts.proxied(peer.served.port) as proxy:
        seen = await peer.cut(proxy, "200")
    everything = "".join(f"{number} " for number in range(200))
    assert seen["failed"]
    assert len(seen["before"]) < len(everything)
    assert (seen["state"], seen["text"]) == ("completed", everything)


async def check_cancel(peer: Peer) -> None:
    seen = await peer.run("cancel")
    assert (seen["canceled"], seen["state"], seen["got"]) == ("canceled", "canceled", "canceled")
    assert peer.marks.count("cancelled wait") == 1
    assert peer.marks.count("end wait") == 1


async def check_list(peer: Peer) -> None:
    assert await peer.run("list") == {"pages": [2, 1], "total": 3, "mine": ["one "]}


async def check_push(peer: Peer) -> None:
    assert await peer.run("push") == {"tokens": ["sesame"], "kept": True}


async def check_errors(peer: Peer) -> None:
    seen = await peer.run("errors")
    assert seen == {
        "unknown": "TaskNotFound",
        "ended": "TaskNotCancelable",
        "terminal": "UnsupportedOperation",
        "subscribed": "UnsupportedOperation",
    }


CHECKS: dict[str, Callable[[Peer], Awaitable[None]]] = {
    "card": check_card,
    "send": check_send,
    "stream": check_stream,
    "turns": check_turns,
    "subscribe": check_subscribe,
    "cut": check_cut,
    "cancel": check_cancel,
    "list": check_list,
    "push": check_push,
    "errors": check_errors,
}
