"""Lua scripts, sent by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs

from .packing import Argument, Command

__all__ = ["Script", "ScriptCall"]


@attrs.frozen
class Script:
    """A script. It is sent as EVALSHA, and as EVAL if the server does not hold it."""

    source: str = attrs.field(repr=False)
    sha: str = attrs.field(init=False)

    @sha.default
    def _digest(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def bind(self, keys: Sequence[Argument] = (), args: Sequence[Argument] = ()) -> ScriptCall:
        """Return a call of this script for `RedisClient.pipeline`."""
        return ScriptCall(self, (len(keys), *keys, *args))


@attrs.frozen
class ScriptCall:
    """A script with its keys and arguments."""

    script: Script
    arguments: tuple[Argument, ...]
    """The number of keys, the keys, the arguments."""

    @property
    def by_digest(self) -> Command:
        return ("EVALSHA", self.script.sha, *self.arguments)

    @property
    def by_source(self) -> Command:
        return ("EVAL", self.script.source, *self.arguments)
