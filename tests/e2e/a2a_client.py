"""Calls agents by A2A, as a client that sees every byte; it knows no more than the specification."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .harness import Answer, Client, Server, fresh

OLD = "0.3"
NEW = "1.0"


def saying(text: str, version: str = NEW, **fields: Any) -> dict[str, Any]:
    """A message of the user."""
    part = {"text": text} if version == NEW else {"kind": "text", "text": text}
    role = "ROLE_USER" if version == NEW else "user"
    return {"messageId": fresh("m"), "role": role, "parts": [part], **fields}


def headers_of(version: str, **headers: str) -> dict[str, str]:
    return {"A2A-Version": version, **{name.replace("_", "-"): value for name, value in headers.items()}}


async def rpc(
    server: Server, method: str, params: Any = None, version: str = NEW, path: str = "/a2a", **headers: str
) -> Answer:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {} if params is None else params}
    return await server.call("POST", path, body, headers=headers_of(version, **headers))


async def result(server: Server, method: str, params: Any = None, version: str = NEW, **options: str) -> Any:
    answer = await rpc(server, method, params, version, **options)
    body = answer.json()
    assert answer.status == 200, answer
    assert body["jsonrpc"] == "2.0"
    assert body["id"] == 7
    assert "error" not in body, body
    return body["result"]


async def error(server: Server, method: str, params: Any = None, version: str = NEW, **options: str) -> Any:
    answer = await rpc(server, method, params, version, **options)
    body = answer.json()
    assert "result" not in body, body
    details = body["error"]["data"]
    assert details[0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    return body["error"]


async def send(server: Server, text: str, version: str = NEW, **fields: Any) -> Any:
    """Send a message, and return the task or message."""
    configuration = {"configuration": fields.pop("configuration")} if "configuration" in fields else {}
    params = {"message": saying(text, version, **fields), **configuration}
    found = await result(server, "SendMessage" if version == NEW else "message/send", params, version)
    if version == NEW:
        [(_, found)] = found.items()
    return found


def text_of(task: dict[str, Any]) -> str:
    return "".join(part["text"] for artifact in task["artifacts"] for part in artifact["parts"])


class Frames:
    """The items of one stream, as they come."""

    def __init__(self, client: Client, enveloped: bool) -> None:
        self.client = client
        self.enveloped = enveloped
        self.seen: list[dict[str, Any]] = []
        self._buffer = b""
        self._ready: list[dict[str, Any]] = []
        self._begun = False

    async def next(self) -> dict[str, Any] | None:
        """The next item; None at the end."""
        if not self._begun:
            head = await self.client.head()
            assert head.status == 200, head
            assert (head.header("content-type") or "").startswith("text/event-stream"), head
            self._begun = True
        while not self._ready:
            piece = await self.client.data()
            if not piece:
                assert self._buffer == b"", self._buffer
                return None
            self._buffer += piece
            *frames, self._buffer = self._buffer.split(b"\n\n")
            self._ready = [self._item(frame) for frame in frames if frame and not frame.startswith(b":")]
        item = self._ready.pop(0)
        self.seen.append(item)
        return item

    def _item(self, frame: bytes) -> dict[str, Any]:
        assert frame.startswith(b"data: "), frame
        assert b"\n" not in frame, frame
        item: dict[str, Any] = json.loads(frame[6:])
        if self.enveloped:
            assert item["jsonrpc"] == "2.0"
            assert item["id"] == 7
            assert "error" not in item, item
            item = item["result"]
        return item

    async def until(self, condition: Any) -> dict[str, Any]:
        with self.client.server.deadline(15, "item"):
            while (item := await self.next()) is not None:
                if condition(item):
                    return item
        raise AssertionError(f"the stream has ended: {self.seen}")

    async def all(self) -> list[dict[str, Any]]:
        with self.client.server.deadline(15, "end of the stream"):
            while await self.next() is not None:
                pass
        return self.seen


@asynccontextmanager
async def streaming(
    server: Server, method: str, params: Any, version: str = NEW, **headers: str
) -> AsyncIterator[Frames]:
    async with server.connect() as client:
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        await client.send("POST", "/a2a", body, headers=headers_of(version, **headers))
        yield Frames(client, True)


def says(text: str) -> Any:
    """Whether an item of a stream of 1.0 has this text in an artifact."""
    return lambda item: any(
        part.get("text") == text for part in item.get("artifactUpdate", {}).get("artifact", {}).get("parts", ())
    )
