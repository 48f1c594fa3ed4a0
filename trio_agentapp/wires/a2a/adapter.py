"""A2A over the runs of an app: a task is a run, and a context is a session."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import orjson
import trio
from quart import Response
from quart.wrappers import Request

from ...errors import ConfigurationError
from ...nursery import nursery_around
from ...registries import registries_of
from ...web.protocol_adapter import ProtocolAdapter, WireRoute
from ...web.proxies import VARY
from .asked import Asked
from .card import completed_card, written_card
from .config import WELL_KNOWN_PATH, AgentCardWithRuntimeConfig
from .faults import A2AError, kinds
from .jsonrpc import JsonRpcCall
from .listing import TaskListing
from .memory import TaskMemory
from .notifications import Notifications
from .operations import Operations
from .push import PushSender
from .push_configs import PushConfigs
from .rest import ROUTES, RestCall
from .silence import SilenceWatch
from .task_reader import TaskReader

if TYPE_CHECKING:
    from .registration import Registration

__all__ = ["A2AAdapter"]

PATH = "/a2a"
"""Of JSON-RPC."""

OLD_WELL_KNOWN_PATH = "/.well-known/agent.json"
"""Where clients of 0.2 look for the card."""

LAST_DELIVERIES = 3.0
"""Seconds that push notifications may take when the app closes."""

CARD_AGE = 300
"""Seconds that clients may keep the card without asking again."""


class A2AAdapter(ProtocolAdapter):
    """Serves A2A 1.0 and 0.3.

    Args:
        config: the agent card, and settings.
        redis_url, redis_prefix: for a registry in Redis that the environment selects without an address.
    """

    name = "A2A"

    def __init__(
        self,
        config: AgentCardWithRuntimeConfig | None = None,
        *,
        redis_url: str | None = None,
        redis_prefix: str = "agentapp",
    ) -> None:
        self.config = config or AgentCardWithRuntimeConfig()
        self._redis_url, self._prefix = redis_url, redis_prefix
        self._operations: Operations | None = None
        self._registration: Registration | None = None

    @property
    def operations(self) -> Operations:
        """The operations, while the app is open. Raises RuntimeError: it is not."""
        if self._operations is None:
            raise RuntimeError("the app of the adapter for A2A is not open")
        return self._operations

    def routes(self) -> Sequence[WireRoute]:
        config = self.config
        cards = dict.fromkeys((config.wellknown_path, WELL_KNOWN_PATH, OLD_WELL_KNOWN_PATH))
        rest = ROUTES if "1.0" in config.protocol_versions else ()
        return [
            *(("POST", path, self._call) for path in (PATH, PATH + "/")),
            *(("GET", path, self.serve_card) for path in cards),
            *((http, path, self._rest_view(method)) for http, path, method in rest),
        ]

    async def _call(self, request: Request) -> Response:
        return await JsonRpcCall(self, request).response()

    def _rest_view(self, method: str) -> Callable[..., Awaitable[Response]]:
        async def view(request: Request, **path: str) -> Response:
            return await RestCall(self, request, method, path).response()

        return view

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        config, app = self.config, self.app
        authenticated = app.access.gate.asks
        if config.extended_card is not None and not authenticated:
            raise ConfigurationError(
                "a2a_config.extended_card is for authenticated clients, and the app has no authenticate hook"
            )
        extended = config.extended_card is not None
        card = completed_card(
            config.agent_card or {}, name=app.name, description=app.description, extended=extended
        )
        registries = registries_of(config.registry, redis_url=self._redis_url, prefix=self._prefix)
        configs = PushConfigs(config.push_hosts)
        async with nursery_around() as nursery:
            silence = SilenceWatch(config.task_event_timeout)
            nursery.start_soon(silence.serve, name="silence of A2A tasks")
            memory = TaskMemory()
            reader = TaskReader(app.access, memory)
            sender = PushSender(configs, nursery)
            self._operations = Operations(
                app=app,
                config=config,
                card=card,
                memory=memory,
                reader=reader,
                listing=TaskListing(app.access, memory, reader),
                notifications=Notifications(app.access, card, memory, configs, sender, reader),
                silence=silence,
            )
            try:
                if registries:
                    # An app without registries needs none of their libraries.
                    from .registration import Registration

                    self._registration = Registration(app, config, card, PATH, registries)
                    nursery.start_soon(self._registration.serve, name="registration of the agent")
                yield
                # All runs have ended by now, so their last states are on their way.
                with trio.move_on_after(LAST_DELIVERIES):
                    await sender.wait_idle()
            finally:
                self._operations = self._registration = None
                nursery.cancel_scope.cancel()

    async def before_drain(self) -> None:
        """Leave the registries, so that no other agent begins a call that would be refused."""
        if self._registration is not None:
            await self._registration.withdraw()

    def details(self) -> Mapping[str, Any]:
        """The state of each registration, for the readiness route."""
        if self._registration is None:
            return {}
        return {"registries": [attrs.asdict(status) for status in self._registration.statuses()]}

    # The card.

    def written_card(self, request: Request, card: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the card with the addresses for the client of a request."""
        config = self.config
        if config.host is not None:
            host = f"[{config.host}]" if ":" in config.host else config.host
            port = "" if config.port is None else f":{config.port}"
            base = f"{request.scheme}://{host}{port}"
        else:
            base = request.host_url.rstrip("/")
            if config.port is not None:
                base = f"{request.scheme}://{_host_of(request)}:{config.port}"
        base += request.root_path
        return written_card(
            self.operations.card if card is None else card, base=base, path=PATH, versions=config.protocol_versions
        )

    async def serve_card(self, request: Request) -> Response:
        """The public card. Clients may keep it, and ask by its ETag whether it has changed."""
        body = orjson.dumps(self.written_card(request))
        tag = hashlib.sha256(body).hexdigest()[:32]
        response = Response(body, content_type="application/json")
        response.set_etag(tag)
        response.headers["Cache-Control"] = f"public, max-age={CARD_AGE}"
        response.headers["Vary"] = VARY
        if tag in request.if_none_match or request.if_none_match.star_tag:
            response.set_data(b"")
            response.status_code = 304
            del response.headers["Content-Type"]
        return response

    def extended_card(self, request: Request, asked: Asked) -> dict[str, Any]:
        """The card for authenticated clients. Raises A2AError: there is none."""
        operations = self.operations
        if not operations.card["capabilities"].get("extendedAgentCard"):
            raise A2AError(
                kinds.NO_EXTENDED_CARD if asked.version.legacy else kinds.UNSUPPORTED,
                "This agent has no extended card.",
            )
        if self.config.extended_card is None:
            raise A2AError(kinds.NO_EXTENDED_CARD, kinds.NO_EXTENDED_CARD.text)
        merged = {**(self.config.agent_card or {}), **self.config.extended_card}
        card = completed_card(merged, name=self.app.name, description=self.app.description, extended=True)
        return self.written_card(request, card)

    def challenge(self) -> str:
        """The value of `WWW-Authenticate`: the first HTTP scheme of the card, else Bearer."""
        for scheme in self.operations.card.get("securitySchemes", {}).values():
            if name := scheme.get("httpAuthSecurityScheme", {}).get("scheme"):
                return str(name)
        return "Bearer"


def _host_of(request: Request) -> str:
    host = request.host
    return host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
