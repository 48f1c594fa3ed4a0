"""A twin of the Lua scripts in Python: INTERRUPT-PROTOCOL, sections 3 and 4, once more, by other words.

It knows what time it is, so whatever it says is exact: replies, wake-ups, keys, and when each key ends.
"""

from __future__ import annotations

import json

Hash = dict[str, str]
ZSet = dict[str, int]
Stream = list[tuple[int, str]]
"""Entry ids and events."""
Key = Hash | ZSet | Stream | list[str]

TERMINAL = ("STOPPED", "FINISHED", "ERROR")


class Twin:
    def __init__(self, prefix: str, *, lease: int, session_ttl: int, retention: int, tombstone: int) -> None:
        self.prefix = prefix
        self.lease, self.session_ttl, self.retention, self.tombstone = lease, session_ttl, retention, tombstone
        self.micros = 0
        self.hashes: dict[str, Hash] = {}
        self.zsets: dict[str, ZSet] = {}
        self.streams: dict[str, Stream] = {}
        self.lists: dict[str, list[str]] = {}
        self.ends: dict[str, int] = {}
        """When each key ends, in ms."""
        self.published: list[tuple[str, str]] = []

    @property
    def now(self) -> int:
        return self.micros // 1000

    def pass_time(self, ms: int) -> set[str]:
        """Gives the keys that have ended."""
        self.micros += ms * 1000
        over = {name for name, end in self.ends.items() if end <= self.now}
        for name in over:
            self._drop(name)
        return over

    def _drop(self, name: str) -> None:
        for keys in (self.hashes, self.zsets, self.streams, self.lists, self.ends):
            keys.pop(name, None)

    def keep(self, name: str, ms: int) -> None:
        if any(name in keys for keys in (self.hashes, self.zsets, self.streams, self.lists)):
            self.ends[name] = self.now + ms

    # Names.

    def s(self, h: str) -> str:
        return f"{self.prefix}:{{{h}}}:s"

    def r(self, h: str, run: str) -> str:
        return f"{self.prefix}:{{{h}}}:r:{run}"

    def x(self, h: str) -> str:
        return f"{self.prefix}:{{{h}}}:x"

    def q(self, h: str) -> str:
        return f"{self.prefix}:{{{h}}}:q"

    def e(self, h: str, run: str) -> str:
        return f"{self.prefix}:{{{h}}}:e:{run}"

    def i(self, h: str, run: str) -> str:
        return f"{self.prefix}:{{{h}}}:i:{run}"

    def _session(self, h: str) -> Hash:
        return self.hashes.get(self.s(h), {})

    def _record(self, h: str, run: str) -> Hash:
        return self.hashes.get(self.r(h, run), {})

    def _ended(self, h: str, run: str) -> bool:
        return self._record(h, run).get("state") in TERMINAL

    def _runs(self, h: str, run: str) -> bool:
        session = self._session(h)
        return session.get("state") == "RUNNING" and session["run"] == run

    # What several scripts do.

    def _conclude(
        self, h: str, run: str, state: str, reason: str, node: str, tok: str, event: str = "", **more: str
    ) -> None:
        if self._ended(h, run):
            return
        self._leave_queue(h, run)
        fields = {"state": state, "reason": reason, "ended": str(self.now), "node": node, "tok": tok, **more}
        record = self.hashes.setdefault(self.r(h, run), {})
        record.update(fields)
        record.pop("farewell", None)
        self.keep(self.r(h, run), self.retention)
        if event:
            stream = self.streams.setdefault(self.e(h, run), [])
            value = json.loads(event)
            value["sequence_number"] = max(value["sequence_number"], stream[-1][0] if stream else 0)
            value["completed_at"] = value["completed_at"] or self.now // 1000
            stream.append((value["sequence_number"] + 1, json.dumps(value, separators=(",", ":"))))
            self.keep(self.e(h, run), self.retention)
        self.published.append((f"{self.prefix}:{{{h}}}:w", run))

    def _leave_queue(self, h: str, run: str) -> None:
        for name in (self.q(h), self.q(h) + "x"):
            if run in self.zsets.get(name, {}):
                del self.zsets[name][run]
                if not self.zsets[name]:
                    self._drop(name)

    def _queue(self, h: str) -> list[str]:
        for run, end in list(self.zsets.get(self.q(h) + "x", {}).items()):
            if end <= self.now:
                self._leave_queue(h, run)
        return [run for run, _ in sorted(self.zsets.get(self.q(h), {}).items(), key=lambda item: item[::-1])]

    def _free(self, h: str, run: str) -> None:
        session = self._session(h)
        session |= {"state": self._record(h, run)["state"], "exp": "0", "last": str(self.now)}
        for name in ("owner", "nonce", "stop", "stop_at", "stop_by"):
            session.pop(name, None)
        self.keep(self.s(h), self.session_ttl)

    def _reap_if_over(self, h: str) -> bool:
        session = self._session(h)
        if session.get("state") != "RUNNING" or int(session["exp"]) > self.now:
            return False
        run = session["run"]
        more = {"stop_requested": "1"} if session.get("stop") == run else {}
        fallback = self._record(h, run).get("farewell", "")
        self._conclude(h, run, "ERROR", "owner_lost", session["owner"], session["tok"], fallback, **more)
        self._free(h, run)
        return True

    # The scripts.

    def claim(
        self, h: str, run: str, node: str, nonce: str, place: str, places: int, fallback: str, *events: str
    ) -> list[str]:
        if self._ended(h, run):
            return self._how(h, run)
        stops = self.zsets.get(self.x(h), {})
        if run in stops:
            until = stops.pop(run)
            if not stops:
                self._drop(self.x(h))
            if until > self.now:
                for id, event in enumerate(events[:-1], 1):
                    self.streams.setdefault(self.e(h, run), []).append((id, event))
                last = events[-1] if events else ""
                self._conclude(h, run, "STOPPED", "stopped_before_start", node, "0", last, stop_requested="1")
                return self._how(h, run)
        session = self._session(h)
        active, left = "", 0
        if session.get("state") == "RUNNING":
            if (session["run"], session["owner"], session["nonce"]) == (run, node, nonce):
                session |= {"exp": str(self.now + self.lease), "last": str(self.now)}
                self.keep(self.s(h), self.session_ttl)
                return ["OK", session["tok"]]
            if int(session["exp"]) > self.now:
                active, left = session["run"], int(session["exp"]) - self.now
            else:
                self._reap_if_over(h)
                if session["run"] == run:
                    return self._how(h, run)
        queue = self._queue(h)
        if run in queue and self._record(h, run).get("node") != node:
            return ["BUSY", run, str(left)]
        if active or (queue and queue[0] != run):
            before = active or queue[0]
            if not place or active == run:
                return ["BUSY", before, str(left)]
            if run not in queue:
                if len(queue) >= places:
                    return ["FULL", before]
                order = self.micros - (5 * 10**15 if place == "first" else 0)
                self.zsets.setdefault(self.q(h), {})[run] = order
                queue = self._queue(h)
        if active or (queue and queue[0] != run):
            self.zsets.setdefault(self.q(h) + "x", {})[run] = self.now + self.lease
            self.keep(self.q(h), self.session_ttl)
            self.keep(self.q(h) + "x", self.session_ttl)
            self.hashes.setdefault(self.r(h, run), {}).update(state="IDLE", node=node)
            self.keep(self.r(h, run), self.lease)
            return ["QUEUED", active or queue[0], str(self._queue(h).index(run))]
        self._leave_queue(h, run)
        tok = str(max(int(session.get("tok", 0)) + 1, self.micros))
        session = self.hashes.setdefault(self.s(h), {})
        session |= {"state": "RUNNING", "run": run, "owner": node, "nonce": nonce, "tok": tok}
        session |= {"exp": str(self.now + self.lease), "last": str(self.now)}
        self.keep(self.s(h), self.session_ttl)
        record = self.hashes.setdefault(self.r(h, run), {})
        record |= {"state": "RUNNING", "tok": tok, "node": node, "started": str(self.now)}
        if fallback:
            record["farewell"] = fallback
        self.keep(self.r(h, run), self.session_ttl)
        return ["OK", tok]

    def _how(self, h: str, run: str) -> list[str]:
        record = self._record(h, run)
        return ["ENDED", record["state"], record["reason"]]

    def heartbeat(self, h: str, run: str, tok: str) -> list[str]:
        session = self._session(h)
        if not self._runs(h, run) or session["tok"] != tok:
            return ["LOST"]
        session |= {"exp": str(self.now + self.lease), "last": str(self.now)}
        self.keep(self.s(h), self.session_ttl)
        self.keep(self.r(h, run), self.session_ttl)
        self.keep(self.e(h, run), self.session_ttl)
        return ["STOP" if session.get("stop") == run else "OK"]

    def stop(self, h: str, run: str) -> list[str]:
        session = self._session(h)
        if run == "*":
            if session.get("state") != "RUNNING":
                return ["NOT_RUNNING", session.get("state", "IDLE")]
            run = session["run"]
        elif self._ended(h, run):
            return ["ENDED", run, self._record(h, run)["state"], self._record(h, run)["node"]]
        elif not self._runs(h, run):
            stops = {each: end for each, end in self.zsets.get(self.x(h), {}).items() if end > self.now}
            stops[run] = self.now + self.tombstone
            # As Redis does: by time, then by name; the last 16 stay.
            kept = sorted(stops.items(), key=lambda item: (item[1], item[0]))[-16:]
            self.zsets[self.x(h)] = dict(kept)
            self.keep(self.x(h), self.tombstone)
            return ["PENDING"]
        if self._reap_if_over(h):
            return ["ENDED", run, self._record(h, run)["state"], self._record(h, run)["node"]]
        if session.get("stop") != run:
            session |= {"stop": run, "stop_at": str(self.now), "stop_by": ""}
            self.hashes[self.r(h, run)] |= {"stop_requested": "1", "stop_at": str(self.now)}
        self.published.append((f"{self.prefix}:n:{session['owner']}", f"{run} {session['tok']}"))
        return ["ACCEPTED", run, session["owner"]]

    def finish(
        self,
        h: str,
        run: str,
        tok: str,
        node: str,
        nonce: str,
        state: str,
        reason: str,
        stop_requested: str,
        event: str = "",
        *first: str,
    ) -> Hash:
        session = self._session(h)
        mine = self._runs(h, run) and (
            session["tok"] == tok if tok else (session["owner"], session["nonce"]) == (node, nonce)
        )
        elsewhere = run in self._queue(h) and self._record(h, run).get("node") != node
        if mine or not (elsewhere or self._runs(h, run)):
            more = {"cleanup": "done", "cleanup_interrupted": "0"}
            if not self._ended(h, run) and event and first and self.e(h, run) not in self.streams:
                self.streams[self.e(h, run)] = list(enumerate(first, 1))
            if stop_requested == "1" or (mine and session.get("stop") == run):
                more["stop_requested"] = "1"
            self._conclude(h, run, state, reason, node, tok or (session["tok"] if mine else "0"), event, **more)
        if mine:
            self._free(h, run)
        return dict(self._record(h, run))

    def input(self, h: str, run: str, message: str, at_most: int) -> list[str]:
        session = self._session(h)
        if not self._runs(h, run) or int(session["exp"]) <= self.now:
            return ["GONE"]
        inbox = self.lists.get(self.i(h, run), [])
        if len(inbox) >= at_most:
            return ["FULL"]
        self.lists[self.i(h, run)] = [*inbox, message]
        self.keep(self.i(h, run), self.session_ttl)
        self.published.append((f"{self.prefix}:n:{session['owner']}", f"{run} {session['tok']} input"))
        return ["OK", session["owner"]]

    def take(self, h: str, run: str, tok: str, received: int) -> list[str]:
        if not self._runs(h, run) or self._session(h)["tok"] != tok:
            return []
        record, name = self._record(h, run), self.i(h, run)
        forgotten = int(record.get("received", 0))
        if received > forgotten:
            if name in self.lists:
                self.lists[name] = self.lists[name][received - forgotten :]
                if not self.lists[name]:
                    self._drop(name)
            record["received"] = str(received)
        return list(self.lists.get(name, []))

    def status(self, h: str, run: str) -> tuple[list[str], Hash]:
        self._reap_if_over(h)
        session = self._session(h)
        told = [session.get(name, "") for name in ("state", "run", "owner", "last")]
        told[0] = told[0] or "IDLE"
        return told, dict(self._record(h, run)) if run else {}

    def reap(self, h: str) -> int | list[str]:
        session = dict(self._session(h))
        if self._reap_if_over(h):
            return [session["run"], session["owner"]]
        return int(session["exp"]) - self.now if session.get("state") == "RUNNING" else 0

    # The hash that leads from a run id to its session, and the index.

    def lead(self, run: str) -> str:
        return f"{self.prefix}:run:{run}"

    def lead_claim(self, run: str, h: str, user: str, session: str) -> list[str | int]:
        fields = self.hashes.setdefault(self.lead(run), {})
        if "h" not in fields:
            fields |= {"h": h, "user": user, "session": session}
        self.keep(self.lead(run), self.session_ttl)
        return [fields["h"], int("stop:" in fields or f"stop:{user}" in fields)]

    def lead_stop(self, run: str, user: str) -> list[str]:
        fields = self.hashes.setdefault(self.lead(run), {})
        if "h" not in fields:
            fields[f"stop:{user}"] = "1"
            self.keep(self.lead(run), self.tombstone)
        return [fields.get("h", ""), fields.get("user", "")]

    def index_add(self, shard: str, ms: int, *members: str) -> int:
        index = self.zsets.setdefault(shard, {})
        for member in members:
            known, at = index.get(member, 0), self.now + ms
            index[member] = min(known, at) if known > self.now else at
        self.keep(shard, self.session_ttl)
        return 0

    def index_settle(self, shard: str, *members: str) -> int:
        index = self.zsets.get(shard, {})
        for member in members:
            if index.get(member, self.now + 1) <= self.now:
                del index[member]
        if not index:
            self._drop(shard)
        return 0

    def index_due(self, shard: str, at_most: int) -> list[str]:
        index = self.zsets.get(shard, {})
        due = sorted((score, member) for member, score in index.items() if score <= self.now)
        return [member for _, member in due][:at_most]
