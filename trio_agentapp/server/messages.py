"""ASGI messages to a request: the parts of its body, and the disconnect of its client.

ASGI lets an app wait for them, which needs a task for each request. This server passes them to a function of the
request instead, in the task that reads from the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.typing import AppWrapper, ASGIReceiveCallable, ASGIReceiveEvent, ASGISendEvent, HTTPScope, Scope

from .extensions import MESSAGES, add_extension, extension

__all__ = ["Listener", "Messages", "RequestGroup", "messages_of"]


class Listener(Protocol):
    """Receives the messages of a request by calls, without a task. Its methods neither block nor raise."""

    def take(self, message: ASGIReceiveEvent) -> None:
        """Called with each message, in the order in which they arrive."""

    def shut_down(self) -> None:
        """Called when the server cancels the request, which may be shielded."""


class Messages:
    """The messages to one request, in order. They are kept until a listener is set or `receive` returns them."""

    __slots__ = ("_at_most", "_changed", "_kept", "_listener")

    def __init__(self, at_most: int) -> None:
        """`at_most`: the number of messages that are kept. Beyond it, `put` waits."""
        self._at_most = at_most
        self._kept: list[ASGIReceiveEvent] = []
        self._changed: trio.Event | None = None
        self._listener: Listener | None = None

    async def put(self, message: ASGIReceiveEvent) -> None:
        while self._listener is None and len(self._kept) >= self._at_most:
            await self._wait_changed()
        if self._listener is not None:
            self._listener.take(message)
        else:
            self._kept.append(message)
            self._note_change()

    async def receive(self) -> ASGIReceiveEvent:
        """The `receive` of ASGI."""
        await trio.lowlevel.checkpoint()
        while not self._kept:
            await self._wait_changed()
        message = self._kept.pop(0)
        self._note_change()
        return message

    def pass_to(self, listener: Listener) -> None:
        """Call `listener.take` with each message: with those that have arrived, and with all further ones."""
        self._listener = listener
        while self._kept:
            listener.take(self._kept.pop(0))
        self._note_change()

    def close(self) -> None:
        """Drop the listener and all further messages, because the request has ended."""
        self.pass_to(_NOBODY)

    def shut_down(self) -> None:
        """Report to the listener that the request is cancelled. A listener has no task that would notice."""
        if self._listener is not None:
            self._listener.shut_down()

    async def _wait_changed(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def _note_change(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class _Nobody:
    """The listener of a request that has ended."""

    def take(self, message: ASGIReceiveEvent) -> None:
        pass

    def shut_down(self) -> None:
        pass


_NOBODY = _Nobody()


class RequestGroup(TaskGroup):
    """The tasks of a connection. HTTP requests get `Messages` in place of a channel."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        if scope["type"] != "http":
            return await super().spawn_app(app, config, scope, send)
        messages = Messages(config.max_app_queue_size)
        add_extension(scope, MESSAGES, messages)
        self.spawn(
            _handle, app, config, scope, messages.receive, send, trio.to_thread.run_sync, trio.from_thread.run
        )
        return messages.put


def messages_of(scope: HTTPScope, receive: ASGIReceiveCallable) -> Messages | None:
    """Return the messages of a request; None if the server offers none, or if middleware may change them."""
    messages: Messages | None = extension(scope, MESSAGES)
    return messages if messages is not None and messages.receive == receive else None
