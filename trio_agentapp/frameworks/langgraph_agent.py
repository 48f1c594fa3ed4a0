"""A compiled graph of LangGraph as a ready agent: `AgentApp(agent=graph)`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command

from ..abc.frameworks import AgentCopy
from ..errors import ConfigurationError
from .langgraph_thread import Thread, dumped, loaded
from .langgraph_turn import UnfinishedTurn

__all__ = ["GraphCopy"]

MODES = ("messages", "custom", "updates")


class GraphCopy(AgentCopy):
    """A graph and the thread of one session. Graphs keep no state themselves, so runs share the nodes.

    A graph that has a checkpointer keeps its threads there. For any other graph the state is the last checkpoint of
    the session. In both cases the state also has the messages that are in no checkpoint: the partial answer of a
    stopped run, and results for its open tool calls. The next run adds them to the thread first.
    """

    def __init__(self, graph: Any, state: Any, user_id: str, session_id: str) -> None:
        if not isinstance(graph, Pregel):
            hint = "; call its compile()" if isinstance(graph, StateGraph) else ""
            raise ConfigurationError(f"agent= must be a compiled graph, not a {type(graph).__name__}{hint}")
        saved = state or {}
        # A JSON list, since joined text would not tell the pair "a/b", "c" from the pair "a", "b/c".
        self._config: Any = {"configurable": {"thread_id": json.dumps([user_id, session_id])}}
        self._thread: Thread | None = None
        if not graph.checkpointer:
            if any(type(channel).__name__ == "DeltaChannel" for channel in graph.channels.values()):
                raise ConfigurationError(
                    "agent= needs all earlier checkpoints of a graph with a DeltaChannel; "
                    "compile it with a checkpointer of your own: graph.compile(checkpointer=...)"
                )
            self._thread = Thread(self._config["configurable"]["thread_id"], saved.get("checkpoints", ()))
            graph = graph.copy({"checkpointer": self._thread.saver})
        self._graph: Pregel[Any, Any, Any, Any] = graph
        self._waiting: list[BaseMessage] = [loaded(kept) for kept in saved.get("waiting", ())]
        self._turn = UnfinishedTurn()

    async def stream(self, messages: list[BaseMessage]) -> AsyncIterator[Any]:
        """Run the graph. If it waits because of `interrupt()`, the text of the last message is the answer."""
        before = await self._graph.aget_state(self._config)
        given: Any = {"messages": [*self._waiting, *messages]}
        if before.interrupts:
            given = Command(resume=messages[-1].text if messages else "")
        stream: Any = self._graph.astream(given, self._config, stream_mode=list(MODES))
        async with aclosing(stream):
            async for mode, item in stream:
                if mode == "messages":
                    self._turn.note(item[0])
                yield mode, item

    async def state(self) -> Any:
        snapshot = await self._graph.aget_state(self._config)
        messages = snapshot.values.get("messages", []) if isinstance(snapshot.values, Mapping) else []
        ids = {message.id for message in messages}
        waiting = [message for message in self._waiting if message.id not in ids]
        waiting += self._turn.rest(snapshot, waiting)
        state: dict[str, Any] = {"waiting": [dumped(message) for message in waiting]}
        if self._thread is not None:
            state["checkpoints"] = self._thread.dump()
        return state
