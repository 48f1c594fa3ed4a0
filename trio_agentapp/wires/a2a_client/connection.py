"""An agent that can be called: its card, its binding, and the operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import trio

from ...errors import ConnectionLost
from ...protocol.ids import new_message_id
from ...protocol.message import Message
from ...redis.backoff import Backoff
from .bindings import Operation, binding_of
from .caller import TIMEOUT_HEADER, remaining, trace_headers
from .card import Interface
from .decoding import event_of, task_of
from .http import MAYBE, Http, Results, StreamBroken, was_sent
from .parts import part_of_content
from .task import A2ATask, TaskSnapshot

__all__ = ["Connection", "Send"]

Send: TypeAlias = Callable[[list[Any]], Awaitable[object]]
"""Passes results on."""

POLL = Backoff(first=0.2, last=2.0)
"""How often an agent that does not stream is asked for its task."""


class Connection:
    """Calls one agent over one of the interfaces (URL, binding and version) that its card names.

    Args:
        nursery: the owner of the tasks that read streams.
        extensions: URIs of the extensions of A2A that the client asks for.
    """

    def __init__(
        self,
        http: Http,
        nursery: trio.Nursery,
        card: Mapping[str, Any],
        interface: Interface,
        extensions: Sequence[str],
    ) -> None:
        self.card = card
        self.interface = interface
        self.name = str(card.get("name") or interface.url)
        capabilities = card.get("capabilities")
        self.streams = isinstance(capabilities, dict) and capabilities.get("streaming") is True
        self.old = interface.version == "0.3"
        self._http = http
        self._nursery = nursery
        self._binding = binding_of(interface)
        self._headers = {"A2A-Version": interface.version}
        if extensions:
            self._headers["X-A2A-Extensions" if self.old else "A2A-Extensions"] = ", ".join(extensions)
        self._open: set[Results] = set()

    def begin(self, params: Mapping[str, Any], timeout: float | None) -> Results:
        """Send a message. The results are those of its stream; without streaming, the task is asked for."""
        return self._follow("stream" if self.streams else "send", params, timeout)

    def subscribe(self, id: str) -> Results:
        """Follow a task. The first result is the task."""
        return self._follow("subscribe" if self.streams else "get", {"id": id}, None)

    async def get(self, id: str, *, history_length: int | None = None) -> A2ATask:
        return task_of(await self.ask("get", _given({"id": id, "historyLength": history_length})))

    async def cancel(self, id: str, *, metadata: Mapping[str, Any] | None = None) -> A2ATask:
        return task_of(await self.ask("cancel", _given({"id": id, "metadata": metadata})))

    async def ask(self, operation: Operation, params: Mapping[str, Any]) -> Any:
        """Return the result of an operation that has one answer."""
        return await self._result(operation, params, self._told(None))

    def message_params(
        self,
        message: Message,
        *,
        task_id: str | None,
        context_id: str | None,
        metadata: Mapping[str, Any] | None,
        output_modes: Sequence[str] | None,
        timeout: float | None,
    ) -> dict[str, Any]:
        """Return the parameters that send a message. Raises ItemError: it has a part that cannot be sent."""
        sent: dict[str, Any] = {
            "messageId": message.id or new_message_id(),
            "role": "user" if self.old else "ROLE_USER",
            "parts": [part_of_content(part, old=self.old) for part in message.content],
            "contextId": context_id,
            "taskId": task_id,
            "metadata": None if message.metadata is None else dict(message.metadata),
            "kind": "message" if self.old else None,
        }
        configuration: dict[str, Any] = {
            "acceptedOutputModes": None if output_modes is None else list(output_modes)
        }
        if not self.streams:
            # The answer comes at once and names the task, so that the task can be canceled.
            configuration |= {"blocking": False} if self.old else {"returnImmediately": True}
        told = dict(metadata or {})
        if (seconds := remaining(timeout)) is not None:
            told.setdefault("timeout_s", round(seconds, 3))
        params = {"message": _given(sent), "configuration": _given(configuration), "metadata": told}
        return {name: value for name, value in params.items() if value}

    async def aclose(self) -> None:
        """End all tasks that read."""
        for results in list(self._open):
            await results.aclose()

    def _follow(self, operation: Operation, params: Mapping[str, Any], timeout: float | None) -> Results:
        headers = self._told(timeout)
        results = Results()
        self._open.add(results)

        async def read(send: Send) -> None:
            if self.streams:
                await self._http.stream(self._binding.call(operation, params), headers, self._binding, send)
            else:
                await self._poll(operation, params, headers, send)

        async def fill() -> None:
            try:
                await results.fill(read)
            finally:
                self._open.discard(results)

        self._nursery.start_soon(fill, name=f"results of agent {self.name}")
        return results

    async def _poll(
        self,
        operation: Operation,
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        send: Send,
    ) -> None:
        """Send the task again and again until it is over. A message is sent once."""
        try:
            found = await self._result(operation, params, headers)
            for attempt in range(2**63):
                event = TaskSnapshot(task_of(found)) if operation == "get" else event_of(found)
                await send([{"task": found} if operation == "get" else found])
                if not isinstance(event, TaskSnapshot) or event.task.state.is_over:
                    return
                await trio.sleep(POLL.delay(attempt))
                operation = "get"
                found = await self._result("get", {"id": event.task.id}, headers)
        except ConnectionLost as lost:
            sent = operation == "get" or was_sent(lost.__cause__)
            raise StreamBroken(str(lost).removesuffix(MAYBE), sent=sent) from lost

    async def _result(self, operation: Operation, params: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        call = self._binding.call(operation, params)
        return self._binding.result(await self._http.document(call, headers, self._binding))

    def _told(self, timeout: float | None) -> dict[str, str]:
        """The headers of a call: the version, the trace, and the time that the caller has."""
        headers = self._headers | trace_headers()
        if (seconds := remaining(timeout)) is not None:
            headers[TIMEOUT_HEADER] = f"{seconds:.3f}"
        return headers


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
