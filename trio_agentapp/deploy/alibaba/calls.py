"""Calls of a cloud's SDK: in threads that are joined, repeated when that is safe, with errors that can be read.

The SDKs block. A call is not abandoned when it is cancelled, because it may have made something that has to be
deleted: its thread is waited for, and the time-out of the SDK's request bounds this.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import attrs
import trio

from ...errors import DeployError

__all__ = ["Calls", "Conflict", "Missing", "Unanswered", "Uncertain", "wait_until"]

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between two attempts. Each pause is twice as long as the one before, and half of it is random, so that
clients that were refused together do not come back together."""

FIRST_LOOK, LONGEST_LOOK = 1.0, 10.0
"""Seconds between two looks at something that is being made."""

SHORTEST = 8
"""Characters of a value that is hidden. Shorter ones, such as `true`, would hide parts of words."""

KEY_CODES = (
    "InvalidAccessKey",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "InvalidSecurityToken",
    "SecurityTokenExpired",
)
NO_RIGHT = ("NoPermission", "Forbidden", "AccessDenied", "NoAuth")


class Missing(DeployError):
    """There is no such resource."""


class Conflict(DeployError):
    """A resource of this name exists, or is being changed."""


class Unanswered(Exception):
    """A request that no SDK made was refused, with the status; or it was not answered."""

    def __init__(self, status: int | None, code: str, message: str) -> None:
        super().__init__(message)
        self.status_code, self.code, self.message = status, code, message


class Uncertain(DeployError):
    """Nobody knows whether the call had its effect: its answer was lost, or the service failed."""


@attrs.frozen(kw_only=True)
class _Failure:
    """What an SDK's exception says."""

    status: int | None
    """None if no answer came that could be read."""
    code: str
    message: str
    retry_after: float | None = None

    @property
    def throttled(self) -> bool:
        return self.status == 429 or self.code.startswith(("Throttling", "TooManyRequests", "ServiceUnavailable"))

    @property
    def passing(self) -> bool:
        """It may succeed if it is repeated; the first attempt may have had an effect."""
        return self.status is None or self.status >= 500


class Calls:
    """Calls of one service.

    `policy`: the RAM policy that an account needs. `hidden`: values that no error message shows.
    """

    def __init__(self, service: str, where: str, policy: str, hidden: Sequence[str]) -> None:
        self.service = service
        self._where = where
        self._policy = policy
        self._hidden = sorted((each for each in hidden if len(each) >= SHORTEST), key=len, reverse=True)

    async def __call__(self, what: str, call: Callable[[], T], *, repeatable: bool = True) -> T:
        """Return the result of `call`, which runs in a thread.

        A call that was refused for its rate is repeated, up to five attempts. One that failed in the network or in
        the service is repeated if it is `repeatable`: a second time has no other effect.

        Raises:
            Missing: the resource does not exist.
            Conflict: it exists, or is being changed.
            Uncertain: the service failed or did not answer.
            DeployError: it failed for another reason; each message begins with `what`.
        """
        for attempt in range(ATTEMPTS):
            try:
                return await trio.to_thread.run_sync(call)
            except Exception as error:
                failure = _failure_of(error)
                if failure is None:
                    raise
                again = failure.throttled or (repeatable and failure.passing)
                if attempt == ATTEMPTS - 1 or not again:
                    raise self._meaning(what, failure) from None  # the SDK's own text may hold what is hidden
            await trio.sleep(_pause(attempt, failure.retry_after))
        raise AssertionError("unreachable")

    def check(self, what: str, body: Any) -> Any:
        """Return the data of an answer that may report an error although its status is 200."""
        code = str(body.code or "")
        if code == "SUCCESS":
            return body.data
        raise self._meaning(what, _Failure(status=200, code=code, message=str(getattr(body, "message", "") or "")))

    def _meaning(self, what: str, failure: _Failure) -> DeployError:
        said = self.shown(" ".join(f"{failure.code} {failure.message}".split()))
        if failure.throttled:
            return DeployError(f"{what}: {self.service} refused {ATTEMPTS} attempts ({said}); try again later")
        if failure.status is None:
            return Uncertain(
                f"{what}: {self.service} at {self._where} does not answer ({said}); check the network, "
                "the region and the endpoint"
            )
        if failure.code.startswith(KEY_CODES) or failure.status == 401:
            return DeployError(
                f"{what}: {self.service} refuses the access key ({said}); check ALIBABA_CLOUD_ACCESS_KEY_ID, "
                "ALIBABA_CLOUD_ACCESS_KEY_SECRET and, for temporary keys, ALIBABA_CLOUD_SECURITY_TOKEN"
            )
        if failure.status == 403 or failure.code.startswith(NO_RIGHT):
            return DeployError(
                f"{what}: the account has no right to do this ({said}); ask for the policy {self._policy} at "
                "https://ram.console.aliyun.com/"
            )
        if failure.status == 404 or "NotFound" in failure.code or "NOT_FOUND" in failure.code:
            return Missing(f"{what}: it does not exist ({said})")
        if failure.status == 409:
            return Conflict(f"{what}: it exists, or is being changed ({said})")
        kind = Uncertain if failure.passing else DeployError
        return kind(f"{what}: {self.service} answered {failure.status}: {said}")

    def shown(self, text: str) -> str:
        """The text without hidden values."""
        for each in self._hidden:
            text = text.replace(each, "***")
        return text


async def wait_until(look: Callable[[], Awaitable[T | None]], timeout: float) -> T | None:
    """Call `look` until it returns something, with growing pauses; None after `timeout` seconds."""
    pause = FIRST_LOOK
    with trio.move_on_after(timeout):
        while True:
            if (found := await look()) is not None:
                return found
            await trio.sleep(pause)
            pause = min(1.5 * pause, LONGEST_LOOK)
    return None


def _pause(attempt: int, retry_after: float | None) -> float:
    longest: float = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
    pause = longest * (0.5 + random.random() / 2)  # noqa: S311 - it spreads clients, and protects nothing
    return pause if retry_after is None else max(pause, min(retry_after, LONGEST_PAUSE))


def _failure_of(error: Exception) -> _Failure | None:
    """What the exception says; None if it is not of an SDK."""
    library = type(error).__module__.partition(".")[0]
    known = library in ("Tea", "darabonba", "alibabacloud_tea_openapi", "alibabacloud_oss_v2")
    if not known and not isinstance(error, Unanswered):
        return None
    inner = error
    while (unwrap := getattr(inner, "unwrap", None)) is not None and isinstance(found := unwrap(), Exception):
        inner = found
    status = getattr(inner, "status_code", None)
    if isinstance(status, int) and status:
        after = getattr(inner, "retry_after", None)  # milliseconds
        return _Failure(
            status=status,
            code=str(getattr(inner, "code", None) or ""),
            message=str(getattr(inner, "message", None) or ""),
            retry_after=None if after is None else after / 1000,
        )
    cause = getattr(inner, "inner_exception", None) or inner
    # What the OSS SDK refuses before it sends, such as a name that no bucket can have.
    unsent = library == "alibabacloud_oss_v2" and type(inner).__name__ not in ("RequestError", "ResponseError")
    return _Failure(
        status=400 if unsent else None,
        code=type(cause).__name__,
        message=str(getattr(cause, "message", None) or cause),
    )
