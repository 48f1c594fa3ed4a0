"""Connects, and connects again after a failure, with growing delays."""

from __future__ import annotations

import logging
from functools import partial

import trio
from redis.exceptions import RedisError

from ..errors import ConfigurationError
from .backoff import Backoff
from .connection import Connection
from .connector import Connector
from .errors import LinkDown
from .serving import serving_in_background

__all__ = ["Dialer"]

log = logging.getLogger("trio_agentapp.redis")

STABLE_AFTER = 1.0
"""Seconds that a connection must last before the backoff starts from the beginning again.

Without it, a server that accepts connections and closes them would be tried without pause.
"""

LOG_WAITING_AFTER = 0.3
"""Seconds after which a start that waits for the server logs it."""


class Dialer:
    """Makes the connections of a client or listener. `last_error` says why the last attempt failed."""

    def __init__(self, connector: Connector, backoff: Backoff) -> None:
        self.last_error: Exception | None = None
        self._connector = connector
        self._backoff = backoff
        self._attempt = 0
        self._since = 0.0

    async def connect_first(self, timeout: float) -> Connection:
        """Connect for the first time. Raises LinkDown after `timeout` seconds; a refusal of the server at once."""
        with trio.move_on_after(timeout):
            async with serving_in_background(partial(self._log_waiting, timeout)):
                return await self._connect(refusals_pass=False)
        raise LinkDown(
            f"Redis at {self._connector.url} could not be reached within {timeout:g} s: {self.last_error}"
        ) from self.last_error

    async def _log_waiting(self, timeout: float, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(LOG_WAITING_AFTER)
        why = f" ({self.last_error})" if self.last_error is not None else ""
        log.warning(
            "waiting for Redis at %s, which does not answer%s; giving up after %g s",
            self._connector.url,
            why,
            timeout,
        )

    async def connect_again(self, lost: Exception | None = None) -> Connection:
        """Try until there is a connection. `lost` is the reason why the last one broke."""
        if lost is not None:
            self.last_error = lost
            if trio.current_time() - self._since >= STABLE_AFTER:
                self._attempt = 0
            await self._pause()
        return await self._connect(refusals_pass=True)

    async def _connect(self, *, refusals_pass: bool) -> Connection:
        while True:
            try:
                connection = await self._connector.connect()
            except LinkDown as error:
                log.debug("No connection to Redis: %s", error)
                self.last_error = error
            except (RedisError, ConfigurationError) as error:
                # At the start an operator can correct the setting. Later, the password may just be changing on all
                # nodes.
                if not refusals_pass:
                    raise
                if str(error) != str(self.last_error):  # not at each attempt
                    log.error("No connection to Redis: %s", error)  # noqa: TRY400  a traceback says no more
                self.last_error = error
            else:
                self._since = trio.current_time()
                return connection
            await self._pause()

    async def _pause(self) -> None:
        delay = self._backoff.delay(self._attempt)
        self._attempt += 1
        await trio.sleep(delay)
