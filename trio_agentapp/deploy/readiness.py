"""Asks a service whether it is ready, as load balancers do."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import trio

__all__ = ["local_url", "look", "unready_reason", "wait_ready"]

PAUSE = 0.1
"""Seconds between two requests to a service that is not ready."""

LOOK_TIMEOUT = 2.0
"""Seconds for the response to a single request."""


def local_url(host: str, port: int, *, tls: bool) -> str:
    """The URL at which this machine reaches a service that listens on `host`."""
    reached = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  no address to listen on
    shown = f"[{reached}]" if ":" in reached else reached
    return f"{'https' if tls else 'http'}://{shown}:{port}"


async def look(url: str) -> str | None:
    """Return why the service is not ready; None if it is."""
    with trio.move_on_after(LOOK_TIMEOUT):
        return await unready_reason(url)
    return f"no answer in {LOOK_TIMEOUT:g} s"


async def wait_ready(
    url: str, timeout: float, wait_end: Callable[[], Awaitable[object]], *, path: str = "/readiness"
) -> str | None:
    """Wait until the service is ready, `timeout` seconds have passed, or `wait_end` returns because it has ended.

    Returns None if it is ready; otherwise the last reason why it was not. `path="/liveness"`: it need only answer.
    """
    reason: str | None = "it does not answer"

    async def watch() -> None:
        await wait_end()
        nursery.cancel_scope.cancel(reason="the service has ended")

    with trio.move_on_after(timeout):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            while (reason := await unready_reason(url, path)) is not None:  # noqa: ASYNC110  another process
                await trio.sleep(PAUSE)
            nursery.cancel_scope.cancel(reason="the service is ready")
    return reason


async def unready_reason(
    url: str, path: str = "/readiness", *, ssl_context: ssl.SSLContext | None = None
) -> str | None:
    """Return why the service is not ready. Only 503 means that: a route of the user may be at this path.

    `ssl_context`: without one, the certificate of the server is not verified.
    """
    import httpx  # loaded only where something is deployed

    try:
        # The service's certificate names its public host, and this request uses its local address.
        async with httpx.AsyncClient(trust_env=False, verify=ssl_context or False, timeout=None) as client:  # noqa: S113
            answer = await client.get(f"{url}{path}")
    except httpx.HTTPError as error:
        return f"it does not answer ({type(error).__name__})"
    if answer.status_code != 503:
        return None
    try:
        return str(answer.json()["reason"])
    except (ValueError, KeyError, TypeError):
        return "it answers 503"
