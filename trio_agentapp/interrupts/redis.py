"""The interrupt backend of many processes: Redis keeps the truth, pub/sub shortens waiting."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio
from redis.credentials import CredentialProvider
from redis.exceptions import OutOfMemoryError, RedisError

from ..abc import (
    BaseInterruptBackend,
    Busy,
    Claim,
    Ended,
    Granted,
    Lease,
    Renewal,
    Resync,
    Signal,
    StopAnswer,
    StopOutcome,
    StopSignal,
    Taken,
)
from ..errors import BackendUnavailable, ConfigurationError
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import CleanupResult, Ending, RunRecord, RunState, SessionStatus
from ..protocol.timings import Timings
from ..redis import LinkError, RedisClient, RedisListener, RedisURL, ScriptCall, ServerInfo
from ..redis.serving import serving_in_background
from .layout import Layout
from .quarantine import Quarantine
from .reaper import reap_forever
from .scripts import Scripts

__all__ = ["RedisInterruptBackend"]

logger = logging.getLogger("trio_agentapp.interrupts")

Deliver = Callable[[Signal], None]

HEARTBEATS_AT_ONCE = 500
"""Leases in one pipeline; more are renewed by several, one after the other."""

RETRY = 0.2
"""Seconds between two tries of a claim while Redis does not answer."""


class RedisInterruptBackend(BaseInterruptBackend):
    """Leases and stops over one Redis, for any number of nodes.

    Two connections a process, whatever the number of runs. Everything fails closed: what cannot be asked raises
    `BackendUnavailable`.

    Args:
        url: `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.
        prefix: of all keys; apps with different prefixes never meet on one server.
        timings: must be the same on all nodes of an app.

    Raises:
        ConfigurationError: a URL or prefix that cannot work.
    """

    timings: Timings

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "agentapp",
        timings: Timings | None = None,
        credential_provider: CredentialProvider | None = None,
    ) -> None:
        if not prefix or any(sign in prefix for sign in "{} \r\n"):
            raise ConfigurationError(
                f"a Redis prefix has no braces, spaces or line ends, and is not empty: {prefix!r}"
            )
        self.timings = timings or Timings()
        self._layout = Layout(prefix)
        self._url = RedisURL.parse(url)
        self._credentials = credential_provider
        self._connect()
        self._quarantine = Quarantine(self.timings.lease)
        self._deliver: dict[bytes, Deliver] = {}
        self._scripts = Scripts(self._layout, self.timings, allow_oom=False)

    def _connect(self) -> None:
        """Clients that have not been served: they are so once, and an app may be opened again."""
        self._client = RedisClient(
            self._url, credential_provider=self._credentials, call_timeout=self.timings.call_timeout
        )
        self._listener = RedisListener(self._url, credential_provider=self._credentials)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the two connections and the reaper until cancelled.

        Raises before it is ready:
            ConfigurationError: the server may evict the keys of running sessions.
            LinkError, redis-py's errors: it cannot be reached or does not let us in.
        """
        self._connect()

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            await self._listener.listen(deliver=self._hear, on_gap=self._tell_gap, task_status=task_status)

        async with serving_in_background(self._client.serve):
            await self._check_server()
            self._client.on_reconnect.append(self._see_server)
            self._see_server()
            version = (self._server().version or "0").partition(".")[0]
            self._scripts = Scripts(self._layout, self.timings, allow_oom=int(version) >= 7)
            async with serving_in_background(listen):
                task_status.started()
                await reap_forever(self._client, self._layout, self._scripts, self.timings)

    async def _check_server(self) -> None:
        memory = await self._client.call("INFO", "memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ConfigurationError(
                f"this Redis evicts keys when it is full (maxmemory-policy {policy}), so running sessions could be "
                "forgotten; set maxmemory-policy to noeviction, or use another server for interrupts"
            )

    def _server(self) -> ServerInfo:
        server = self._client.server
        assert server is not None  # noqa: S101  connected before
        return server

    def _see_server(self) -> None:
        self._quarantine.see(self._server())
        if left := self._quarantine.left:
            logger.warning("this Redis has just started, or taken over: no new runs for %.0f s", left)
        self._tell_gap()

    @property
    def trouble(self) -> str | None:
        if not self._client.connected:
            return "Redis cannot be reached"
        if left := self._quarantine.left:
            return f"Redis has just started or taken over; no new runs for another {left:.0f} s"
        return None

    async def claim(self, lease: Lease) -> Claim:
        """See the contract. While Redis does not answer, tries go on for `claim_patience`, with the same nonce."""
        give_up_at = trio.current_time() + self.timings.claim_patience
        while True:
            server = await self._trusted_server(give_up_at)
            try:
                return await self._try_claim(lease, server)
            except (LinkError, RedisError) as exc:
                if _is_full(exc):
                    raise _unavailable("The server that keeps the sessions is full; nothing was started.") from exc
                if trio.current_time() + RETRY >= give_up_at:
                    raise _unavailable("The session could not be claimed; nothing was started.") from exc
            await trio.sleep(RETRY)

    async def _trusted_server(self, until: float) -> str | None:
        """The run id of the server, once it is out of quarantine; the claim is sent to that very server only.

        It is read together with the quarantine's state: a checkpoint between the two could let in another server.
        """
        while left := self._quarantine.left:
            if trio.current_time() + left > until:
                raise BackendUnavailable(
                    "The server that keeps the sessions has just started; nothing was started.", retry_after=left
                )
            await trio.sleep(left)
        return self._client.server_run_id

    async def _try_claim(self, lease: Lease, on: str | None) -> Claim:
        digest = lease.key.digest
        _, (owner, stopped) = await self._ask(
            self._scripts.index(
                self._layout.shard_of(digest),
                "add",
                _ms(self.timings.lease),
                _ms(self.timings.session_ttl),
                digest,
            ),
            self._scripts.lead(
                lease.run_id,
                "claim",
                _ms(self.timings.session_ttl),
                digest,
                lease.key.user_id,
                lease.key.session_id,
            ),
            only_on=on,
        )
        if _text(owner) != digest:
            return Taken()
        if stopped:
            # Stopped by its run id alone, before anybody knew its session: from here on an ordinary tombstone.
            noted = (self._layout.run(lease.run_id), "stop:", f"stop:{lease.key.user_id}")
            await self._ask(self._scripts.bind("stop", digest, lease.run_id, ""), ("HDEL", *noted), only_on=on)
        [answer] = await self._ask(
            self._scripts.bind("claim", digest, lease.run_id, lease.node_id, lease.nonce), only_on=on
        )
        match [_text(part) for part in answer]:
            case ["OK", token]:
                return Granted(int(token))
            case ["BUSY", run_id, ms]:
                return Busy(run_id, max(1.0, min(int(ms) / 1000, self.timings.lease)))
            case ["ENDED", state, reason]:
                return Ended(RunState(state), reason or None)
        raise AssertionError(answer)

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        answers: list[Renewal] = []
        for start in range(0, len(leases), HEARTBEATS_AT_ONCE):
            part = leases[start : start + HEARTBEATS_AT_ONCE]
            calls: list[Any] = [
                self._scripts.bind("heartbeat", lease.key, lease.run_id, lease.token) for lease in part
            ]
            leads = [("PEXPIRE", self._layout.run(lease.run_id), _ms(self.timings.session_ttl)) for lease in part]
            with _translated("The leases could not be renewed."):
                replies = await self._ask(*calls, *leads)
            answers += [Renewal[_text(reply[0])] for reply in replies[: len(part)]]
        return answers

    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        if key is None and run_id is None:
            raise ValueError("a stop names a session, a run, or both")
        with _translated("The stop could not be delivered; it may be sent again."):
            if run_id is None:
                return await self._stop(key, "*")
            return await self._stop_run(key, run_id, user_id)

    async def _stop_run(self, key: SessionKey | None, run_id: str, user_id: str | None) -> StopAnswer:
        call: ScriptCall | tuple[Any, ...]
        if key is None:
            call = self._scripts.lead(run_id, "stop", _ms(self.timings.tombstone), user_id or "")
        else:
            call = ("HMGET", self._layout.run(run_id), "h", "user")
        [known] = await self._ask(call)
        digest, user = (_text(value) for value in known)
        if not digest:
            return (
                StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
                if key is None
                else await self._stop(key, run_id)
            )
        if (key is not None and key.digest != digest) or user_id not in (None, user):
            # Another's run: the answer is that for an unknown one, and nothing is stored.
            return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
        return await self._stop(digest, run_id)

    async def _stop(self, session: SessionKey | str | None, run_id: str) -> StopAnswer:
        assert session is not None  # noqa: S101
        [answer] = await self._ask(self._scripts.bind("stop", session, run_id, ""))
        match [_text(part) for part in answer]:
            case ["ACCEPTED", run, node]:
                return StopAnswer(
                    outcome=StopOutcome.ACCEPTED, run_id=run, state=RunState.RUNNING, node_id=node or None
                )
            case ["PENDING"]:
                return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
            case ["ENDED", run, state, node]:
                return StopAnswer(
                    outcome=StopOutcome.ENDED, run_id=run, state=RunState(state), node_id=node or None
                )
            case ["NOT_RUNNING", state]:
                return StopAnswer(outcome=StopOutcome.NOT_RUNNING, state=RunState(state))
        raise AssertionError(answer)

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        call = self._scripts.bind(
            "finish",
            lease.key,
            lease.run_id,
            str(lease.token) if lease.token else "",
            lease.node_id,
            lease.nonce,
            ending.state.value,
            ending.cause.value,
            ending.cleanup.value,
            int(ending.cleanup_interrupted),
            int(ending.stop_requested),
        )
        # The index keeps the session until the reaper has looked: another run may have claimed it by now.
        with _translated("The end of the run could not be written."):
            fields, _ = await self._ask(
                call, ("PEXPIRE", self._layout.run(lease.run_id), _ms(self.timings.retention))
            )
        return _record(lease.run_id, lease.key, fields)

    async def run_status(self, run_id: str) -> RunRecord | None:
        with _translated("The run could not be looked up."):
            [known] = await self._ask(("HMGET", self._layout.run(run_id), "h", "user", "session"))
            digest, user, session = (_text(value) for value in known)
            if not digest:
                return None
            [answer] = await self._ask(self._scripts.bind("status", digest, run_id))
        return _record(run_id, SessionKey(user, session), answer[4]) if answer[4] else None

    async def status(self, key: SessionKey) -> SessionStatus:
        with _translated("The session could not be looked up."):
            [answer] = await self._ask(self._scripts.bind("status", key, ""))
        state, run_id, node_id, last = (_text(part) for part in answer[:4])
        return SessionStatus(
            state=RunState(state),
            run_id=run_id or None,
            node_id=node_id or None,
            last_activity=int(last) / 1000 if last else None,
        )

    async def listen(
        self,
        node_id: str,
        deliver: Deliver,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        channel = self._layout.node_channel(node_id).encode()
        self._deliver[channel] = deliver
        try:
            await self._listener.subscribe(channel)
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._listener.unsubscribe(channel)
            del self._deliver[channel]

    def _hear(self, channel: bytes, payload: bytes) -> None:
        run_id, _, token = payload.decode().partition(" ")
        if (deliver := self._deliver.get(channel)) is not None:
            deliver(StopSignal(run_id, int(token)))

    def _tell_gap(self) -> None:
        for deliver in self._deliver.values():
            deliver(Resync())

    async def _ask(self, *calls: ScriptCall | tuple[Any, ...], only_on: str | None = None) -> Any:
        """The answers of one round trip; the first refusal is raised."""
        replies = await self._client.pipeline(calls, only_on=only_on)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies


def _unavailable(detail: str) -> BackendUnavailable:
    return BackendUnavailable(detail, retry_after=1.0)


@contextmanager
def _translated(detail: str) -> Iterator[None]:
    """What keeps the server from answering becomes ours here, be it the link or a refusal: both may pass."""
    try:
        yield
    except (LinkError, RedisError) as exc:
        if isinstance(exc, RedisError):
            logger.warning("Redis refused: %s", exc)
        raise _unavailable(detail) from exc


def _is_full(error: Exception) -> bool:
    """Before Redis 7 a script wraps the refusal in a message of its own."""
    return isinstance(error, OutOfMemoryError) or (isinstance(error, RedisError) and "-OOM " in str(error))


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _text(value: bytes | int | None) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)


def _record(run_id: str, key: SessionKey, pairs: Sequence[bytes]) -> RunRecord:
    """A run record from what HGETALL gives inside a script: names and values in turn."""
    fields = {_text(pairs[i]): _text(pairs[i + 1]) for i in range(0, len(pairs), 2)}
    return RunRecord(
        run_id=run_id,
        key=key,
        state=RunState(fields["state"]),
        reason=fields.get("reason"),
        token=int(fields.get("tok", "0")),
        node_id=fields.get("node", ""),
        started_at=int(fields["started"]) / 1000 if "started" in fields else None,
        ended_at=int(fields["ended"]) / 1000 if "ended" in fields else None,
        stop_requested=fields.get("stop_requested") == "1",
        cleanup=CleanupResult(fields.get("cleanup", "none")),
        cleanup_interrupted=fields.get("cleanup_interrupted") == "1",
    )
