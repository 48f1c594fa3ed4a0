"""The receiver of one push notification config: what waits for it, and how it is delivered."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import orjson
import trio

from ...protocol.text import safe_text
from .public_address import is_public
from .push_configs import PushConfigs

if TYPE_CHECKING:
    import httpx

__all__ = ["Receiver", "Slots"]

logger = logging.getLogger("trio_agentapp.wires.a2a")

MAX_WAITING = 64
"""Notifications that wait for one receiver. If there are more, the oldest is dropped."""

TRIES = 5
"""Attempts to deliver a notification."""

FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each further pause is twice as long."""

TIMEOUT = 10.0
"""Seconds for one attempt: specification 1.0, section 4.3.3, recommends 10 to 30."""

MAX_ATTEMPTS = 100
"""Attempts at once on one node: each has a socket, and a client may name many receivers that never answer."""

MAX_LOOKUPS = 8
"""Lookups of receivers at once: each has a thread, until the name server has answered or was given up."""


@cache
def _tls_context() -> ssl.SSLContext:
    """Made once, and not in the event loop: it reads all certificates, which takes some 50 ms."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


class _PrivateAddress(Exception):
    """The host of a receiver leads to an address that is not public."""


class Slots:
    """How much is done at once for all receivers of a node."""

    def __init__(self) -> None:
        self.attempts = trio.CapacityLimiter(MAX_ATTEMPTS)
        self.lookups = trio.CapacityLimiter(MAX_LOOKUPS)


class Receiver:
    """One config: what waits for its receiver, and the task that sends it."""

    def __init__(self, configs: PushConfigs, task_id: str, config_id: str, slots: Slots) -> None:
        self._slots = slots
        self._configs = configs
        self._task_id = task_id
        self._config_id = config_id
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._changed = trio.Event()
        self._closed = False

    def put(self, body: dict[str, Any]) -> None:
        self._waiting.append(orjson.dumps(body))
        self._changed.set()

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed = trio.Event()
            while self._waiting:
                await self._deliver(self._waiting.popleft())
            if self._closed:
                return
            await self._changed.wait()

    async def _deliver(self, body: bytes) -> None:
        """Send one notification, again after failures, unless the config was deleted meanwhile."""
        for attempt in range(TRIES):
            if attempt:
                await trio.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            pushed = self._configs.of(self._task_id).get(self._config_id)
            if pushed is None:
                return
            try:
                fault = await self._try(pushed.config, body)
            except _PrivateAddress:
                logger.warning(
                    "task %s: a push notification was not delivered: its receiver has a private address; "
                    "push_hosts may allow it",
                    self._task_id,
                )
                return
            if fault is None:
                return
        logger.warning(
            "task %s: a push notification was not delivered after %d attempts: %s", self._task_id, TRIES, fault
        )

    async def _try(self, config: Mapping[str, Any], body: bytes) -> str | None:
        """Send once. Returns what went wrong."""
        async with self._slots.attempts:
            # httpx counts its own time-outs from each byte that arrives.
            with trio.move_on_after(TIMEOUT):
                return await self._send(config, body)
        return f"no answer in {TIMEOUT:g} s"

    async def _send(self, config: Mapping[str, Any], body: bytes) -> str | None:
        import httpx  # it takes long to load, and few apps send notifications

        try:
            url = httpx.URL(config["url"])
            address = await self._address(url)
            headers = {"Content-Type": "application/json", "Host": url.netloc.decode("ascii")}
            if config.get("token"):
                headers["X-A2A-Notification-Token"] = config["token"]
            how = config.get("authentication") or {}
            if how.get("credentials"):
                headers["Authorization"] = f"{how['scheme']} {how['credentials']}"
            tls = await trio.to_thread.run_sync(_tls_context)
            # The connection goes to the address that was checked: another lookup might give another one.
            async with httpx.AsyncClient(
                timeout=TIMEOUT, follow_redirects=False, trust_env=False, verify=tls
            ) as client:
                request = client.build_request(
                    "POST",
                    url.copy_with(host=address),
                    content=body,
                    headers=headers,
                    extensions={"sni_hostname": url.host},
                )
                response = await client.send(request, stream=True)
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            # UnicodeError: what looks like a name is none in IDNA.
            return f"{type(error).__name__}: {safe_text(error)[:200]}"
        return None if response.is_success else f"status {response.status_code}"

    async def _address(self, url: httpx.URL) -> str:
        """The address of the host. Raises _PrivateAddress: it is not public, and the host is not allowed."""
        # A lookup cannot be stopped. It keeps its slot after its time limit; Trio's threads stay free for the app.
        lookup = partial(socket.getaddrinfo, url.host, url.port or 443, type=socket.SOCK_STREAM)
        found = await trio.to_thread.run_sync(lookup, abandon_on_cancel=True, limiter=self._slots.lookups)
        addresses = [str(each[4][0]) for each in found]
        if self._configs.allows(url.host):
            return addresses[0]
        if all(is_public(ipaddress.ip_address(each.split("%")[0])) for each in addresses):
            return addresses[0]
        raise _PrivateAddress
