"""Single HTTP requests with JSON answers, sent to one node after the other until one answers."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from ..errors import ConfigurationError, UnexpectedAnswer
from ..protocol.lifecycle import StopReceipt
from ..protocol.message import Message
from ..protocol.message_json import message_fields
from ..protocol.trace_context import trace_headers
from .failures import connection_failed
from .nodes import Nodes
from .request_body import encoded
from .responses import error_of_response, json_of, receipt_of
from .retries import Attempts, Retries

__all__ = ["HttpAPI", "new_http_client", "query", "segment", "system_context"]


def segment(name: str) -> str:
    """Quote a segment of a path."""
    return quote(name, safe="")


def query(**named: str | int | None) -> dict[str, str]:
    """Return the parameters of a query that are given."""
    return {name: str(value) for name, value in named.items() if value is not None}


class HttpAPI:
    """The routes that answer with one JSON object.

    Args:
        http: the HTTP client. Its read time-out is the silence after which a request counts as failed.
    """

    def __init__(self, nodes: Nodes, http: httpx.AsyncClient, retries: Retries) -> None:
        self._nodes = nodes
        self._http = http
        self._retries = retries

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        repeatable: bool = True,
        waits: bool = False,
        first: int | None = None,
    ) -> dict[str, Any]:
        """Send a request and return the JSON object of its answer.

        `repeatable`: the request may be sent again if its answer was lost. `waits`: the answer may take as long as
        the run does. `first`: the node that is asked first.
        """
        timeout = httpx.Timeout(self._http.timeout)
        if waits and not repeatable:
            timeout.read = timeout.write = None

        async def call(node: int) -> dict[str, Any]:
            while True:
                try:
                    response = await self._http.request(
                        method,
                        self._nodes.urls[node] + path,
                        params=params,
                        content=None if body is None else encoded(body),
                        headers=None if body is None else {"Content-Type": "application/json"},
                        timeout=timeout,
                    )
                except httpx.ReadTimeout as error:
                    # A server sends nothing while it waits. A repeated request shows whether it still answers.
                    if not waits:
                        raise connection_failed(error) from error
                except httpx.TransportError as error:
                    raise connection_failed(error) from error
                else:
                    break
            if response.status_code not in (200, 202):
                raise error_of_response(response)
            document = json_of(response.content)
            if not isinstance(document, dict):
                raise UnexpectedAnswer(f"{response.url} answered with JSON that is not an object")
            return document

        return await self._nodes.ask(call, Attempts(self._retries), first=first, repeatable=repeatable)

    async def stop(
        self,
        session_id: str | None,
        user_id: str | None,
        run_id: str | None,
        *,
        wait: bool,
        first: int | None = None,
    ) -> StopReceipt:
        """Stop a run, or the run of a session. Only a stop by run id is sent again if its answer was lost."""
        names = query(session_id=session_id, user_id=user_id, run_id=run_id)
        document = await self.ask(
            "POST",
            "/stop",
            params=query(wait=1 if wait else None),
            body={"input": [], **names},
            repeatable=run_id is not None,
            waits=wait,
            first=first,
        )
        return receipt_of(document)

    async def send_input(
        self, run_id: str, message: Message | Mapping[str, Any] | str, *, user_id: str | None
    ) -> None:
        """Send a message to a run. It is not sent again if the answer was lost."""
        if isinstance(message, str):
            message = {"role": "user", "content": message}
        await self.ask(
            "POST",
            f"/runs/{segment(run_id)}/input",
            params=query(user_id=user_id),
            body=message_fields(message) if isinstance(message, Message) else message,
            repeatable=False,
        )


def new_http_client(
    nodes: Nodes,
    headers: Mapping[str, str],
    *,
    connect_timeout: float,
    silence: float,
    ssl_context: ssl.SSLContext | None,
) -> httpx.AsyncClient:
    """Build the HTTP client that all requests share.

    Raises:
        ConfigurationError: proxies or certificates that the environment names cannot be used.
    """
    verify = ssl_context or (nodes.any_tls and system_context())
    try:
        return httpx.AsyncClient(
            headers={"Accept-Encoding": "identity", **headers},
            timeout=httpx.Timeout(silence, connect=connect_timeout, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            verify=verify,
            event_hooks={"request": [_add_trace]},
            # A proxy would connect to its own loopback address.
            trust_env=not nodes.all_on_loopback,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        # The reason is a SOCKS proxy without its package, an unknown scheme, or an invalid address in NO_PROXY.
        raise ConfigurationError(
            f"the proxies that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) cannot be "
            f"used: {error}"
        ) from error


async def _add_trace(request: httpx.Request) -> None:
    """Add the headers of the caller's trace, so that the server continues it.

    Headers that the client has set stay.
    """
    for name, value in trace_headers().items():
        request.headers.setdefault(name, value)


def system_context() -> ssl.SSLContext:
    """Return a context that trusts the CAs of this machine, or those that the environment names.

    Raises:
        ConfigurationError: the files that the environment names cannot be read.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        named = [f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ]
        raise ConfigurationError(
            f"the certificates of {' and '.join(named) or 'this machine'} cannot be read: {error}"
        ) from error
