"""An agent of the OpenAI Agents SDK as a ready agent: `AgentApp(agent=Agent(...))`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from agents import (
    Agent,
    InputGuardrailTripwireTriggered,
    ModelResponse,
    OutputGuardrailTripwireTriggered,
    RawResponsesStreamEvent,
    Runner,
    RunState,
    Usage,
)
from agents.sandbox import SandboxAgent
from pydantic_core import to_jsonable_python

from ..abc.frameworks import AgentCopy
from ..errors import ConfigurationError
from ..protocol.message import INTERRUPTED

__all__ = ["OpenAIAgentCopy", "plain_of"]

ANSWERABLE = frozenset({"function_call", "custom_tool_call"})
"""Types of calls that get a result if they are open. Open calls of other types are removed, since their outputs are
not text.
"""

OPEN = ANSWERABLE | {"computer_call", "shell_call", "local_shell_call", "apply_patch_call"}
"""Types of calls that a model provider refuses without an output."""


class OpenAIAgentCopy(AgentCopy):
    """An agent and the input items of one session. Agents of the SDK keep no state, so runs share them.

    The state has the input items for the next run, the name of the last agent and, if the run waits for an
    approval, the SDK's state of the run.
    """

    def __init__(self, agent: Any, state: Any) -> None:
        if not isinstance(agent, Agent):
            raise ConfigurationError(f"agent= must be an agents.Agent, not a {type(agent).__name__}")
        if isinstance(agent, SandboxAgent):
            raise ConfigurationError(
                "agent= cannot be a SandboxAgent, which needs a RunConfig; "
                "run it in a handler: @app.query(framework='openai-agents')"
            )
        saved = state or {}
        self._agent = agent
        self._items: list[Any] = list(saved.get("items", ()))
        self._name: str | None = saved.get("agent")
        self._waiting: Any = saved.get("waiting")
        self._result: Any = None
        self._refused = False
        """Whether an output guardrail has refused the answer. Sessions of the SDK do not keep it either."""
        self._turn = _Turn()

    async def stream(self, messages: list[Any]) -> AsyncIterator[Any]:
        """Run the agent. Messages of type `mcp_approval_response` answer the approval requests of the last run."""
        before = self._items
        given: Any = await self._resumed(messages)
        if given is None:
            given = self._items = [*self._items, *messages]
        result: Any = Runner.run_streamed(_reachable(self._agent, self._name), given)
        self._turn.expected = len(result.raw_responses)
        self._result = result
        try:
            async with aclosing(result.stream_events()) as events:
                async for event in events:
                    self._turn.note(event)
                    yield event
            if result.run_loop_exception is not None:
                raise result.run_loop_exception
        except InputGuardrailTripwireTriggered:
            # Refused input is not saved. Otherwise the guardrail would refuse the next turn, too.
            self._items, self._result = before, None
            raise
        except OutputGuardrailTripwireTriggered:
            self._refused = True
            raise
        for interruption in result.interruptions:
            yield interruption

    async def state(self) -> Any:
        result = self._result
        items = self._items
        if result is not None:
            items = result.to_input_list(mode="normalized")
            if self._refused:
                while items and (items[-1].get("role") == "assistant" or items[-1].get("type") == "reasoning"):
                    items = items[:-1]
            else:
                items = [*items, *self._turn.rest(len(result.raw_responses))]
            self._name = result.last_agent.name
            self._waiting = result.to_state().to_json() if result.interruptions else None
        return {"items": _closed(to_jsonable_python(items)), "agent": self._name, "waiting": self._waiting}

    async def _resumed(self, messages: list[Any]) -> RunState[Any] | None:
        """Return the waiting run with its approvals answered, or None. A request without an answer is rejected."""
        answers = {
            item.get("approval_request_id"): bool(item.get("approve"))
            for item in messages
            if item.get("type") == "mcp_approval_response"
        }
        if not self._waiting or not answers:
            return None
        state: RunState[Any] = await RunState.from_json(self._agent, self._waiting)
        if others := [item for item in messages if item.get("type") != "mcp_approval_response"]:
            state.add_input(others)
        for interruption in state.get_interruptions():
            if answers.get(interruption.call_id):
                state.approve(interruption)
            else:
                state.reject(interruption)
        return state


class _Turn:
    """What the model has streamed. The SDK adds it to the result of the run only after the tools have ended."""

    def __init__(self) -> None:
        self.expected = 0
        """Number of responses that the result has when it includes every completed response."""
        self._response: list[Any] = []
        """The items of the last completed response."""
        self._items: list[Any] = []
        """The completed items of the response that is being streamed."""
        self._texts: dict[tuple[str, int], str] = {}
        """The text so far of its incomplete messages, by item id and index."""

    def note(self, event: Any) -> None:
        if isinstance(event, RawResponsesStreamEvent):
            self._note_raw(event.data)

    def _note_raw(self, event: Any) -> None:
        match event.type:
            case "response.created":
                # A second attempt after a failure also begins with this event.
                self._items, self._texts = [], {}
            case "response.output_text.delta" | "response.refusal.delta":
                key = event.item_id, event.output_index
                self._texts[key] = self._texts.get(key, "") + event.delta
            case "response.output_item.done":
                self._texts.pop((event.item.id, event.output_index), None)
                self._items.append(event.item)
            case "response.completed":
                self.expected += 1
                self._response = event.response.output or self._items
                self._items, self._texts = [], {}

    def rest(self, responses: int) -> Iterator[Any]:
        """Yield the input items that are missing in a result that has `responses` responses."""
        if self.expected > responses:
            yield from ModelResponse(self._response, Usage(), None).to_input_items()
        # Without ids and reasoning, because the provider does not store a response that was not completed.
        for item in map(plain_of, self._items):
            if item["type"] == "message":
                text = "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])
                yield {"role": "assistant", "content": text}
            elif item["type"] in ANSWERABLE:
                yield {key: item[key] for key in ("type", "call_id", "name", "arguments", "input") if key in item}
        for text in self._texts.values():
            yield {"role": "assistant", "content": text}


def _reachable(agent: Agent[Any], name: str | None) -> Agent[Any]:
    """Return the agent of this name that `agent` can reach by handoffs; `agent` itself if there is none."""
    found: list[Agent[Any]] = [agent]
    for each in found:
        if each.name == name:
            return each
        for handoff in each.handoffs:
            target: Any = handoff if isinstance(handoff, Agent) else handoff._agent_ref and handoff._agent_ref()
            if isinstance(target, Agent) and not any(target is known for known in found):
                found.append(target)
    return agent


def _closed(items: list[Any]) -> list[Any]:
    """Return the items with a result for each open call. Results come after all calls of the same response."""
    answered = {_call_id(item) for item in items if str(item.get("type")).endswith("_output")}
    closed: list[Any] = []
    results: list[Any] = []
    for item in items:
        kind = item.get("type")
        if kind not in OPEN:
            closed += results
            results = []
        if kind not in OPEN or _call_id(item) in answered:
            closed.append(item)
        elif kind in ANSWERABLE:
            closed.append(item)
            results.append({"type": f"{kind}_output", "call_id": item["call_id"], "output": INTERRUPTED})
        else:
            # Providers refuse reasoning without the item that followed it, so both are removed.
            while closed and closed[-1].get("type") == "reasoning":
                closed.pop()
    return closed + results


def _call_id(item: Mapping[str, Any]) -> Any:
    return item.get("call_id") or item.get("id")


def plain_of(item: Any) -> dict[str, Any]:
    """Return an item of the Responses API as JSON values."""
    if not isinstance(item, Mapping):
        item = item.model_dump(mode="json", exclude_none=True)
    found: dict[str, Any] = to_jsonable_python(item)
    return found
