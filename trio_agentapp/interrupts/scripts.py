"""The Lua scripts of the Redis backend, and how they are called.

Each script is atomic, uses the keys of one hash slot, and may be repeated. Its file states its keys, arguments,
result and guarantee.
"""

from __future__ import annotations

from importlib.resources import files

from ..protocol.ids import SessionKey
from ..protocol.keys import Layout
from ..protocol.timings import Timings
from ..redis import Script, ScriptCall

__all__ = ["Scripts"]

FREEING = frozenset({"heartbeat", "stop", "finish", "status", "reap", "take"})
"""Scripts that free a session or stop a run. They must work on a full server, which Redis 7 or newer permits."""

ALLOW_OOM = "#!lua flags=allow-oom\n"


class Scripts:
    """Makes calls of the scripts. Calls with the prelude get the session's keys and the timings as arguments."""

    def __init__(self, layout: Layout, timings: Timings, *, allow_oom: bool) -> None:
        folder = files(__package__) / "lua"
        prelude = (folder / "_prelude.lua").read_text()
        self._layout = layout
        self._durations = tuple(
            int(seconds * 1000)
            for seconds in (timings.lease, timings.session_ttl, timings.retention, timings.tombstone)
        )
        self._scripts: dict[str, Script] = {}
        for name in ("claim", "heartbeat", "stop", "finish", "status", "reap", "input", "take", "questions"):
            head = ALLOW_OOM if allow_oom and name in FREEING else ""
            self._scripts[name] = Script(head + prelude + (folder / f"{name}.lua").read_text())
        self._index = Script((folder / "index.lua").read_text())
        self._lookup = Script((folder / "lookup.lua").read_text())
        self._unpin = Script((folder / "unpin.lua").read_text())
        self._probe = Script((folder / "probe.lua").read_text())

    def bind(self, name: str, session: SessionKey | str, *args: str | bytes | int) -> ScriptCall:
        """Return a call of a script with the prelude, for a session or its digest."""
        digest = session if isinstance(session, str) else session.digest
        base = self._layout.base(digest)
        fixed: tuple[str | bytes | int, ...] = (base, self._layout.node_channel(""), *self._durations)
        return self._scripts[name].bind([self._layout.session(digest)], [*fixed, *args])

    def lookup(self, run_id: str, *args: str | bytes | int) -> ScriptCall:
        """Return a call of the script on the run lookup, the hash with the session of a run id."""
        return self._lookup.bind([self._layout.run(run_id)], args)

    def index(self, shard: str, *args: str | bytes | int) -> ScriptCall:
        """Return a call of the script on one shard of the lease index."""
        return self._index.bind([shard], args)

    def unpin(self, pin: str, value: str) -> ScriptCall:
        """Return a call that deletes a pin if it still has this value."""
        return self._unpin.bind([pin], [value])

    @property
    def probed(self) -> str:
        """The only key that a probe may leave in Redis. It expires after a second."""
        return f"{self._layout.base('probe')}text"

    def probe(self, *, everything: bool) -> ScriptCall:
        """Return a call that tries the commands of a claim, or those of all scripts."""
        base = self._layout.base("probe")
        keys = [*(f"{base}{kind}" for kind in ("hash", "zset", "stream", "list")), self.probed]
        return self._probe.bind(keys, [self._layout.node_channel("probe"), "all" if everything else ""])
