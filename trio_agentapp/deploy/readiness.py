"""Asking a service whether it is ready, as balancers do."""

from __future__ import annotations

import trio

__all__ = ["local_url", "unready_reason", "wait_ready"]

PAUSE = 0.1
"""Seconds between two questions to a service that is not ready."""


def local_url(host: str, port: int, *, tls: bool) -> str:
    """How this machine reaches a service that listens on `host`."""
    reached = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  no address to listen on
    shown = f"[{reached}]" if ":" in reached else reached
    return f"{'https' if tls else 'http'}://{shown}:{port}"


async def unready_reason(url: str) -> str | None:
    """Why the service is not ready, None if it is. Waits for an answer; the caller bounds it.

    Only 503 means that it is not: a route of the user's own at this path may answer whatever it likes.
    """
    import httpx  # where nothing is deployed, nobody pays for it

    try:
        # The service's certificate names its public host, and here it is reached by its address.
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=None) as client:  # noqa: S501, S113
            answer = await client.get(f"{url}/readiness")
    except httpx.HTTPError as error:
        return f"it does not answer ({type(error).__name__})"
    if answer.status_code != 503:
        return None
    try:
        return str(answer.json()["reason"])
    except (ValueError, KeyError, TypeError):
        return "it answers 503"


class Reason:
    """The last thing that was heard, for whoever gives up."""

    text = "it does not answer"


async def wait_ready(url: str, reason: Reason) -> None:
    while (why := await unready_reason(url)) is not None:
        reason.text = why
        await trio.sleep(PAUSE)
