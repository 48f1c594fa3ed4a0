"""The base URLs of an agent, which are asked one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from ..errors import ConfigurationError, ConnectionLost, RequestError, RunNotFound
from ..protocol.hosts import is_loopback
from .failures import ConnectionFailed
from .retries import Attempts

__all__ = ["Nodes", "may_succeed_elsewhere"]

NOT_FINAL = frozenset(
    {"run_not_found", "elsewhere", "draining", "backend_unavailable", "rate_limited", "too_many_requests"}
)
"""Codes of refusals that are not final: another node, or the same one a moment later, may accept the request."""

T = TypeVar("T")


def may_succeed_elsewhere(refusal: RequestError) -> bool:
    return refusal.code in NOT_FINAL


class Nodes:
    """Base URLs. The one that answered last is asked first."""

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
        hosts = [urlsplit(url).hostname or "" for url in self.urls]
        return all(is_loopback(host) or host.endswith(".localhost") for host in hosts)

    def order(self, first: int | None = None) -> Iterator[int]:
        """Yield the indices of all nodes, beginning with `first`, or with the one that answered last."""
        begin = self.current if first is None else first
        return iter([(begin + step) % len(self.urls) for step in range(len(self.urls))])

    async def ask(
        self,
        call: Callable[[int], Awaitable[T]],
        attempts: Attempts,
        *,
        first: int | None = None,
        repeatable: bool = True,
    ) -> T:
        """Call one node after the other, until one succeeds or all report that the run does not exist.

        Raises:
            RequestError: a refusal that holds for all nodes, or the last one when no attempt is left.
            ConnectionLost: no attempt is left; or the answer to a call that is not `repeatable` was lost.
        """
        while True:
            failure: Exception | None = None
            for node in self.order(first):
                try:
                    answer = await call(node)
                except ConnectionFailed as failed:
                    if failed.sent and not repeatable:
                        raise ConnectionLost(
                            f"{self.urls[node]}: {failed}; the request may have been executed"
                        ) from failed
                    if not isinstance(failure, RequestError) or isinstance(failure, RunNotFound):
                        failure = failed
                except RequestError as refusal:
                    if not may_succeed_elsewhere(refusal):
                        raise
                    if failure is None or not isinstance(refusal, RunNotFound):
                        failure = refusal
                else:
                    self.current = node
                    return answer
            assert failure is not None  # noqa: S101  there is at least one node
            if isinstance(failure, RunNotFound):
                raise failure
            await attempts.pause(failure, self)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError(f"base_url must be a URL such as http://127.0.0.1:8090, not {url!r}")
    return url.rstrip("/")
