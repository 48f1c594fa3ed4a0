"""The calls of one connection: those not yet written, and those whose reply is to come, in order. No I/O."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import trio

from .errors import LinkDown, LinkError, ServerChanged

__all__ = ["Request", "RequestFIFO"]

MAX_BATCH = 262_144
"""Bytes after which a batch is closed: what waits behind it can still be withdrawn, or go to another server."""


class Request:
    """One call or pipeline: `count` replies for one task."""

    __slots__ = (
        "count",
        "done",
        "failure",
        "only_on",
        "payload",
        "protocol",
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
        self.protocol = 3
        """RESP version of the connection it was written to; the shape of its replies depends on it."""
        self.done = False
        """Nobody waits for it any more: answered, failed or given up."""
        self.task = trio.lowlevel.current_task()


class RequestFIFO:
    """Keeps replies with the calls they answer.

    The server answers in the order it was asked. A call that nobody waits for any more keeps its place, so that its
    reply is dropped and not given to the next one.
    """

    def __init__(self) -> None:
        # Ordered, and a request that is withdrawn before it was written can be taken out of the middle.
        self._outbox: OrderedDict[Request, None] = OrderedDict()
        self._in_flight: deque[Request] = deque()
        self.load = 0
        """Replies that are to come, of withdrawn calls too: they take up memory all the same."""

    @property
    def unwritten(self) -> int:
        return len(self._outbox)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def add(self, request: Request) -> None:
        self._outbox[request] = None
        self.load += request.count

    def abandon(self, request: Request) -> None:
        """The caller is gone: never write the request, or drop its reply."""
        request.done = True
        if not request.written and self._outbox.pop(request, request) is None:
            self.load -= request.count

    def expire(self, request: Request, failure: LinkError) -> None:
        """The call has waited long enough."""
        self.abandon(request)
        request.failure = failure
        trio.lowlevel.reschedule(request.task)

    def take(self, run_id: str | None, protocol: int) -> bytes:
        """The next batch to write; its requests are in flight from now on. Empty: there is none.

        `run_id` is that of the server it goes to, `protocol` its RESP version: requests that are meant for another
        server only are failed.
        """
        payloads: list[bytes] = []
        size = 0
        while self._outbox and size < MAX_BATCH:
            request, _ = self._outbox.popitem(last=False)
            if request.only_on is not None and request.only_on != run_id:
                self._fail(request, ServerChanged("The connection leads to another server now; nothing was sent."))
                continue
            request.written = True
            request.protocol = protocol
            self._in_flight.append(request)
            payloads.append(request.payload)
            size += len(request.payload)
        return b"".join(payloads)

    def answer(self, reply: Any) -> None:
        """Give `reply` to the oldest call in flight. Raises LinkDown if there is none: order is lost then."""
        try:
            request = self._in_flight[0]
        except IndexError:
            raise LinkDown("the server answered a question that was not asked") from None
        request.replies.append(reply)
        if len(request.replies) == request.count:
            self._in_flight.popleft()
            self.load -= request.count
            if not request.done:
                request.done = True
                trio.lowlevel.reschedule(request.task)

    def fail_in_flight(self, kind: type[LinkError], message: str) -> None:
        """The connection is gone, with the replies it owed."""
        while self._in_flight:
            self._fail(self._in_flight.popleft(), kind(message, maybe_executed=True))

    def fail_unwritten(self, kind: type[LinkError], message: str) -> None:
        while self._outbox:
            self._fail(self._outbox.popitem(last=False)[0], kind(message, maybe_executed=False))

    def _fail(self, request: Request, failure: LinkError) -> None:
        self.load -= request.count
        if not request.done:
            request.done = True
            request.failure = failure
            trio.lowlevel.reschedule(request.task)
