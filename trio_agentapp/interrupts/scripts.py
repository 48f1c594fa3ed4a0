"""The scripts of the Redis backend: sources beside this module, one prelude, one way to call them.

Each runs in one slot, is atomic, and may be repeated (INTERRUPT-PROTOCOL, section 4).
"""

from __future__ import annotations

from importlib.resources import files

from ..protocol.ids import SessionKey
from ..protocol.keys import Layout
from ..protocol.timings import Timings
from ..redis import Script, ScriptCall

__all__ = ["Scripts"]

FREEING = frozenset({"heartbeat", "stop", "finish", "status", "reap", "take"})
"""Those that free (as every look at an expired lease does) or stop. They must also work on a full server, where it
lets scripts say so (Redis 7)."""

ALLOW_OOM = "#!lua flags=allow-oom\n"


class Scripts:
    """Binds a script to a session: the prelude's arguments are the same for all."""

    def __init__(self, layout: Layout, timings: Timings, *, allow_oom: bool) -> None:
        folder = files(__package__) / "lua"
        prelude = (folder / "_prelude.lua").read_text()
        self._layout = layout
        self._durations = tuple(
            int(seconds * 1000)
            for seconds in (timings.lease, timings.session_ttl, timings.retention, timings.tombstone)
        )
        self._scripts: dict[str, Script] = {}
        for name in ("claim", "heartbeat", "stop", "finish", "status", "reap", "input", "take"):
            head = ALLOW_OOM if allow_oom and name in FREEING else ""
            self._scripts[name] = Script(head + prelude + (folder / f"{name}.lua").read_text())
        self._index = Script((folder / "index.lua").read_text())
        self._lead = Script((folder / "lead.lua").read_text())
        self._unpin = Script((folder / "unpin.lua").read_text())
        self._probe = Script((folder / "probe.lua").read_text())

    def bind(self, name: str, session: SessionKey | str, *args: str | bytes | int) -> ScriptCall:
        """A call of script `name` for a session, or for its digest."""
        digest = session if isinstance(session, str) else session.digest
        base = self._layout.base(digest)
        fixed: tuple[str | bytes | int, ...] = (base, self._layout.node_channel(""), *self._durations)
        return self._scripts[name].bind([self._layout.session(digest)], [*fixed, *args])

    def lead(self, run_id: str, *args: str | bytes | int) -> ScriptCall:
        """A call of the script over the hash that leads from a run id to its session."""
        return self._lead.bind([self._layout.run(run_id)], args)

    def index(self, shard: str, *args: str | bytes | int) -> ScriptCall:
        """A call of the lease index."""
        return self._index.bind([shard], args)

    def unpin(self, pin: str, value: str) -> ScriptCall:
        """A call that takes a pin away, if this is still what it holds."""
        return self._unpin.bind([pin], [value])

    @property
    def probed(self) -> str:
        """The one key that the probe may leave, for a second."""
        return f"{self._layout.base('probe')}text"

    def probe(self, *, everything: bool) -> ScriptCall:
        """A call that does what a claim needs, or everything that any script does."""
        base = self._layout.base("probe")
        keys = [*(f"{base}{kind}" for kind in ("hash", "zset", "stream", "list")), self.probed]
        return self._probe.bind(keys, [self._layout.node_channel("probe"), "all" if everything else ""])
