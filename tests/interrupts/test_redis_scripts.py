"""The Lua scripts, and their twin in Python, through the same random lives.

On real servers, with one thing changed: the scripts read their clock from a key. So time passes when a test says
so, leases end at the exact millisecond, and everything can be compared: replies, wake-ups, keys and their ends.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import attrs
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trio_agentapp.interrupts.scripts import Scripts
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.keys import Layout
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.redis import ScriptCall
from trio_agentapp.testing.redis_server import installed_kinds

from .redis_house import fresh_prefix, old_server
from .redis_twin import Twin

CLOCK = "redis.call('TIME')"

KEYS = [SessionKey("a:b", "c"), SessionKey("a", "b:c")]
RUNS = [f"run-{number:05}" for number in range(4)]
MANY_RUNS = [f"run-{number:05}" for number in range(20)]
NODES = ["node-1", "node-2"]
NONCES = ["x", "y"]
ENDS = [("FINISHED", "returned"), ("STOPPED", "stopped"), ("ERROR", "lease_lost"), ("ERROR", "claim_failed")]
TIMES = [1, 999, 2_000, 5_000, 14_999, 15_000, 15_001, 60_000, 600_000, 3_600_000]

TIMINGS = Timings()
START = 1_700_000_000_000_000

SLACK_MS = 30_000
"""The ends of keys are the server's own, and its clock does go on."""

PLACES = 2
"""Runs that may wait for a session."""


def terminal(number: int, completed_at: int = 0) -> str:
    fields = {"sequence_number": number, "object": "response", "id": "r", "completed_at": completed_at, "x": "ü%1"}
    return json.dumps(fields, separators=(",", ":"))


FALLBACKS = [("",), (terminal(0), "first", "second", terminal(0))]
"""The events that end a run without its owner: kept elsewhere, and kept here."""

keys = st.sampled_from(KEYS)
runs = st.sampled_from(RUNS)
nodes = st.sampled_from(NODES)
nonces = st.sampled_from(NONCES)


@pytest.fixture(scope="module", params=installed_kinds())
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with old_server(request.param) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.kind = request.param
        yield client


class Lives(RuleBasedStateMachine):
    client: Any

    @initialize()
    def begin(self) -> None:
        self.prefix = fresh_prefix()
        self.scripts = Scripts(Layout(self.prefix), TIMINGS, allow_oom=self.client.kind != "redis6")
        self.layout = Layout(self.prefix)
        self.twin = Twin(
            self.prefix,
            **{
                name: int(getattr(TIMINGS, name) * 1000)
                for name in ("lease", "session_ttl", "retention", "tombstone")
            },
        )
        self.twin.micros = START
        self.clock = f"clock-of-{self.prefix}"
        self._set_clock()
        self.tokens = ["", "0", "1"]
        self.greatest: dict[str, int] = {}
        self.terminal: dict[str, dict[str, str]] = {}
        self.forgotten: set[str] = set()
        """Records whose retention was over, of runs that were not claimed anew."""
        self.heard = self.client.pubsub()
        self.heard.psubscribe(f"{self.prefix}:*")
        assert self.heard.get_message(timeout=5)["type"] == "psubscribe"

    def teardown(self) -> None:
        if hasattr(self, "heard"):
            self.heard.close()
            for name in self.client.keys(f"*{self.prefix}*"):
                self.client.delete(name)

    def _set_clock(self) -> None:
        self.client.hset(self.clock, mapping={"s": self.twin.micros // 10**6, "us": self.twin.micros % 10**6})

    def call(self, call: ScriptCall) -> Any:
        source = call.script.source
        assert source.count(CLOCK) <= 1
        source = source.replace(CLOCK, f"redis.call('HMGET', '{self.clock}', 's', 'us')")
        return self.client.execute_command("EVAL", source, *call.arguments)

    def bind(self, name: str, key: SessionKey, *args: str | int) -> Any:
        # A script that needs its clock has it: else time would be real for one of them.
        assert CLOCK in self.scripts._scripts[name].source
        return self.call(self.scripts.bind(name, key, *args))

    @rule(ms=st.sampled_from(TIMES))
    def time_passes(self, ms: int) -> None:
        for name in self.twin.pass_time(ms):
            self.client.delete(name)
            self.terminal.pop(name, None)
            self.forgotten.add(name)
        for name, end in self.twin.ends.items():
            # A little later than the twin says: here it is the twin that lets keys end.
            self.client.pexpire(name, end - self.twin.now + SLACK_MS)
        self._set_clock()

    @rule(back=st.sampled_from([1, 10_000, 5_000_000]))
    def the_clock_is_set_back(self, back: int) -> None:
        """Nothing but tokens may count on it: those grow all the same."""
        before = self.twin.now
        self.twin.micros -= back
        # What is left of the keys' lives does not change with the clock of the scripts.
        for name in self.twin.ends:
            self.twin.ends[name] -= before - self.twin.now
        self._set_clock()

    # What holds after each of them.

    @invariant()
    def all_keys_are_the_same(self) -> None:
        if not hasattr(self, "prefix"):
            return
        twin = self.twin
        names = sorted(self.client.keys(f"{self.prefix}:*"))
        assert names == sorted([*twin.hashes, *twin.zsets, *twin.streams, *twin.lists])
        pipeline = self.client.pipeline(transaction=False)
        for name in names:
            if name in twin.hashes:
                pipeline.hgetall(name)
            elif name in twin.zsets:
                pipeline.zrange(name, 0, -1, withscores=True)
            elif name in twin.lists:
                pipeline.lrange(name, 0, -1)
            else:
                pipeline.xrange(name)
            pipeline.pttl(name)
        answers = pipeline.execute()
        for name, value, left in zip(names, answers[::2], answers[1::2], strict=True):
            if name in twin.hashes:
                assert value == twin.hashes[name], name
            elif name in twin.zsets:
                assert {member: int(score) for member, score in value} == twin.zsets[name], name
            elif name in twin.lists:
                assert value == twin.lists[name], name
            else:
                assert value == [(f"{id}-0", {"e": event}) for id, event in twin.streams[name]], name
            expected = self.twin.ends[name] - self.twin.now
            assert left != -1, f"{name} lives for ever"
            assert expected - SLACK_MS < left <= expected + SLACK_MS, (name, left, expected)

    @invariant()
    def all_wake_ups_are_the_same(self) -> None:
        if not hasattr(self, "prefix"):
            return
        self.client.publish(f"{self.prefix}:end", "")
        told = []
        until = time.monotonic() + 5
        while time.monotonic() < until:
            message = self.heard.get_message(timeout=5)
            if message is not None:
                if message["channel"] == f"{self.prefix}:end":
                    break
                told.append((message["channel"], message["data"]))
        assert told == self.twin.published
        self.twin.published.clear()

    @invariant()
    def terminal_states_stay(self) -> None:
        """S2, and S3: said of the keys, whatever the twin holds.

        Known limit: both hold for as long as the record is kept. A FINISH that comes after `retention` finds
        nothing that it could adopt, and writes an end of its own, while the session may still show the first one.
        """
        if not hasattr(self, "prefix"):
            return
        for name, fields in self.twin.hashes.items():
            if ":r:" in name and fields["state"] not in ("RUNNING", "IDLE"):
                assert self.terminal.setdefault(name, dict(fields)) == fields
        for key in KEYS:
            session = self.twin._session(key.digest)
            if session:
                record = self.twin._record(key.digest, session["run"])
                known = self.twin.r(key.digest, session["run"]) not in self.forgotten
                assert not record or not known or record["state"] == session["state"]


class Sessions(Lives):
    """The scripts of one session's keys."""

    @rule(
        key=keys,
        run=runs,
        node=nodes,
        nonce=nonces,
        place=st.sampled_from(["", "", "last", "last", "first"]),
        fallbacks=st.sampled_from(FALLBACKS),
    )
    def claim(
        self,
        key: SessionKey,
        run: str,
        node: str,
        nonce: str,
        place: str = "",
        fallbacks: tuple[str, ...] = FALLBACKS[0],
    ) -> None:
        answer = self.bind("claim", key, run, node, nonce, place, PLACES, *fallbacks)
        held = self.twin._runs(key.digest, run)
        assert answer == self.twin.claim(key.digest, run, node, nonce, place, PLACES, *fallbacks)
        if answer[0] == "OK":
            token = int(answer[1])
            assert token >= self.greatest.get(key.digest, 0)
            assert held or token > self.greatest.get(key.digest, 0)
            self.greatest[key.digest] = token
            self.tokens.append(answer[1])
            self.forgotten.discard(self.twin.r(key.digest, run))

    @rule(key=keys, run=runs, back=st.integers(1, 4))
    def heartbeat(self, key: SessionKey, run: str, back: int) -> None:
        token = self.tokens[-min(back, len(self.tokens))]
        assert self.bind("heartbeat", key, run, token) == self.twin.heartbeat(key.digest, run, token)

    @precondition(lambda self: self._owners())
    @rule(data=st.data(), back=st.integers(0, 1))
    def heartbeat_of_an_owner(self, data: st.DataObject, back: int) -> None:
        key = data.draw(st.sampled_from(self._owners()))
        session = self.twin._session(key.digest)
        run, token = session["run"], str(int(session["tok"]) - back)
        assert self.bind("heartbeat", key, run, token) == self.twin.heartbeat(key.digest, run, token)

    @precondition(lambda self: self._owners())
    @rule(data=st.data(), node=nodes, nonce=nonces)
    def claim_by_the_run_that_has_it(self, data: st.DataObject, node: str, nonce: str) -> None:
        key = data.draw(st.sampled_from(self._owners()))
        self.claim(key, self.twin._session(key.digest)["run"], node, nonce)

    @precondition(lambda self: self._owners())
    @rule(data=st.data(), off=st.sampled_from([-1, 0, 0]), run=runs)
    def claim_at_the_end_of_a_lease(self, data: st.DataObject, off: int, run: str) -> None:
        key = data.draw(st.sampled_from(self._owners()))
        self.time_passes(max(0, int(self.twin._session(key.digest)["exp"]) - self.twin.now + off))
        self.claim(key, run, "node-3", "z")

    @rule(key=keys, order=st.permutations(RUNS), place=st.sampled_from(["last", "first"]))
    def many_wait(self, key: SessionKey, order: list[str], place: str) -> None:
        for run in order:
            self.time_passes(1)
            self.claim(key, run, "node-1", "x", place)

    @precondition(lambda self: self._owners())
    @rule(data=st.data(), message=st.sampled_from("abc"), received=st.integers(0, 4))
    def input_for_an_owner(self, data: st.DataObject, message: str, received: int) -> None:
        key = data.draw(st.sampled_from(self._owners()))
        session = self.twin._session(key.digest)
        run, token = session["run"], session["tok"]
        assert self.bind("input", key, run, message, 3) == self.twin.input(key.digest, run, message, 3)
        # An owner counts what it has been given.
        known = len(self.twin.lists.get(self.twin.i(key.digest, run), ()))
        known += int(self.twin._record(key.digest, run).get("received", 0))
        received = min(received, known)
        assert self.bind("take", key, run, token, received) == self.twin.take(key.digest, run, token, received)

    @rule(key=keys, run=runs, back=st.integers(1, 4))
    def input_for_whoever(self, key: SessionKey, run: str, back: int) -> None:
        token = self.tokens[-min(back, len(self.tokens))]
        assert self.bind("take", key, run, token, 0) == self.twin.take(key.digest, run, token, 0)
        assert self.bind("input", key, run, "x", 3) == self.twin.input(key.digest, run, "x", 3)

    @rule(key=keys, run=st.sampled_from(MANY_RUNS))
    def claim_with_the_clock_set_back(self, key: SessionKey, run: str) -> None:
        session = self.twin._session(key.digest)
        if session.get("state") == "RUNNING":
            owned = (session["run"], session["tok"], session["owner"], session["nonce"], *ENDS[0])
            self.bind("finish", key, *owned, "done", 0, "0", "")
            self.twin.finish(key.digest, *owned, "0")
        self.the_clock_is_set_back(5_000_000)
        self.claim(key, run, "node-1", "x")

    @precondition(lambda self: self._owners())
    @rule(data=st.data(), off=st.sampled_from([-1, 0, 1]))
    def a_lease_ends(self, data: st.DataObject, off: int) -> None:
        key = data.draw(st.sampled_from(self._owners()))
        self.time_passes(max(0, int(self.twin._session(key.digest)["exp"]) - self.twin.now + off))

    def _owners(self) -> list[SessionKey]:
        return [key for key in KEYS if self.twin._session(key.digest).get("state") == "RUNNING"]

    @rule(key=keys, run=st.sampled_from(["*", "*", *RUNS]))
    def stop(self, key: SessionKey, run: str) -> None:
        assert self.bind("stop", key, run, "") == self.twin.stop(key.digest, run)

    @rule(key=keys, order=st.permutations(MANY_RUNS))
    def stop_many(self, key: SessionKey, order: list[str]) -> None:
        for run in order:
            assert self.bind("stop", key, run, "") == self.twin.stop(key.digest, run)

    @rule(
        key=keys,
        run=runs,
        back=st.integers(0, 3),
        node=nodes,
        nonce=nonces,
        end=st.sampled_from(ENDS),
        stopped=st.sampled_from("01"),
        event=st.sampled_from(["", terminal(0), terminal(7, 5)]),
        first=st.sampled_from([(), (), (terminal(0), terminal(1))]),
    )
    def finish(
        self,
        key: SessionKey,
        run: str,
        back: int,
        node: str,
        nonce: str,
        end: tuple[str, str],
        stopped: str,
        event: str = "",
        first: tuple[str, ...] = (),
    ) -> None:
        token = self.tokens[-min(back, len(self.tokens))] if back else ""
        session = self.twin._session(key.digest)
        if session.get("run") == run and back == 1:
            token = session["tok"]
        answer = self.bind("finish", key, run, token, node, nonce, *end, "done", 0, stopped, event, *first)
        expected = self.twin.finish(key.digest, run, token, node, nonce, *end, stopped, event, *first)
        assert dict(zip(answer[::2], answer[1::2], strict=True)) == expected

    @precondition(lambda self: self._owners())
    @rule(data=st.data(), node=nodes, nonce=nonces, back=st.integers(0, 1))
    def finish_of_an_owner(self, data: st.DataObject, node: str, nonce: str, back: int) -> None:
        key = data.draw(st.sampled_from(self._owners()))
        self.finish(key, self.twin._session(key.digest)["run"], back, node, nonce, ENDS[back], "0")

    @rule(key=keys, run=st.sampled_from(["", *RUNS]))
    def status(self, key: SessionKey, run: str) -> None:
        *told, fields = self.bind("status", key, run)
        assert (told, dict(zip(fields[::2], fields[1::2], strict=True))) == self.twin.status(key.digest, run)

    @rule(key=keys)
    def reap(self, key: SessionKey) -> None:
        assert self.bind("reap", key) == self.twin.reap(key.digest)


class Hints(Lives):
    """What leads to sessions."""

    @rule(key=keys, run=runs)
    def lead_claim(self, key: SessionKey, run: str) -> None:
        ttl = self.twin.session_ttl
        answer = self.call(self.scripts.lookup(run, "claim", ttl, key.digest, key.user_id, key.session_id))
        assert answer == self.twin.lead_claim(run, key.digest, key.user_id, key.session_id)

    @rule(run=runs, user=st.sampled_from(["", "a:b", "a", "eve"]))
    def lead_stop(self, run: str, user: str) -> None:
        answer = self.call(self.scripts.lookup(run, "stop", self.twin.tombstone, user))
        assert answer == self.twin.lead_stop(run, user)

    @rule(key=keys, ms=st.sampled_from([1, 1_000, 15_000]))
    def index_add(self, key: SessionKey, ms: int) -> None:
        shard = self.layout.shard(0)
        call = self.scripts.index(shard, "add", ms, self.twin.session_ttl, key.digest)
        assert self.call(call) == self.twin.index_add(shard, ms, key.digest)

    @rule(members=st.lists(keys, min_size=1, max_size=2))
    def index_settle(self, members: list[SessionKey]) -> None:
        shard = self.layout.shard(0)
        digests = [key.digest for key in members]
        assert self.call(self.scripts.index(shard, "settle", *digests)) == self.twin.index_settle(shard, *digests)

    @rule(at_most=st.integers(1, 3))
    def index_due(self, at_most: int) -> None:
        shard = self.layout.shard(0)
        assert self.call(self.scripts.index(shard, "due", at_most)) == self.twin.index_due(shard, at_most)


@pytest.mark.parametrize(("lives", "examples"), [(Sessions, 40), (Hints, 10)])
def test_random_lives(client: redis.Redis, lives: type[Lives], examples: int) -> None:
    machine = type("LivesOfOneServer", (lives,), {"client": client})
    checks = settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        # A failing life is short enough to be read as it is; to shorten it takes minutes.
        phases=(Phase.generate,),
    )
    run_state_machine_as_test(machine, settings=checks)


def test_without_a_change_of_clock_it_is_the_servers(client: redis.Redis) -> None:
    """The lives above had a clock of their own; here is the server's."""
    scripts = Scripts(Layout(fresh_prefix()), attrs.evolve(TIMINGS), allow_oom=False)
    before = client.time()
    call = scripts.bind("claim", KEYS[0], RUNS[0], "node", "nonce", "", PLACES, "")
    answer = client.execute_command("EVAL", call.script.source, *call.arguments)
    after = client.time()
    assert before[0] * 10**6 + before[1] <= int(answer[1]) <= after[0] * 10**6 + after[1]


def test_the_probe_asks_for_every_command_that_a_script_uses() -> None:
    folders = [files("trio_agentapp.interrupts") / "lua", files("trio_agentapp.events") / "lua"]
    sources = {path.name: path.read_text() for folder in folders for path in folder.iterdir()}
    used = {name: set(re.findall(r"redis\.p?call\('(\w+)'", source)) for name, source in sources.items()}
    assert set().union(*used.values()) == used["probe.lua"]
