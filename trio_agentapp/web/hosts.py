"""The host names that a server answers requests for: protection against DNS rebinding.

In DNS rebinding, a web page lets the name of its own site resolve to 127.0.0.1. The browser then takes an agent on
that machine for the page's own site: the page may send it requests and read the responses. But the `Host` of these
requests is the name of the page's site, not of the agent. So the app can refuse them.
"""

from __future__ import annotations

# Otherwise the first request imports the codec, which fails if the process has no file descriptor left.
import encodings.idna  # noqa: F401
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
"""Names that browsers resolve to this machine without DNS."""

SHOWN = 100
"""Characters of a host name that an error shows."""


class AllowedHosts:
    """The host names that an app answers for, with any port.

    `*` allows all names, `*.name` all subdomains of a name.

    Without names, and without `listen_on_loopback`, the app answers for all. Otherwise it also answers for IP
    addresses and for names of this machine. Health checks use these, and a page of another site cannot have such a
    host.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)
        self._listened: str | None = None
        self._logged = False

    def listen_on_loopback(self, host: str) -> None:
        """Answer for this machine only, because the app is served on a loopback address."""
        self._listened = host.lower()

    def refusal(self, scope: HTTPScope | WebsocketScope) -> Callable[[], Response] | None:
        """Return the response that refuses a request for a foreign host; None if the host is allowed."""
        for name, value in scope["headers"]:
            # An HTTP/1.0 request may have no `Host`, or an empty one. For HTTP/2 the server sets it from the
            # pseudo-header.
            if name == b"host" and not self._answers_for(host := _without_port(value.decode("latin-1"))):
                self._log_once(host[:SHOWN])
                error = MisdirectedRequest(
                    f"This server does not answer for the host {host[:SHOWN]!r}. If it should, add that "
                    "to allowed_hosts."
                )
                return partial(problem_of, error, scope["path"])
        return None

    def _answers_for(self, host: str) -> bool:
        try:
            host.partition(":")[0].encode("idna")
        except UnicodeError:
            # Quart raises an error for such a name.
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
                "refused a request for the host %r (421); if clients use this name for the app, add it to "
                "allowed_hosts or AGENTAPP_ALLOWED_HOSTS. Further refusals are not logged",
                shown,
            )


def _without_port(value: str) -> str:
    """Return the host name in lower case.

    A value that is no host name is returned unchanged, and is not allowed.
    """
    parsed = HOST.fullmatch(value.lower())
    if parsed is None or parsed[1] == ".":
        return value
    return parsed[1].removesuffix(".")
