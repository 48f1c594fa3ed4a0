"""`run.state`: a JSON object of a run, which is sent to clients.

Changes are collected, and one event sends all of them: the whole object at first, then what has changed (JSON
Patch). The object is replaced by a changed copy at each change, and the copy shares what is the same. So two
versions are compared quickly, and reading needs no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ..errors import ItemError
from .events import mass
from .frozen_json import FrozenDict, freeze
from .json_patch import Operation, difference
from .payload import clean_text, plain_json

__all__ = ["MAX_STATE_BYTES", "SharedState"]

MAX_STATE_BYTES = 256 * 1024
"""Estimated bytes of one state as JSON. A reader that attaches gets all of it."""

WHOLE_AFTER = 4096
"""Bytes of patches after which the whole state is sent again, if it is not larger than these.

So a reader that has lost events is soon up to date, and sending whole states at most doubles the bytes.
"""

_absent = object()


class SharedState(MutableMapping[str, Any]):
    """A JSON object that is sent to clients. Use it as a dict, from any thread.

        run.state["progress"] = 0.5
        run.state.update(step="read", files=[])
        with run.state.edit() as state:
            state["files"].append({"name": "a.txt"})

    Values that are read from it cannot be changed in place; use `edit` for that. A value is copied when it is set.
    Setting raises ItemError for a value that has no form in JSON, and if the state would be larger than 256 KiB.
    """

    __slots__ = ("_lock", "_now", "_patched", "_sent", "_size", "on_change", "pending")

    def __init__(
        self, initial: Mapping[str, Any] | None = None, lock: AbstractContextManager[object] | None = None
    ) -> None:
        """`lock` is held for some assignments at each change. States that several threads change need one."""
        self._lock = lock or nullcontext()
        self._now: FrozenDict = freeze(initial or {}, "$.state")
        self._sent: FrozenDict | None = None
        self._size = mass(self._now)
        self._patched = 0
        self.pending = False
        """Whether there are changes that `take` has not returned yet."""
        self.on_change: Callable[[], object] | None = None
        """Called at the first change after `take`, in the thread that has made it."""

    def __repr__(self) -> str:
        return f"SharedState({plain_json(self._now)!r})"

    def __getitem__(self, name: str) -> Any:
        return self._now[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)

    def __setitem__(self, name: str, value: Any) -> None:
        self._change({name: value})

    def __delitem__(self, name: str) -> None:
        if name not in self._now:
            raise KeyError(name)
        self._change({name: _absent})

    def update(self, *args: Any, **values: Any) -> None:
        """Set several members at once, as `dict.update` does."""
        self._change(dict(*args, **values))

    def replace(self, value: Mapping[str, Any]) -> None:
        """Make the state equal to `value`, as `run.state = value` does. Raises ItemError: it is no JSON object."""
        if not isinstance(value, Mapping):
            raise ItemError(f"run.state must be a mapping, not {type(value).__name__}")
        self._change({**dict.fromkeys(self._now, _absent), **value})

    @contextmanager
    def edit(self) -> Iterator[dict[str, Any]]:
        """Yield a copy of the state that may be changed at any depth. Its changes apply when the block ends.

        They do not apply if the block raises. Members that the block did not change keep values that were set
        meanwhile.
        """
        before = self._now
        draft: dict[str, Any] = plain_json(before)
        yield draft
        changes = {
            name: value for name, value in draft.items() if name not in before or difference(before[name], value)
        }
        self._change({**changes, **{name: _absent for name in before if name not in draft}})

    def _change(self, changes: Mapping[str, Any]) -> None:
        fresh: dict[str, Any] = {}
        for name, value in changes.items():
            if not isinstance(name, str):
                raise ItemError(f"a key of run.state must be a str, not {type(name).__name__}")
            name = clean_text(name)
            fresh[name] = value if value is _absent else freeze(value, f"$.state.{name:.40}")
        weight = sum(len(name) + 4 + mass(value) for name, value in fresh.items() if value is not _absent)
        with self._lock:
            size = self._size + weight
            for name in fresh:
                if name in self._now:
                    size -= len(name) + 4 + mass(self._now[name])
            if size > MAX_STATE_BYTES:
                raise ItemError(
                    f"run.state would have about {size} bytes as JSON, and the limit is {MAX_STATE_BYTES}; "
                    "keep large data in a store, and its address in the state"
                )
            merged = {**self._now, **fresh}
            self._now = FrozenDict((name, value) for name, value in merged.items() if value is not _absent)
            self._size = size
            called = None if self.pending else self.on_change
            self.pending = True
        if called is not None:
            called()

    def take(self) -> tuple[Mapping[str, Any], None] | tuple[None, list[Operation]] | None:
        """Return the changes since the last call: the whole state, or a patch. None if nothing has changed."""
        with self._lock:
            now, size, self.pending = self._now, self._size, False
        before, self._sent = self._sent, now
        if before is None:
            return now, None
        patch = difference(before, now)
        self._patched += mass(patch)
        if self._patched > max(size, WHOLE_AFTER):
            self._patched = 0
            return now, None
        return (None, patch) if patch else None
