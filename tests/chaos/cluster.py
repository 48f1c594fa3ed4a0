"""Nodes in processes of their own over one Redis, and a client that writes down what it sees of them."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import redis
import trio

from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.keys import Layout
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.testing.faulty_proxy import FaultyProxy
from trio_agentapp.testing.redis_server import RedisServer

from .checker import Rules, Verdict, judge
from .client import Broken, Exchange, call
from .history import TERMINAL, Fault, Flaw, History, Record, Sample, Start, Stop, Stuck, Terminal

__all__ = ["TIMEOUT", "SHORT", "USER", "Chat", "Cluster", "Node"]

USER = "u"
NODE = Path(__file__).parent / "node.py"
READY = re.compile(r" is ready on http://127\.0\.0\.1:(\d+) ")

UNLIMITED = {
    f"AGENTAPP_{name}": value
    for name, value in (
        ("REQUESTS_PER_SECOND", "0"),
        ("FRAMES_PER_SECOND", "0"),
        ("MAX_RUNS_PER_USER", "10000"),
    )
}
"""All clients have one address, and some one user."""

TIMEOUT = 20.0
"""Seconds. What is waited for happens at once when the machine is not busy."""

SHORT = Timings(
    lease=2.0,
    heartbeat=0.3,
    cutoff=1.0,
    offline_cleanup=0.5,
    margin=0.5,
    reaper=0.5,
    call_timeout=0.4,
    call_retry=0.1,
    claim_patience=0.9,
)

LONG_LEASE = attrs.evolve(SHORT, lease=6.0, cutoff=4.5)
"""For runs that must keep their lease through lost answers, also on a machine that is busy."""

STATES = {"completed": "FINISHED", "canceled": "STOPPED", "failed": "ERROR", "rejected": "ERROR"}

_processes: set[subprocess.Popen[bytes]] = set()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@atexit.register
def _kill_all() -> None:
    for process in _processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@attrs.define(eq=False)
class Node:
    """One process of the app; `start` may be called again after a kill, and makes a new node.

    `events`: its event store. `stalled`: seconds until a reader that takes nothing is cut, if not the usual ones.
    `way`: "run" (app.run) or "hypercorn" (the bare command).
    """

    name: str
    url: str
    prefix: str
    timings: Timings
    folder: Path
    proxy: FaultyProxy | None = None
    events: str = "local"
    stalled: float | None = None
    way: str = "run"
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        given = {
            "name": self.name,
            "url": self.url,
            "prefix": self.prefix,
            "timings": attrs.asdict(self.timings),
            "lines": str(self.folder / "lines"),
            "events": self.events,
            "stalled": self.stalled,
        }
        self.port = 0
        command = [sys.executable, "-W", "error", str(NODE)]
        if self.way == "hypercorn":
            self.port = free_port()
            bind = ("-k", "trio", "-b", f"127.0.0.1:{self.port}")
            command = [sys.executable, "-W", "error", "-m", "hypercorn", *bind, f"{NODE.stem}:app"]
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=NODE.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **UNLIMITED, "CHAOS_NODE": json.dumps(given)},
                start_new_session=True,
            )
        _processes.add(self._process)

    @property
    def _log_path(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def log(self) -> str:
        return self._log_path.read_text() if self._log_path.exists() else ""

    @property
    def running(self) -> bool:
        return self._process is not None

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(process.wait)
            _processes.discard(process)

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.send_signal(signal.SIGTERM)
        return await self.wait_ended()

    async def wait_ended(self) -> int:
        """The exit code of a node that was told to end.

        Told once more on its last steps, when nothing of it runs any more, it would die of the signal itself.
        """
        process, self._process = self._process, None
        assert process is not None
        while (code := process.poll()) is None:
            await trio.sleep(0.02)
        _processes.discard(process)
        return code

    async def wait_ready(self, seconds: float = 30.0) -> None:
        """Until /readiness answers 200."""
        with self.deadline(seconds, "ready"):
            while True:
                assert self._process is not None
                assert self._process.poll() is None, f"{self.name} has ended:\n{self.log}"
                if not self.port and (match := READY.search(self.log)):
                    self.port = int(match[1])
                if self.port:
                    with contextlib.suppress(Broken):
                        status, _ = await call(self.port, "GET", "/readiness")
                        if status == 200:
                            return
                await trio.sleep(0.03)

    @contextmanager
    def deadline(self, seconds: float, what: str) -> Iterator[None]:
        try:
            with trio.fail_after(seconds):
                yield
        except trio.TooSlowError:
            raise AssertionError(f"{self.name}: not {what} in {seconds:g} s\n{self.log[-4000:]}") from None


@attrs.define(eq=False)
class Chat:
    """A run as its client sees it."""

    run: str
    session: str
    node: Node
    status: int = 0
    state: str | None = None
    code: str | None = None
    begun: trio.Event = attrs.field(factory=trio.Event)
    """The first event came, or none will."""
    done: trio.Event = attrs.field(factory=trio.Event)
    """The stream has ended, however."""
    exchange: Exchange | None = None

    def hang_up(self) -> None:
        if self.exchange is not None:
            self.exchange.close()


class Cluster:
    """Some nodes over one Redis. What is asked of them through this object is written down in `history`."""

    def __init__(self, server: RedisServer, timings: Timings, folder: Path) -> None:
        self.server = server
        self.timings = timings
        self.folder = folder
        self.prefix = f"chaos-{secrets.token_hex(4)}"
        self.layout = Layout(self.prefix)
        self.nodes: list[Node] = []
        self.history = History()
        self.killed_at: dict[str, float] = {}
        self.redis = redis.Redis(unix_socket_path=str(server.unix_socket), socket_timeout=5, decode_responses=True)
        self._nursery: trio.Nursery | None = None
        self._last_seen: dict[str, tuple[str, str, str]] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        server: RedisServer,
        *,
        nodes: int = 2,
        timings: Timings = SHORT,
        proxied: bool = False,
        **more: Any,
    ) -> AsyncIterator[Cluster]:
        """`proxied`: each node reaches Redis through a proxy of its own; `more` is for `Node`."""
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentapp-chaos-")))
            cluster = cls(server, timings, folder)
            stack.callback(cluster.redis.close)
            for number in range(nodes):
                proxy = await stack.enter_async_context(FaultyProxy.open(server.port)) if proxied else None
                url = server.url_for(port=proxy.port) if proxy is not None else server.url
                node = Node(f"n{number}", url, cluster.prefix, timings, folder, proxy, **more)
                stack.push_async_callback(node.kill)
                node.start()
                cluster.nodes.append(node)
            for node in cluster.nodes:
                await node.wait_ready()
            async with trio.open_nursery() as nursery:
                cluster._nursery = nursery
                try:
                    yield cluster
                finally:
                    nursery.cancel_scope.cancel()

    def other(self, node: Node) -> Node:
        return random.choice([each for each in self.nodes if each is not node and each.running])

    def any_node(self) -> Node:
        return random.choice([node for node in self.nodes if node.running])

    def session(self) -> str:
        return f"s-{secrets.token_hex(6)}"

    # What clients do.

    async def start(
        self, node: Node, session: str, run: str | None = None, *, allowed: tuple[int, ...] = (), **extra: Any
    ) -> Chat:
        """Ask for a run; what comes of it is read to its end by a task of its own.

        `allowed`: statuses of refusals that are in order.
        """
        chat = Chat(run or f"r-{secrets.token_hex(8)}", session, node)
        body = {"input": "go", "user_id": USER, "session_id": session, "id": chat.run, **extra}
        if isinstance(body["input"], str):
            body["input"] = [{"role": "user", "type": "message", "content": [{"type": "text", "text": "go"}]}]
        asked_at = time.monotonic()
        code = None
        try:
            with trio.fail_after(TIMEOUT):
                chat.exchange = await Exchange.open(node.port)
                asked_at = time.monotonic()
                chat.status = await chat.exchange.ask("POST", "/process", body)
                if chat.status != 200:
                    code = (await chat.exchange.json() or {}).get("code")
        except (Broken, trio.TooSlowError):
            chat.status = 0
        self.history.starts.append(
            Start(
                t0=asked_at,
                t1=time.monotonic(),
                run=chat.run,
                session=session,
                node=node.name,
                status=chat.status,
                code=code,
                allowed=allowed,
            )
        )
        if chat.status == 200:
            assert self._nursery is not None
            self._nursery.start_soon(self._read, chat)
        else:
            chat.code = code
            chat.hang_up()
            chat.begun.set()
            chat.done.set()
        return chat

    async def _read(self, chat: Chat) -> None:
        assert chat.exchange is not None
        rest = b""
        try:
            async for piece in chat.exchange.pieces():
                chat.begun.set()
                *frames, rest = (rest + piece).split(b"\n\n")
                for frame in frames:
                    self._take(chat, frame)
        except Broken:
            pass
        finally:
            chat.hang_up()
            chat.begun.set()
            chat.done.set()

    def _take(self, chat: Chat, frame: bytes) -> None:
        # Most frames are deltas: only those of the response itself are worth parsing.
        _, found, data = frame.partition(b"\ndata: ")
        if not found or b'"object":"response"' not in data:
            return
        event = json.loads(data)
        if event["status"] not in STATES:
            return
        if chat.state is not None:
            self.history.stuck.append(Stuck(t=time.monotonic(), what=f"run {chat.run}: two terminal events"))
        chat.state = STATES[event["status"]]
        chat.code = (event["error"] or {}).get("code")
        self.history.terminals.append(Terminal(t=time.monotonic(), run=chat.run, state=chat.state, code=chat.code))

    async def stop(
        self,
        node: Node,
        *,
        session: str | None = None,
        run: str | None = None,
        wait: bool = False,
        user: str = USER,
    ) -> Stop:
        body: dict[str, Any] = {"input": [], "user_id": user}
        body |= {} if session is None else {"session_id": session}
        body |= {} if run is None else {"run_id": run}
        asked_at, status, answer = time.monotonic(), 0, None
        try:
            with trio.fail_after(TIMEOUT):
                status, answer = await call(node.port, "POST", "/stop?wait=1" if wait else "/stop", body)
        except (Broken, trio.TooSlowError):
            pass
        receipt = answer if status == 200 and isinstance(answer, dict) else {}
        stop = Stop(
            t0=asked_at,
            t1=time.monotonic(),
            node=node.name,
            session=session,
            run=run,
            status=status,
            accepted=receipt.get("accepted", False),
            stopped=receipt.get("stopped", False),
            target=receipt.get("run_id"),
            state=receipt.get("state"),
            foreign=user != USER,
        )
        self.history.stops.append(stop)
        return stop

    async def stop_until_over(self, chat: Chat, *, timeout: float = TIMEOUT) -> None:
        """Ask until the run has ended, from any node: for what a scenario leaves behind."""
        with trio.move_on_after(timeout) as scope:
            while not chat.done.is_set() or (chat.status == 200 and chat.state is None):
                stop = await self.stop(self.any_node(), session=chat.session, run=chat.run)
                if stop.status == 200 and not stop.accepted:
                    break
                with trio.move_on_after(0.5):
                    await chat.done.wait()
                if chat.done.is_set():
                    break
        if scope.cancelled_caught:
            self.stuck(f"run {chat.run} does not stop")

    async def wait_done(self, chat: Chat, seconds: float = TIMEOUT) -> None:
        with trio.move_on_after(seconds) as scope:
            await chat.done.wait()
        if scope.cancelled_caught:
            self.stuck(f"run {chat.run} of session {chat.session} has not ended in {seconds:g} s")
            chat.hang_up()

    # What the test does to them.

    def flaw(self, rule: str, what: str) -> None:
        self.history.flaws.append(Flaw(rule=rule, what=what))

    def stuck(self, what: str) -> None:
        self.history.stuck.append(Stuck(t=time.monotonic(), what=what))

    @contextmanager
    def fault(self, kind: str, node: Node | None = None) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.history.faults.append(
                Fault(kind=kind, t0=began, t1=time.monotonic(), node=node.name if node else None)
            )

    async def terminate(self, node: Node) -> None:
        """SIGTERM, and wait for the end, which must be a good one."""
        node.send_signal(signal.SIGTERM)
        await self.wait_ended(node)

    async def wait_ended(self, node: Node) -> None:
        with node.deadline(TIMEOUT, "ended"):
            assert await node.wait_ended() == 0, f"{node.name} ended badly:\n{node.log[-2000:]}"

    async def kill(self, node: Node) -> float:
        """SIGKILL; when it was dead."""
        with self.fault("kill", node):
            await node.kill()
        return time.monotonic()

    async def pause(self, node: Node, seconds: float) -> None:
        with self.fault("pause", node):
            node.send_signal(signal.SIGSTOP)
            await trio.sleep(seconds)
            node.send_signal(signal.SIGCONT)

    async def wait(self, condition: Callable[[], object], what: str, seconds: float = TIMEOUT) -> None:
        try:
            with trio.fail_after(seconds):
                while not condition():
                    await trio.sleep(0.005)
        except trio.TooSlowError:
            raise AssertionError(f"not {what} in {seconds:g} s") from None

    async def wait_ready(self) -> None:
        for node in self.nodes:
            if node.running:
                await node.wait_ready()

    # What Redis says.

    def _base(self, session: str) -> str:
        return self.layout.base(SessionKey(USER, session).digest)

    def session_record(self, session: str) -> dict[str, str]:
        return dict(self.redis.hgetall(self._base(session) + "s"))

    def run_record(self, session: str, run: str) -> dict[str, str]:
        return dict(self.redis.hgetall(f"{self._base(session)}r:{run}"))

    def read_records(self, source: str = "redis", *, newest: int | None = None) -> None:
        """All run records that are new or have changed, into the history; or those of the newest runs.

        Read, not looked at: what has expired is not reaped by this.
        """
        starts = self.history.starts if newest is None else self.history.starts[-newest:]
        session_of = {start.run: start.session for start in starts}
        now = time.monotonic()
        with self.redis.pipeline(transaction=False) as pipe:
            for run, session in session_of.items():
                pipe.hmget(f"{self._base(session)}r:{run}", "state", "reason", "tok")
            for run, (state, reason, token) in zip(session_of, pipe.execute(), strict=True):
                if state is not None and self._last_seen.get(run) != (state, reason, token):
                    self._last_seen[run] = (state, reason, token)
                    self.history.records.append(
                        Record(t=now, run=run, state=state, reason=reason, token=int(token or 0), source=source)
                    )

    def sample(self, sessions: Iterable[str]) -> None:
        """Session records with their runs', each pair in one step."""
        look = self.redis.register_script(
            "local s = redis.call('HMGET', KEYS[1], 'state', 'run')\n"
            "if not s[2] then return {} end\n"
            "return {s[1], s[2], redis.call('HGET', ARGV[1] .. s[2], 'state')}"
        )
        for session in sessions:
            base = self._base(session)
            found = look(keys=[base + "s"], args=[base + "r:"])
            if found:
                state, run, *run_state = found
                self.history.samples.append(
                    Sample(
                        t=time.monotonic(),
                        session=session,
                        state=state,
                        run=run,
                        run_state=run_state[0] if run_state else None,
                    )
                )

    # The end of a scenario.

    async def settle(self, *, probes: int = 10, seconds: float | None = None) -> None:
        """Nothing runs any more, no session is blocked, and every record is read twice."""
        within = seconds or self.timings.lease + self.timings.reaper + 3.0
        sessions = self.history.sessions()
        blocked = sessions
        end = time.monotonic() + within
        while blocked and time.monotonic() < end:
            await trio.sleep(0.05)
            blocked = [each for each in blocked if self.session_record(each).get("state") == "RUNNING"]
        for session in blocked:
            self.stuck(f"session {session} is RUNNING {within:g} s later: {self.session_record(session)}")
        for node in self.nodes:
            if node.running:
                await self._settle_node(node, end)
        self.sample(sessions)
        self.read_records()
        for session in random.sample(sessions, min(probes, len(sessions))):
            chat = await self.start(self.any_node(), session, seconds=0)
            await self.wait_done(chat)
            if chat.state != "FINISHED":
                self.stuck(
                    f"session {session} cannot be used again: {chat.status} {chat.code} {chat.state} on "
                    f"{chat.node.name}"
                )
        for start in random.sample(self.history.starts, min(probes, len(self.history.starts))):
            await self._read_by_node(start.run)
        self.read_records()
        self.history.read_lines(self.folder / "lines")

    async def _settle_node(self, node: Node, end: float) -> None:
        while True:
            _, found = await call(node.port, "GET", "/test/live")
            if not found["live"]:
                return
            if time.monotonic() > end:
                self.stuck(f"{node.name} has {found['live']} live runs at the end")
                return
            await trio.sleep(0.05)

    async def _read_by_node(self, run: str) -> None:
        status, found = await call(self.any_node().port, "GET", f"/runs/{run}")
        if status == 200 and found["state"] in TERMINAL:
            self.history.records.append(
                Record(t=time.monotonic(), run=run, state=found["state"], reason=found["reason"], source="node")
            )

    def judge(self, *, stop_within: float | None = None, faults: bool = False) -> Verdict:
        within = self.timings.cutoff if faults else self.timings.heartbeat
        rules = Rules(
            lease=self.timings.lease,
            stop_within=1.0 + within if stop_within is None else stop_within,
            faults=faults,
        )
        verdict = judge(self.history, rules)
        if verdict.violations:
            logs = "\n".join(f"-- {node.name}\n{node.log[-1500:]}" for node in self.nodes)
            (self.folder / "violations").write_text("\n".join(map(str, verdict.violations)) + "\n" + logs)
        return verdict
