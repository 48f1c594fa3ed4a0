"""`POST /ag-ui`: runs an agent for an AG-UI client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from quart import Response
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException

from ...errors import ConfigurationError, RequestError, RunNotFound
from ...protocol.message import latest_turn
from ...server.problems import described, headers_of
from ...web.identity import Caller
from ...web.parameters import read_object
from ...web.protocol_adapter import ProtocolAdapter, WireRoute
from ...web.responses import json_response
from ..questions import Answered, hooks_of, resume
from .frames import AGUIFrames, run_error
from .request import derived_id, read_input

__all__ = ["AGUIAdaptorConfig", "AGUIAdapter"]


@attrs.frozen
class AGUIAdaptorConfig:
    """Where the AG-UI route is, for `AgentApp(agui_config=...)`."""

    route_path: str = "/ag-ui"


def _route_in(config: Any) -> str:
    if isinstance(config, Mapping):
        if unknown := [*config.keys() - {"route_path"}]:
            raise ConfigurationError(f"agui_config has an unknown setting {unknown[0]!r:.80}; known: route_path")
        return str(config.get("route_path", AGUIAdaptorConfig().route_path))
    if not isinstance(getattr(config, "route_path", None), str):
        raise ConfigurationError(
            f"agui_config must be AGUIAdaptorConfig(route_path=...) or a dict, not {type(config).__name__}"
        )
    return str(config.route_path)


class AGUIAdapter(ProtocolAdapter):
    """Speaks AG-UI 1.0. A thread is a session, and a client that hangs up stops its run.

    Args:
        route_path: the path of its route.
        messages_snapshot: send the whole conversation again at the end of each run (MESSAGES_SNAPSHOT). It is
            always sent to a client that has lost events.
        config: the `agui_config` of the product that this one replaces: an object or a dict with `route_path`.
        max_concurrent_requests: accepted, and not needed: an app has one limit for all of its runs.
    """

    name = "AG-UI"

    def __init__(
        self,
        *,
        route_path: str = "/ag-ui",
        messages_snapshot: bool = False,
        config: Any = None,
        max_concurrent_requests: int | None = None,  # noqa: ARG002  of the replaced product
    ) -> None:
        if config is not None:
            route_path = _route_in(config)
        if not route_path.startswith("/"):
            raise ConfigurationError(f"route_path must be a path such as '/ag-ui', not {route_path!r:.80}")
        self.route_path = route_path
        self._messages_snapshot = messages_snapshot

    def routes(self) -> Sequence[WireRoute]:
        return [("POST", self.route_path, self.run)]

    async def run(self, request: Request) -> Response:
        """Start a run, or give a waiting one its answers, and stream what follows."""
        try:
            return await self._run(request)
        except (RequestError, HTTPException) as error:
            # AG-UI has no form for refusals. Its clients show the body.
            status, code, _, text = described(error)
            response = json_response(run_error(text, code), status)
            response.headers.update(headers_of(error))
            return response

    async def _run(self, request: Request) -> Response:
        await self.app.access.gate.identify(request)
        asked = read_input(await read_object(request))
        caller = await self.caller(request, user_id=asked.user_id)
        if asked.request.id is None:
            asked.request.id = derived_id(caller.user_id, asked.thread_id, asked.run_id)
        if await self._goes_on(caller, asked.answers):
            watched = await resume(request, self.app.access, caller, asked.answers)
        else:
            watched = await self.app.access.start(caller, asked.request)
            if watched.run is not None:
                # The request repeats the whole conversation, and the history of the session has the rest.
                watched.run.asked = latest_turn(asked.request.input)
        frames = AGUIFrames(
            thread_id=asked.thread_id,
            client_run_id=asked.run_id,
            run_id=watched.run_id,
            parent_run_id=asked.parent_run_id,
            asked=asked.messages,
            snapshot_always=self._messages_snapshot,
            gives_up=any(each.gives_up for each in asked.answers),
            **hooks_of(watched.run),
        )
        return self.stream(request, watched, frames)

    async def _goes_on(self, caller: Caller, answers: Sequence[Answered]) -> bool:
        """Whether a request goes on with the run that has asked.

        A client that gives up a question whose run has ended, meanwhile or long ago, wants a new run.
        """
        if not answers or not all(each.refused for each in answers):
            return bool(answers)
        try:
            known = await self.app.access.look(caller, answers[0].question.run_id)
        except RunNotFound:
            return False
        return not known.as_record.state.terminal
