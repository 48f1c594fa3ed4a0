"""The interrupt backend of several nodes. Redis keeps leases and stops; pub/sub only shortens waiting."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from ..abc import (
    MAX_INPUT,
    MAX_QUEUED,
    BaseInterruptBackend,
    Claim,
    IdempotencyKeys,
    InputAnswer,
    InputSignal,
    Lease,
    QuestionBoard,
    Renewal,
    Resync,
    RunInbox,
    RunListing,
    RunWakeups,
    Signal,
    StopAnswer,
    StopOutcome,
    StopSignal,
    Taken,
)
from ..errors import BackendUnavailable, ConfigurationError
from ..protocol.ids import SessionKey
from ..protocol.keys import Layout
from ..protocol.lifecycle import Cause, Ending, RunRecord, RunState, SessionStatus
from ..protocol.timings import Timings
from ..redis import LinkError, RedisLink, RedisURL, ScriptCall, ServerInfo, is_full, unavailable_on_error
from .answers import claim_answer, record_from, stop_answer, text
from .directory import list_runs, read_records
from .probe import ServerProbe
from .quarantine import Quarantine
from .reaper import reap_forever
from .scripts import Scripts

__all__ = ["RedisInterruptBackend"]

logger = logging.getLogger("trio_agentapp.interrupts")

HEARTBEATS_AT_ONCE = 500
"""Leases that are renewed in one pipeline. Further leases follow in the next one."""

MAX_LISTED = 1000
"""Runs of one user that can be listed. The oldest are left out."""

RETRY = 0.2
"""Seconds between two attempts of a claim while Redis does not answer."""


class RedisInterruptBackend(BaseInterruptBackend, RunListing, RunInbox, QuestionBoard, IdempotencyKeys, RunWakeups):
    """Leases and stops over one Redis server, for any number of nodes.

    A process uses two connections, for any number of runs. An operation that cannot reach the server raises
    `BackendUnavailable`; nothing is started then.

    Args:
        url: `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.
        prefix: the beginning of all keys. Apps with different prefixes share nothing on a server.
        timings: must be the same on all nodes of an app.

    Raises:
        ConfigurationError: the URL or the prefix cannot work.
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
        self.timings = timings or Timings()
        self.layout = Layout(prefix)
        self.link = RedisLink(
            RedisURL.parse(url), credential_provider=credential_provider, call_timeout=self.timings.call_timeout
        )
        self.link.on_gap.append(self._request_resync)
        self._quarantine = Quarantine(self.timings.lease)
        self._listeners: list[Callable[[Signal], None]] = []
        self._scripts = Scripts(self.layout, self.timings, allow_oom=False)
        self._probe = ServerProbe(self.link, self.layout, self._scripts)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the two connections, and reap expired leases, until cancelled.

        Raises, before it has started:
            ConfigurationError: the server refuses the log-in, may evict keys of running sessions, or can never
                accept claims.
            LinkError: it cannot be reached.
        """
        self.link.renew()
        with _refusing_the_start():
            async with self.link.serving(self._connected), trio.open_nursery() as nursery:
                nursery.start_soon(self._probe.ask_forever, name="Redis probe")
                task_status.started()
                await reap_forever(self.link, self.layout, self._scripts, self.timings)

    async def _connected(self) -> None:
        await self._probe.check_settings()
        self.link.client.on_reconnect.append(self._see_server)
        server = self._see_server()
        version = (server.version or "0").partition(".")[0]
        self._scripts = Scripts(self.layout, self.timings, allow_oom=int(version) >= 7)
        self._probe = ServerProbe(self.link, self.layout, self._scripts)
        await self._probe.begin()

    def _see_server(self) -> ServerInfo:
        server = self.link.client.server
        assert server is not None  # noqa: S101  there was a connection
        self._quarantine.see(server)
        if left := self._quarantine.left:
            logger.warning("this Redis has just started or taken over: no new runs for %.0f s", left)
        self._request_resync()
        return server

    @property
    def trouble(self) -> str | None:
        if refusal := self._probe.refusal:
            return refusal
        if not self.link.client.connected:
            return "Redis cannot be reached"
        if left := self._quarantine.left:
            return f"Redis has just started or taken over; no new runs for another {left:.0f} s"
        return None

    async def claim(self, lease: Lease) -> Claim:
        """Claim a session, as the contract says.

        While Redis does not answer, repeat it for `claim_patience` seconds.
        """
        give_up_at = trio.current_time() + self.timings.claim_patience
        while True:
            server = await self._trusted_server(give_up_at)
            try:
                return await self._try_claim(lease, server)
            except (LinkError, RedisError) as exc:
                self._probe.hurry()
                if is_full(exc):
                    raise _unavailable("Redis is full; nothing was started.") from exc
                if trio.current_time() + RETRY >= give_up_at:
                    raise _unavailable("The session could not be claimed; nothing was started.") from exc
            await trio.sleep(RETRY)

    async def _trusted_server(self, until: float) -> str | None:
        """Wait until the server is out of quarantine, and return its run id. The claim is sent to that server only.

        There is no checkpoint between the check and the read of the run id, since the server could change there.
        """
        while left := self._quarantine.left:
            if trio.current_time() + left > until:
                raise BackendUnavailable("Redis has just started; nothing was started.", retry_after=left)
            await trio.sleep(left)
        return self.link.client.server_run_id

    async def _try_claim(self, lease: Lease, on: str | None) -> Claim:
        digest = lease.key.digest
        _, (owner, stopped) = await self.link.ask(
            self._scripts.index(
                self.layout.shard_of(digest),
                "add",
                _ms(self.timings.lease),
                _ms(self.timings.session_ttl),
                digest,
            ),
            self._scripts.lookup(
                lease.run_id,
                "claim",
                _ms(self.timings.session_ttl),
                digest,
                lease.key.user_id,
                lease.key.session_id,
            ),
            only_on=on,
        )
        if text(owner) != digest:
            return Taken()
        if stopped:
            # The run was stopped by its id alone, before its session was known. Make an ordinary tombstone of that.
            noted = (self.layout.run(lease.run_id), "stop:", f"stop:{lease.key.user_id}")
            await self.link.ask(self._scripts.bind("stop", digest, lease.run_id, ""), ("HDEL", *noted), only_on=on)
        call = self._scripts.bind(
            "claim",
            digest,
            lease.run_id,
            lease.node_id,
            lease.nonce,
            lease.place or "",
            MAX_QUEUED,
            *lease.fallback_events.get(Cause.OWNER_LOST, [b""]),
            *lease.fallback_events.get(Cause.STOPPED_BEFORE_START, []),
        )
        index = self.layout.user(lease.key.user_id)
        [answer, *_] = await self.link.ask(
            call,
            ("ZADD", index, "NX", int(time.time() * 1000), lease.run_id),
            ("ZREMRANGEBYRANK", index, 0, -1 - MAX_LISTED),
            ("PEXPIRE", index, _ms(self.timings.session_ttl)),
            only_on=on,
        )
        return claim_answer(answer, self.timings)

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        answers: list[Renewal] = []
        for start in range(0, len(leases), HEARTBEATS_AT_ONCE):
            part = leases[start : start + HEARTBEATS_AT_ONCE]
            calls: list[Any] = [
                self._scripts.bind("heartbeat", lease.key, lease.run_id, lease.token) for lease in part
            ]
            names = {self.layout.run(lease.run_id) for lease in part}
            names |= {self.layout.user(lease.key.user_id) for lease in part}
            expiries = [("PEXPIRE", name, _ms(self.timings.session_ttl)) for name in names]
            with unavailable_on_error("The leases could not be renewed."):
                replies = await self.link.ask(*calls, *expiries)
            answers += [Renewal[text(reply[0])] for reply in replies[: len(part)]]
        return answers

    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        with unavailable_on_error("The stop could not be delivered. It may be sent again."):
            if run_id is not None:
                return await self._stop_run(key, run_id, user_id)
            if key is None:
                raise ValueError("a stop needs a session, a run id, or both")
            return await self._stop(key, "*")

    async def _stop_run(self, key: SessionKey | None, run_id: str, user_id: str | None) -> StopAnswer:
        call: ScriptCall | tuple[Any, ...]
        if key is None:
            call = self._scripts.lookup(run_id, "stop", _ms(self.timings.tombstone), user_id or "")
        else:
            call = ("HMGET", self.layout.run(run_id), "h", "user")
        [known] = await self.link.ask(call)
        digest, user = (text(value) for value in known)
        if not digest and key is not None:
            return await self._stop(key, run_id)
        if not digest or (key is not None and key.digest != digest) or user_id not in (None, user):
            # For a run of another session or user nothing is stored, and the answer is the same as for an unknown
            # run.
            return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
        return await self._stop(digest, run_id)

    async def _stop(self, session: SessionKey | str, run_id: str) -> StopAnswer:
        [answer] = await self.link.ask(self._scripts.bind("stop", session, run_id, ""))
        return stop_answer(answer, run_id)

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
            ending.terminal_event or b"",
            *(lease.opening if ending.terminal_event and not lease.token else ()),
        )
        # The session stays in the lease index, because another run may have claimed it by now. The reaper removes
        # it.
        with unavailable_on_error("The end of the run could not be written."):
            fields, _ = await self.link.ask(
                call, ("PEXPIRE", self.layout.run(lease.run_id), _ms(self.timings.retention))
            )
        return record_from(lease.run_id, lease.key, fields)

    async def run_status(self, run_id: str) -> RunRecord | None:
        with unavailable_on_error("The run could not be looked up."):
            [record] = await read_records(self.link, self.layout, self._scripts, [run_id])
        return record

    async def status(self, key: SessionKey) -> SessionStatus:
        with unavailable_on_error("The session could not be looked up."):
            [answer] = await self.link.ask(self._scripts.bind("status", key, ""))
        state, run_id, node_id, last = (text(part) for part in answer[:4])
        return SessionStatus(
            state=RunState(state),
            run_id=run_id or None,
            node_id=node_id or None,
            last_activity=int(last) / 1000 if last else None,
        )

    @asynccontextmanager
    async def watching(self, key: SessionKey, wake: Callable[[str], object]) -> AsyncIterator[None]:
        def receive(payload: bytes) -> None:
            wake(payload.partition(b" ")[0].decode())

        async with self.link.subscribed(self.layout.session_channel(key.digest), receive):
            yield

    async def send_input(self, key: SessionKey, run_id: str, message: bytes) -> InputAnswer:
        with unavailable_on_error("The message could not be delivered."):
            [answer] = await self.link.ask(self._scripts.bind("input", key, run_id, message, MAX_INPUT))
        return InputAnswer[text(answer[0])]

    async def take_input(self, lease: Lease, received: int) -> Sequence[bytes]:
        call = self._scripts.bind("take", lease.key, lease.run_id, lease.token, received)
        with unavailable_on_error("The messages for the run could not be fetched."):
            [messages] = await self.link.ask(call)
        return list(messages)

    async def post_questions(self, lease: Lease, questions: bytes) -> None:
        call = self._scripts.bind("questions", lease.key, lease.run_id, lease.token, questions)
        with unavailable_on_error("The questions of the run could not be posted."):
            await self.link.ask(call)

    async def list_runs(
        self, user_id: str, *, before: str | None = None, limit: int = 100
    ) -> tuple[Sequence[RunRecord], str | None]:
        with unavailable_on_error("The runs could not be looked up."):
            return await list_runs(self.link, self.layout, self._scripts, user_id, before, limit)

    async def pin(self, name: str, value: str) -> str:
        key = self.layout.pin(name)
        with unavailable_on_error("The Idempotency-Key could not be looked up; nothing was started."):
            _, kept = await self.link.ask(
                ("SET", key, value, "PX", _ms(self.timings.session_ttl), "NX"), ("GET", key)
            )
        return text(kept) or value

    async def unpin(self, name: str, value: str) -> None:
        with unavailable_on_error("The Idempotency-Key could not be forgotten."):
            await self.link.ask(self._scripts.unpin(self.layout.pin(name), value))

    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        def receive(payload: bytes) -> None:
            run_id, token, *more = payload.decode().split(" ")
            deliver(InputSignal(run_id) if more else StopSignal(run_id, int(token)))

        self._listeners.append(deliver)
        try:
            with _refusing_the_start():
                async with self.link.subscribed(self.layout.node_channel(node_id), receive, confirmed=True):
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self._listeners.remove(deliver)

    def _request_resync(self) -> None:
        for deliver in self._listeners:
            deliver(Resync())


def _unavailable(detail: str) -> BackendUnavailable:
    return BackendUnavailable(detail, retry_after=1.0)


@contextmanager
def _refusing_the_start() -> Iterator[None]:
    """Turn a refusal of the log-in, or of the first commands, into a ConfigurationError."""
    try:
        yield
    except RedisError as exc:
        raise ConfigurationError(f"interrupt_redis_url: {exc}") from exc


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
