"""The nodes that serve an agent, and how patiently they are asked."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import attrs
import trio

from ..errors import ConfigurationError, ConnectionLost, RequestError, RunNotFound
from ..protocol.hosts import is_loopback
from .feed import Cut

__all__ = ["Attempts", "Nodes", "Retries", "elsewhere_perhaps"]

logger = logging.getLogger("trio_agentapp.client")

JITTER = 0.5
"""Each delay is drawn from this part of its full length up to the whole, so that clients do not return in step."""

ANOTHER_MAY = frozenset({"run_not_found", "elsewhere", "draining", "backend_unavailable", "rate_limited"})
"""Codes of refusals that another node, or the same one a moment later, may not repeat."""

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Retries:
    """How long a client goes on when connections fail. Counted anew after every event that came.

    `attempts`: rounds through all base URLs, at most. `seconds`: no round begins later than this after the first.
    `first_delay`, doubled each time, at most `last_delay`: seconds between two rounds, jittered.
    Raises ConfigurationError: a number that cannot be.
    """

    attempts: int = 8
    seconds: float = 60.0
    first_delay: float = 0.1
    last_delay: float = 5.0

    def __attrs_post_init__(self) -> None:
        if self.attempts < 1 or min(self.seconds, self.first_delay, self.last_delay) < 0:
            raise ConfigurationError(f"Retries: attempts begin at 1, and durations at 0 seconds: {self}")


class Attempts:
    """The rounds made since something last went well."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._made = 0
        self._until = trio.current_time() + retries.seconds

    async def pause(self, trouble: Exception, nodes: Nodes) -> None:
        """Wait for the next round.

        Raises ConnectionLost (or `trouble`, where a server gave it) if there is to be none.
        """
        self._made += 1
        retries = self._retries
        full = min(retries.first_delay * 2.0 ** min(self._made - 1, 62), retries.last_delay)
        delay = full * random.uniform(JITTER, 1)  # noqa: S311  spreads load, protects nothing
        if isinstance(trouble, RequestError) and trouble.retry_after is not None:
            delay = max(delay, trouble.retry_after)
        spent = self._made >= retries.attempts or trio.current_time() + delay > self._until
        hopeless = isinstance(trouble, Cut) and trouble.hopeless
        if not spent and not hopeless:
            logger.warning("%s: %s; trying again in %.1f s", nodes, trouble, delay)
            await trio.sleep(delay)
            return
        if isinstance(trouble, RequestError):
            raise trouble
        tries = "" if hopeless or self._made == 1 else f" ({self._made} attempts)"
        raise ConnectionLost(f"{nodes}: {trouble}{tries}") from trouble


def elsewhere_perhaps(refusal: RequestError) -> bool:
    return refusal.code in ANOTHER_MAY


class Nodes:
    """Base URLs. The one that served last is asked first."""

    def __init__(self, urls: str | Sequence[str]) -> None:
        self.urls = [_checked(url) for url in ([urls] if isinstance(urls, str) else urls)]
        if not self.urls:
            raise ConfigurationError("base_url: at least one URL is needed")
        self.current = 0

    def __str__(self) -> str:
        return " and ".join(self.urls)

    @property
    def any_tls(self) -> bool:
        return any(url.startswith("https:") for url in self.urls)

    @property
    def all_on_loopback(self) -> bool:
        return all(_is_this_machine(urlsplit(url).hostname or "") for url in self.urls)

    def order(self, first: int | None = None) -> Iterator[int]:
        begin = self.current if first is None else first
        return iter([(begin + step) % len(self.urls) for step in range(len(self.urls))])

    async def ask(
        self,
        question: Callable[[int], Awaitable[T]],
        attempts: Attempts,
        *,
        first: int | None = None,
        repeatable: bool = True,
    ) -> T:
        """Put a question to one node after the other, until one answers it or all agree that there is no such run.

        Raises:
            RequestError: a refusal that no other node would take back, or the last one when the attempts are spent.
            ConnectionLost: the attempts are spent; or, where the question is not `repeatable`, its answer was lost.
        """
        while True:
            trouble: Exception | None = None
            for node in self.order(first):
                try:
                    answer = await question(node)
                except Cut as cut:
                    if cut.sent and not repeatable:
                        raise ConnectionLost(f"{self.urls[node]}: {cut}; whether it was done is not known") from cut
                    if not isinstance(trouble, RequestError) or isinstance(trouble, RunNotFound):
                        trouble = cut
                except RequestError as refusal:
                    if not elsewhere_perhaps(refusal):
                        raise
                    if trouble is None or not isinstance(refusal, RunNotFound):
                        trouble = refusal
                else:
                    self.current = node
                    return answer
            assert trouble is not None  # noqa: S101  there is at least one node
            if isinstance(trouble, RunNotFound):
                raise trouble
            await attempts.pause(trouble, self)


def _is_this_machine(host: str) -> bool:
    return is_loopback(host) or host.endswith(".localhost")


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        well = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        _ = parts.port
    except ValueError:
        well = False
    if not well:
        raise ConfigurationError(f"base_url must be such as http://127.0.0.1:8090, not {url!r}")
    return url.rstrip("/")
