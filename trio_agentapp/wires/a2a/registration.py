"""Keeps an app in its registries of agents, from the moment it takes runs until it drains."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import trio

from ...abc import A2ATransportsProperties, AgentRegistry
from ...registries import Keeper, RegistryStatus, keeping
from ...web.protocol_adapter import ServedApp
from .card import written_card
from .config import AgentCardWithRuntimeConfig

__all__ = ["Registration"]

logger = logging.getLogger("trio_agentapp.wires")

POLL = 0.05
"""Seconds between two looks whether the app is ready, for which there is no event."""

ADDRESS_WAIT = 3.0
"""Seconds that a ready app may take until it listens. Under other servers it never learns where it does."""

ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  it is recognised, not listened on


class Registration:
    """The registrations of one app. `serve` is its task."""

    def __init__(
        self,
        app: ServedApp,
        config: AgentCardWithRuntimeConfig,
        card: Mapping[str, Any],
        path: str,
        registries: Sequence[AgentRegistry],
    ) -> None:
        self._app = app
        self._config = config
        self._card = card
        self._path = path
        self._registries = registries
        self._keeper: Keeper | None = None
        self._scope = trio.CancelScope()

    async def serve(self) -> None:
        """Register when the app is ready, and keep it registered until `withdraw`."""
        with self._scope:
            while self._app.unready_reason() is not None:  # noqa: ASYNC110  there is no event to wait for
                await trio.sleep(POLL)
            with trio.move_on_after(ADDRESS_WAIT):
                while not self._app.addresses():  # noqa: ASYNC110
                    await trio.sleep(POLL)
            transport = self._transport()
            if transport is None:
                logger.error(
                    "the app is not registered: under this server it does not know its port; set "
                    "AgentCardWithRuntimeConfig(port=...), or the variable PORT"
                )
                return
            base = transport.url.removesuffix(self._path)
            versions = self._config.protocol_versions
            card = written_card(self._card, base=base, path=self._path, versions=versions)
            async with keeping(card, [transport], self._registries) as self._keeper:
                self._keeper.announce()
                await trio.sleep_forever()

    async def withdraw(self) -> None:
        """Deregister, within a few seconds."""
        if self._keeper is None:
            self._scope.cancel(reason="the app drains")
        else:
            await self._keeper.withdraw()

    def statuses(self) -> Sequence[RegistryStatus]:
        return () if self._keeper is None else self._keeper.statuses()

    def _transport(self) -> A2ATransportsProperties | None:
        """Where other agents reach this app; None if its port is not known."""
        served = urlsplit(next(iter(self._app.addresses()), ""))
        port = self._config.port or served.port or int(os.environ.get("PORT", "0") or 0)
        if not port:
            return None
        host = self._config.host or served.hostname or os.environ.get("HOST") or "127.0.0.1"
        return A2ATransportsProperties(
            host=_own_address() if host in ANY_ADDRESS else host,
            port=port,
            # The app also answers at the path with the prefix if nothing removes it.
            path=self._app.root_path + self._path,
            support_tls=served.scheme == "https",
        )


def _own_address() -> str:
    """The address of this machine that others see; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
        except OSError:
            return "127.0.0.1"
        return str(sock.getsockname()[0])
