"""Stores the last checkpoint of a LangGraph thread as JSON values, and has a checkpointer for session stores."""

from __future__ import annotations

import asyncio
import base64
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from ..abc import SessionStore
from ..errors import StateTooLarge
from ..runs import Run, current_run
from .forgotten_turns import report_forgotten
from .items import current_items

__all__ = ["StoreSaver", "Thread", "dumped", "loaded"]

NAME = "langgraph"
"""The name under which the threads are stored in a session's state."""

_SERDE = InMemorySaver().serde


def dumped(value: Any) -> list[str]:
    kind, data = _SERDE.dumps_typed(value)
    return [kind, base64.b64encode(data).decode()]


def loaded(kept: list[str]) -> Any:
    return _SERDE.loads_typed((kept[0], base64.b64decode(kept[1])))


class Thread:
    """The last checkpoint of a graph, and of each of its subgraphs, in memory."""

    def __init__(self, thread_id: str, kept: Iterable[Mapping[str, Any]]) -> None:
        """`kept`: an earlier result of `dump`."""
        self.saver = InMemorySaver()
        self._thread_id = thread_id
        for each in kept:
            checkpoint, metadata, writes = loaded(each["checkpoint"])
            config = self.saver.put(
                self._config(each["namespace"]), checkpoint, metadata, checkpoint["channel_versions"]
            )
            for task_id, channel, value in writes:
                self.saver.put_writes(config, [(channel, value)], task_id)

    def dump(self) -> list[dict[str, Any]]:
        names = [name for name, found in self.saver.storage[self._thread_id].items() if found]
        return [{"namespace": name, "checkpoint": dumped(self._last(name))} for name in names]

    def _last(self, namespace: str) -> Any:
        found = self.saver.get_tuple(self._config(namespace))
        assert found is not None  # noqa: S101  its namespace has one
        return found.checkpoint, found.metadata, found.pending_writes or []

    def _config(self, namespace: str) -> Any:
        return {"configurable": {"thread_id": self._thread_id, "checkpoint_ns": namespace}}


class _Threads:
    """The threads that one run uses. The run owns its session, so no other run writes them at the same time."""

    def __init__(self, kept: Mapping[str, Any]) -> None:
        self.before = kept
        self.kept = dict(kept)
        self.used: dict[str, Thread] = {}

    def __getitem__(self, thread_id: str) -> Thread:
        if thread_id not in self.used:
            self.used[thread_id] = Thread(thread_id, self.kept.get(thread_id, ()))
        return self.used[thread_id]


class StoreSaver(BaseCheckpointSaver[str]):  # type: ignore[misc]  # not installed where types are checked
    """A checkpointer for graphs that handlers run: `create_agent(model, tools, checkpointer=StoreSaver(app))`.

    It keeps the last checkpoint of each thread in `app.state.session_service`, with the session of the run that
    asks. So threads of different users never meet, whatever their `thread_id` is, and a rollback of a run includes
    them. Older checkpoints are kept until the end of the run. `save_session_state` replaces the threads, too. If
    they become too large for the store, the session keeps those from before the run, and the client is told.

    Raises RuntimeError outside of a run.
    """

    def __init__(self, app: Any) -> None:
        super().__init__()
        self._app = app
        self._lock = asyncio.Lock()
        self._threads: weakref.WeakKeyDictionary[Run, _Threads] = weakref.WeakKeyDictionary()

    async def aget_tuple(self, config: Any) -> Any:
        async with self._lock:
            return (await self._thread_of(config)).saver.get_tuple(config)

    async def alist(self, config: Any, **options: Any) -> AsyncIterator[Any]:
        async with self._lock:
            found = [*(await self._thread_of(config)).saver.list(config, **options)]
        for each in found:
            yield each

    async def aput(self, config: Any, *args: Any) -> Any:
        async with self._lock:
            result = (await self._thread_of(config)).saver.put(config, *args)
            await self._save(config)
        return result

    async def aput_writes(self, config: Any, *args: Any) -> None:
        async with self._lock:
            (await self._thread_of(config)).saver.put_writes(config, *args)
            await self._save(config)

    async def adelete_thread(self, thread_id: str) -> None:
        async with self._lock:
            threads = await self._threads_of_run()
            threads.kept.pop(thread_id, None)
            threads.used.pop(thread_id, None)
            await self._write(threads)

    def get_next_version(self, current: Any, channel: None) -> str:
        version: str = InMemorySaver.get_next_version(self, current, channel)
        return version

    @property
    def _sessions(self) -> SessionStore:
        sessions: SessionStore = self._app.state.session_service
        return sessions

    async def _thread_of(self, config: Any) -> Thread:
        return (await self._threads_of_run())[config["configurable"]["thread_id"]]

    async def _threads_of_run(self) -> _Threads:
        run = current_run.get(None)
        if run is None:
            raise RuntimeError("StoreSaver keeps the threads of a session, so it works in handlers only")
        if run not in self._threads:
            states = await self._sessions.load_modules(run.user_id, run.session_id) or {}
            self._threads[run] = _Threads(states.get(NAME, {}))
        return self._threads[run]

    async def _save(self, config: Any) -> None:
        """Save the thread of a config. The others have not changed."""
        threads = await self._threads_of_run()
        thread_id = config["configurable"]["thread_id"]
        threads.kept[thread_id] = threads[thread_id].dump()
        await self._write(threads)

    async def _write(self, threads: _Threads) -> None:
        if current_items.get().forgotten:
            return
        run = current_run.get()
        states = await self._sessions.load_modules(run.user_id, run.session_id) or {}
        try:
            await self._sessions.save_modules(run.user_id, run.session_id, {**states, NAME: threads.kept})
        except StateTooLarge as error:
            # An earlier save may have stored a part of this turn, such as a tool call without its result. Undo it.
            await self._sessions.save_modules(run.user_id, run.session_id, {**states, NAME: threads.before})
            await report_forgotten(run.session_id, error)
