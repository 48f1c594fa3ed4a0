"""What the adapters of both of OpenAI's APIs share: their paths, and how a request starts a run or answers one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from quart import Response
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException

from ...protocol.message import Message
from ...protocol.request import AgentRequest
from ...runs.runner import Watched
from ...web.identity import Caller
from ...web.parameters import idempotency_key
from ...web.protocol_adapter import ProtocolAdapter, WireRoute
from ...web.sse import hold_watch
from .errors import in_their_shape, refusal_of
from .turns import Asked, created_at

__all__ = ["OpenAIAdapter"]

BASES = ("/v1", "/compatible-mode/v1")
"""OpenAI's own path, and the one under which other servers have the same API."""


class OpenAIAdapter(ProtocolAdapter):
    """Serves one of the APIs under every base, with errors in the shape that OpenAI's clients read."""

    def served(self, *routes: tuple[str, str, Callable[..., Awaitable[Response]]]) -> Sequence[WireRoute]:
        """Return routes under every base."""
        return [(method, base + path, in_their_shape(view)) for base in BASES for method, path, view in routes]

    def refusal(self, path: str, error: HTTPException) -> Response | None:
        within = any((path + "/").startswith(base + "/") for base in BASES)
        return refusal_of(error) if within else None

    async def start(self, request: Request, caller: Caller, asked: AgentRequest) -> Watched:
        """Start a run. The response has to read it, or to close it."""
        body = await request.get_data(True, False, False)
        watched = await self.app.access.start(caller, asked, idempotency_key=idempotency_key(request), body=body)
        hold_watch(request, watched.subscriber)
        return watched

    async def answer(
        self, request: Request, caller: Caller, question: Asked, message: Message
    ) -> tuple[Watched, int]:
        """Answer a question. Return its run from the next turn on, and when the run was created."""
        access, run_id = self.app.access, question.turn.run_id
        watched = await access.attach(caller, run_id, question.event.sequence_number)
        assert watched is not None  # noqa: S101  a question is not the last event of its run
        hold_watch(request, watched.subscriber)
        begun = created_at(await access.describe(watched))
        await access.send_input(caller, run_id, message)
        return watched, begun
