"""Starts a run at most once, and attaches to it at the node that has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BackendUnavailable, RequestError, RunNotFound, SessionBusy, ValidationError
from ..protocol.ids import new_run_id
from .failures import ConnectionFailed
from .nodes import Nodes, may_succeed_elsewhere
from .retries import Attempts, Retries
from .subscription import Subscription
from .transport import Transport

__all__ = ["RunOpener"]


class RunOpener:
    """Opens subscriptions. Each call has its own count of attempts."""

    def __init__(self, nodes: Nodes, transport: Transport, retries: Retries) -> None:
        self._nodes = nodes
        self._transport = transport
        self._retries = retries

    async def attach(
        self, run_id: str, after: int, user_id: str | None, *, first: int | None = None
    ) -> Subscription:
        """Attach to a run. Raises RequestError and ConnectionLost, as `Nodes.ask` does."""
        return await self._attach(Attempts(self._retries), run_id, after, user_id, first)

    async def _attach(
        self, attempts: Attempts, run_id: str, after: int, user_id: str | None, first: int | None
    ) -> Subscription:
        return await self._nodes.ask(
            lambda node: self._transport.attach(node, run_id, after, user_id), attempts, first=first
        )

    async def start(self, body: dict[str, Any], *, own_id: bool) -> Subscription:
        """Start a run.

        If the answer to a start is lost, the run may exist. Then the nodes are asked for it first, and it is
        started again only if none knows it. A server refuses a second run with the same id, so there are never two.

        `own_id`: the client made the run id, and may replace it if a server may have used it.
        """
        attempts = Attempts(self._retries)
        in_doubt = False
        while True:
            failure: Exception | None = None
            for node in self._nodes.order():
                try:
                    subscription = await self._transport.start(node, body)
                except ConnectionFailed as failed:
                    failure = failed
                    in_doubt = in_doubt or failed.sent
                    if failed.sent and (found := await self._find(attempts, body, node)) is not None:
                        return found
                except SessionBusy as busy:
                    if busy.active_run_id != body["id"]:
                        raise
                    # Perhaps the session is busy with this run, because an earlier attempt has arrived.
                    failure = busy
                    if (found := await self._find(attempts, body, node)) is not None:
                        return found
                except RequestError as refusal:
                    if in_doubt and isinstance(refusal, ValidationError):
                        # An earlier attempt has arrived after this client looked for the run, and has used the id.
                        return await self._attach(attempts, body["id"], -1, body.get("user_id"), node)
                    if not may_succeed_elsewhere(refusal):
                        raise
                    if isinstance(refusal, BackendUnavailable) and own_id:
                        # Nothing was started, but the backend may have recorded the id (`claim_failed`).
                        body["id"] = new_run_id()
                    failure = refusal
                else:
                    self._nodes.current = node
                    return subscription
            assert failure is not None  # noqa: S101  there is at least one node
            await attempts.pause(failure, self._nodes)

    async def _find(self, attempts: Attempts, body: Mapping[str, Any], node: int) -> Subscription | None:
        try:
            return await self._attach(attempts, body["id"], -1, body.get("user_id"), node)
        except RunNotFound:
            return None
