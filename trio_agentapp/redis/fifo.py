"""The calls of one connection in order: those to be sent, and those that wait for their replies. No I/O."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import trio

from .errors import LinkDown, LinkError, ServerChanged

__all__ = ["Request", "RequestFIFO"]

MAX_BATCH = 262_144
"""Bytes of one batch. A call that is not in a batch yet can still be withdrawn, or be sent to another server."""


class Request:
    """One call or pipeline of one task. It gets `count` replies."""

    __slots__ = (
        "count",
        "done",
        "failure",
        "only_on",
        "payload",
        "replies",
        "task",
        "timeout",
        "written",
    )

    def __init__(self, payload: bytes, count: int, only_on: str | None, timeout: float) -> None:
        self.payload = payload
        self.count = count
        self.only_on = only_on
        self.timeout = timeout
        self.replies: list[Any] = []
        self.failure: LinkError | None = None
        self.written = False
        self.done = False
        """Whether the request was answered, has failed or was given up, so that no task waits for it."""
        self.task = trio.lowlevel.current_task()


class RequestFIFO:
    """Matches replies with calls: the server answers in the order of the calls.

    A call that was given up keeps its place until its reply comes. Otherwise the next call would get that reply.
    """

    def __init__(self) -> None:
        # A dict, so that a request that is withdrawn can be removed from the middle.
        self._outbox: OrderedDict[Request, None] = OrderedDict()
        self._in_flight: deque[Request] = deque()
        self.load = 0
        """Replies that are still due, including those of calls that were given up: they take memory, too."""

    def add(self, request: Request) -> None:
        self._outbox[request] = None
        self.load += request.count

    def abandon(self, request: Request) -> None:
        """Give up a request whose caller was cancelled: do not send it, or drop its reply."""
        request.done = True
        if not request.written and self._outbox.pop(request, request) is None:
            self.load -= request.count

    def expire(self, request: Request, failure: LinkError) -> None:
        """Raise `failure` in the task of a request that has timed out."""
        self.abandon(request)
        request.failure = failure
        trio.lowlevel.reschedule(request.task)

    def take(self, run_id: str | None) -> bytes:
        """Return the next batch to send, empty if there is none. Its requests count as sent from now on.

        `run_id` is that of the connected server. A request for another server fails.
        """
        payloads: list[bytes] = []
        size = 0
        while self._outbox and size < MAX_BATCH:
            request, _ = self._outbox.popitem(last=False)
            if request.only_on is not None and request.only_on != run_id:
                self._fail(request, ServerChanged("The connection leads to another server now; nothing was sent."))
                continue
            request.written = True
            self._in_flight.append(request)
            payloads.append(request.payload)
            size += len(request.payload)
        return b"".join(payloads)

    def answer(self, reply: Any) -> None:
        """Pass `reply` to the oldest call.

        Raises LinkDown if no call waits, since replies cannot be matched any more.
        """
        try:
            request = self._in_flight[0]
        except IndexError:
            raise LinkDown("the server sent a reply without a call") from None
        request.replies.append(reply)
        if len(request.replies) == request.count:
            self._in_flight.popleft()
            self.load -= request.count
            if not request.done:
                request.done = True
                trio.lowlevel.reschedule(request.task)

    def fail_in_flight(self, kind: type[LinkError], message: str) -> None:
        """Fail all calls that were sent, because the connection is lost."""
        while self._in_flight:
            self._fail(self._in_flight.popleft(), kind(message, maybe_executed=True))

    def fail_unwritten(self, kind: type[LinkError], message: str) -> None:
        """Fail all calls that were not sent."""
        while self._outbox:
            self._fail(self._outbox.popitem(last=False)[0], kind(message, maybe_executed=False))

    def _fail(self, request: Request, failure: LinkError) -> None:
        self.load -= request.count
        if not request.done:
            request.done = True
            request.failure = failure
            trio.lowlevel.reschedule(request.task)
