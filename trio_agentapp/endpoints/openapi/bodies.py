"""What the built-in routes take and return, as classes, of which the OpenAPI document's components are made.

Responses are TypedDicts: the functions that make them are annotated with these, so that mypy compares the two.
Requests and events are derived from the attrs classes of the protocol, field by field; constraints that their types
do not express are added by hand.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict, Union

import attrs
import msgspec
from msgspec import Meta

from ...protocol.content import CLASSES, CONTENT_TYPES, FIELDS, ContentType
from ...protocol.events import Failure, MessageEvent, ResponseEvent, StateEvent
from ...protocol.ids import MAX_IDENTIFIER
from ...protocol.lifecycle import CleanupResult, Phase, RunState
from ...protocol.message import MESSAGE_TYPES, Message
from ...protocol.request import AgentRequest
from ...protocol.structure import FILE_BY, NEEDED
from ...protocol.tasks import TaskState
from ...runs.tree import TaskNode

__all__ = ["Component", "Identifier", "RunId", "built_in", "ref"]

Schema = dict[str, Any]

TEMPLATE = "#/components/schemas/{name}"


def ref(name: str) -> Schema:
    return {"$ref": TEMPLATE.format(name=name)}


Identifier = Annotated[
    str, Meta(min_length=1, max_length=MAX_IDENTIFIER, pattern=r"^[^\u0000-\u001f\u007f-\u009f]*$")
]
RunId = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{8,64}$")]
Epoch = Annotated[float, Meta(description="Seconds since 1970.")]
Number = Annotated[int, Meta(ge=0)]


class Component(type):
    """The class of placeholders for components that are derived below, named as they are."""


AnyContent: Any = Component("Content", (), {})
AnyMessageEvent: Any = Component("MessageEvent", (), {})
AnyContentEvent: Any = Component("ContentEvent", (), {})

if TYPE_CHECKING:
    # The routes return the values of these enums, which are text.
    AnyMessage: TypeAlias = Any
    State: TypeAlias = str
    PhaseName: TypeAlias = str
    Cleanup: TypeAlias = str
    TaskStatus: TypeAlias = str
    Reason: TypeAlias = dict[str, str]
else:
    AnyMessage = Component("Message", (), {})
    State, Cleanup, TaskStatus, Reason = RunState, CleanupResult, TaskState, Failure
    PhaseName = Literal[tuple(str(phase) for phase in Phase if phase is not Phase.CLAIMING)]


# Responses.


class StopReceipt(TypedDict):
    """What a stop did."""

    status: Literal["success"]
    message: str
    accepted: bool
    stopped: bool
    run_id: str | None
    state: State
    node: str | None
    latency_ms: float
    cleanup: Cleanup


class RunInfo(TypedDict):
    """One run."""

    run_id: str
    user_id: str
    session_id: str
    state: State
    phase: PhaseName
    reason: str | None
    stop_requested: bool
    stuck: bool
    started_at: Epoch | None
    ended_at: Epoch | None
    cleanup: Cleanup
    cleanup_interrupted: bool
    node: str | None


class RunList(TypedDict):
    """A page of runs, the youngest first."""

    runs: list[RunInfo]
    cursor: str | None


class OpenQuestion(TypedDict):
    """A question that a run waits for an answer to. A long `question` is cut; a large `schema` is null."""

    run_id: str
    user_id: str
    session_id: str
    id: str
    name: Literal["input", "approval", "auth"]
    question: str
    schema: Any
    asked_at: Epoch
    expires_at: Epoch | None


class QuestionList(TypedDict):
    """The open questions of a page of runs, the youngest run first."""

    questions: list[OpenQuestion]
    cursor: str | None


class RunTree(TypedDict):
    """The tasks of a run; `root` is null if none of them is executed at present."""

    run_id: str
    node: str
    root: TaskNode | None


class StopResult(TypedDict):
    """The receipt of one run, or the code of the error."""

    run_id: str | None
    accepted: bool
    code: NotRequired[str]
    status: NotRequired[Literal["success"]]
    message: NotRequired[str]
    stopped: NotRequired[bool]
    state: NotRequired[State]
    node: NotRequired[str | None]
    latency_ms: NotRequired[float]
    cleanup: NotRequired[Cleanup]


class RunsStopped(TypedDict):
    """One result for each run."""

    results: list[StopResult]


class InputAccepted(TypedDict):
    """The message is in the run's inbox."""

    status: Literal["accepted"]
    run_id: str


class SessionInfo(TypedDict):
    """A session, and the run that is active in it."""

    session_id: str
    user_id: str
    state: State
    active_run_id: str | None
    last_run_id: str | None
    node: str | None
    last_activity: Epoch | None


class History(TypedDict):
    """The messages of a session, oldest first."""

    session_id: str
    user_id: str
    messages: list[AnyMessage]


class TaskAccepted(TypedDict):
    """The id under which the task can be read."""

    task_id: str
    status: TaskStatus
    session_id: NotRequired[str]
    user_id: NotRequired[str]


class TaskInfo(TypedDict):
    """One task, with its `result` or `error` once it has ended."""

    task_id: str
    status: TaskStatus
    cancel_requested: bool
    created_at: Epoch
    started_at: Epoch | None
    ended_at: Epoch | None
    result: NotRequired[Any]
    error: NotRequired[Reason]


class Welcome(TypedDict):
    """The app, and its routes with their methods."""

    name: str
    description: str
    routes: dict[str, list[str]]


class Health(TypedDict):
    """Whether the app is alive, or takes new runs."""

    status: Literal["healthy", "unready"]
    timestamp: Epoch
    service: NotRequired[str]
    node: NotRequired[str]
    reason: NotRequired[str]
    registries: NotRequired[list[RegistrationState]]


class RegistrationState(TypedDict):
    """The registration of the agent in one registry."""

    registry: str
    state: Literal["waiting", "registered", "retrying", "deregistered"]
    since: Epoch
    failures: int
    error: str | None


class NodeStatus(TypedDict):
    """The state of one node, for operators."""

    app_name: str
    version: str
    node: str
    pid: int
    time: Epoch
    uptime_s: float
    cpu_s: float
    ready: bool
    reason: str | None
    draining: bool
    backend: str
    backend_up: bool
    runs_active: int
    runs_queued: int
    runs_ended: int
    stuck: list[str]
    events: int
    subscribers: int
    connections: int | None
    tasks: int


class NodeRuns(TypedDict):
    """The live runs of one node, the oldest first."""

    node: str
    total: int
    runs: list[NodeRun]


class NodeRun(TypedDict):
    """A live run, for operators."""

    run_id: str
    user_id: str
    session_id: str
    phase: Literal["claiming", "queued", "running", "stopping", "finishing", "ended"]
    cause: str | None
    stuck: bool
    entry: str
    handler: str
    age_s: float
    events: int
    subscribers: int
    token: int


class NodeSettings(TypedDict):
    """The settings of an app, without secrets."""

    settings: dict[str, Any]


class NodeEnding(TypedDict):
    """A node drains or ends."""

    status: Literal["draining", "shutting down"]
    node: str
    live: int


class Problem(TypedDict):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: Annotated[str, Meta(description="Stable: clients may compare it.")]
    request_id: str
    retryable: bool
    errors: NotRequired[list[Fault]]
    active_run_id: NotRequired[str]
    node: NotRequired[str]


class Fault(TypedDict):
    """One thing that is wrong with a request."""

    loc: Annotated[str, Meta(description="A JSON path, `query.<name>`, `path.<name>` or `header.<name>`.")]
    msg: str


class EndpointFailure(TypedDict):
    """The last event of an endpoint's stream that failed or was cut."""

    error: str
    error_type: str
    message: str


# Requests.


class StopRequest(TypedDict, total=False):
    """Which run to stop: that of a session, a run by its id, or both."""

    session_id: Identifier | None
    user_id: Identifier | None
    run_id: RunId | None
    input: list[AnyMessage] | None


class RunsToStop(TypedDict, total=False):
    """Runs by their ids, or all runs in a state."""

    run_ids: Annotated[list[RunId], Meta(max_length=100)]
    status: State
    user_id: Identifier | None


class CancelAfter(msgspec.Struct, forbid_unknown_fields=True):
    """Stop the run when it has had no reader for this long."""

    cancel_after: Annotated[float, Meta(gt=0, description="Seconds.")]


# Derived from the classes of the protocol.


def _fields(cls: type, narrowed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the types of an attrs class's JSON by field; `narrowed` are types in place of, or beside, its own."""
    hints = typing.get_type_hints(cls, include_extras=True)
    left_out = ("extra", "encoded", "payload")
    own = {field.name: hints[field.name] for field in attrs.fields(cls) if field.name not in left_out}
    return {**own, **narrowed}


def _struct(
    name: str, doc: str, fields: Mapping[str, Any], optional: Mapping[str, Any] = {}, **options: Any
) -> Any:
    """Return the class of a JSON object. An `optional` field may be left out, or be null."""
    # UNSET and not None: generated clients take a field with a default for one that is always there.
    more = [(field, kind | None | msgspec.UnsetType, msgspec.UNSET) for field, kind in optional.items()]
    return msgspec.defstruct(name, [*fields.items(), *more], kw_only=True, namespace={"__doc__": doc}, **options)


def _payload(kind: ContentType) -> dict[str, Any]:
    needed = NEEDED.get(kind)
    return {field: Any if kind == "data" else str if field == needed else str | None for field in FIELDS[kind]}


def _content(kind: ContentType) -> Any:
    fields = _payload(kind)
    needed = {field: fields.pop(field) for field in [*fields] if field == NEEDED.get(kind)}
    cls = CLASSES[kind]
    return _struct(
        cls.__name__, inspect.getdoc(cls) or "", needed, {**fields, "delta": bool}, tag_field="type", tag=kind
    )


def _content_event(kind: ContentType) -> Any:
    fields = {
        **_EVENT,
        "object": Literal["content"],
        "index": Number,
        "delta": bool,
        "msg_id": str,
        **_payload(kind),
    }
    cls = CLASSES[kind]
    return _struct(f"{cls.__name__}Event", inspect.getdoc(cls) or "", fields, tag_field="type", tag=kind)


MessageType = Annotated[
    Identifier, Meta(examples=[*MESSAGE_TYPES], description="One of the examples, or any word.")
]
_EVENT: dict[str, Any] = {
    "sequence_number": Number,
    "status": Literal["in_progress", "completed", "incomplete"],
    "error": Failure | None,
}


@cache
def built_in() -> dict[str, Schema]:
    """Return the components of the built-in routes, by name."""
    asked = _fields(
        AgentRequest,
        {
            **dict.fromkeys(("session_id", "user_id"), Identifier),
            **dict.fromkeys(("id", "run_id"), RunId),
            "timeout_s": Annotated[float, Meta(gt=0)],
            "tools": list[dict[str, Any]],
            "on_disconnect": CancelAfter | Literal["cancel", "continue"],
        },
    )
    del asked["input"]
    said = _fields(Message, {"type": MessageType, "id": Identifier, "content": str | list[AnyContent]})
    contents = [_content(kind) for kind in CONTENT_TYPES]
    events = [_content_event(kind) for kind in CONTENT_TYPES]
    roots: dict[str, Any] = {
        "Content": Union[tuple(contents)],  # noqa: UP007
        "ContentEvent": Union[tuple(events)],  # noqa: UP007
        "MessageEvent": _struct(
            "MessageEvent",
            "A message begins, or ends with its content.",
            _fields(
                MessageEvent,
                {
                    **_EVENT,
                    "object": Literal["message"],
                    "type": MessageType,
                    "content": list[AnyContentEvent] | None,
                },
            ),
        ),
        "ResponseEvent": _struct(
            "ResponseEvent",
            "The response as a whole; the last event of a run is a terminal one.",
            _fields(
                ResponseEvent,
                {
                    **_EVENT,
                    "object": Literal["response"],
                    "status": Literal["created", "in_progress", "completed", "failed", "canceled", "rejected"],
                    "output": list[AnyMessageEvent] | None,
                },
            ),
        ),
        "StateEvent": _struct(
            "StateEvent",
            "The state of the run: the whole of it, or what has changed (JSON Patch).",
            _fields(
                StateEvent,
                {
                    **_EVENT,
                    "object": Literal["state"],
                    "status": Literal["in_progress"],
                    "state": dict[str, Any] | None,
                    "patch": list[dict[str, Any]] | None,
                },
            ),
        ),
        "AgentRequest": _struct(
            "AgentRequest",
            "One request to the agent. Unknown fields are handed to the handler.",
            {"input": str | Annotated[list[AnyMessage], Meta(min_length=1)]},
            asked,
        ),
        "Message": _struct(
            "Message", "One message of a conversation. Unknown fields are handed to the handler.", {}, said
        ),
        **{name: cls for name, cls in globals().items() if typing.is_typeddict(cls)},
    }
    schemas, components = msgspec.json.schema_components(
        list(roots.values()), schema_hook=lambda kind: ref(kind.__name__), ref_template=TEMPLATE
    )
    found = {name: schema for name, schema in zip(roots, schemas, strict=True) if schema != ref(name)}
    found |= {name: {**schema, **_RULES.get(name, {})} for name, schema in components.items()}
    found["Event"] = {
        "oneOf": [ref("ResponseEvent"), ref("MessageEvent"), ref("ContentEvent"), ref("StateEvent")],
        "description": "The data of one frame of a stream. Numbers begin at 0 and have no holes.",
    }
    return found


_RULES: dict[str, Schema] = {
    # A file needs one of these. Messages of these types need content.
    "FileContent": {"anyOf": [{"properties": {name: {"type": "string"}}, "required": [name]} for name in FILE_BY]},
    "Message": {
        "if": {"properties": {"type": {"enum": ["message", "reasoning", None]}}},
        "then": {"required": ["content"]},
    },
    "StopRequest": {
        "anyOf": [
            {"properties": {name: {"type": "string"}}, "required": [name]} for name in ("session_id", "run_id")
        ]
    },
    "RunsToStop": {"oneOf": [{"required": ["run_ids"]}, {"required": ["status"]}]},
}
"""What types cannot express: which fields belong together."""
