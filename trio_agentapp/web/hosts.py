"""Which hosts a server answers for.

A web page can have the name of its own site lead to 127.0.0.1 (DNS rebinding). To the browser the agent of that
machine is then of the page's own origin, and the page may use it and read its answers. But its requests name the
page's host, which is not the agent's.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable, Collection
from functools import partial

from hypercorn.typing import HTTPScope, WebsocketScope
from quart import Response

from ..errors import MisdirectedRequest
from ..server.problems import problem_of

__all__ = ["AllowedHosts"]

log = logging.getLogger(__name__)

HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")

LOCAL = ("localhost", "*.localhost")
"""Names that browsers resolve to this machine by themselves."""

SHOWN = 100
"""Characters of a host that an error repeats."""


class AllowedHosts:
    """The hosts that an app answers for, with any port. `*` stands for all, `*.name` for all below a name.

    Without any, and without `listen_on_loopback`, the app answers for all. Otherwise it also answers for IP
    addresses and the names of this machine: a page of another site never has one of these as its host, and health
    checks use them.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)
        self._listened: str | None = None
        self._logged = False

    def listen_on_loopback(self, host: str) -> None:
        """The app is served on a loopback address: only programs of this machine are to reach it."""
        self._listened = host.lower()

    def refusal(self, scope: HTTPScope | WebsocketScope) -> Callable[[], Response] | None:
        """The answer to a request for a host that this server does not answer for; None: it does."""
        for name, value in scope["headers"]:
            # HTTP/1.0 has none, or an empty one. Over HTTP/2 the server puts it here.
            if name == b"host" and not self._answers_for(host := _without_port(value.decode("latin-1"))):
                self._log_once(host[:SHOWN])
                error = MisdirectedRequest(
                    f"This server does not answer for the host {host[:SHOWN]!r}. If it should, add that to "
                    "allowed_hosts."
                )
                return partial(problem_of, error, scope["path"])
        return None

    def _answers_for(self, host: str) -> bool:
        try:
            host.partition(":")[0].encode("idna")
        except UnicodeError:
            # Quart fails with it.
            return False
        if not host or "*" in self._allowed or not (self._allowed or self._listened):
            return True
        try:
            ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        except ValueError:
            pass
        else:
            return True
        return host == self._listened or any(
            host.endswith(name[1:]) if name.startswith("*.") else host == name for name in (*LOCAL, *self._allowed)
        )

    def _log_once(self, shown: str) -> None:
        if not self._logged:
            self._logged = True
            log.warning(
                "refused a request for the host %r (421); if this app is reached by that name, add it to "
                "allowed_hosts or AGENTAPP_ALLOWED_HOSTS. Further ones are not logged",
                shown,
            )


def _without_port(value: str) -> str:
    """The host in lower case, or what came if it is none: then it is no name that is answered for."""
    parsed = HOST.fullmatch(value.lower())
    if parsed is None or parsed[1] == ".":
        return value
    return parsed[1].removesuffix(".")
