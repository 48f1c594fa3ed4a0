"""Classes of what the built-in routes take and return. The OpenAPI document's components are made from them.

Responses are TypedDicts. The functions that make responses are annotated with them, so mypy checks that both agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict

import msgspec
from msgspec import Meta

from ...protocol.events import Failure
from ...protocol.ids import MAX_IDENTIFIER
from ...protocol.lifecycle import CleanupResult, Phase, RunState
from ...protocol.tasks import TaskState
from ...runs.tree import TaskNode

__all__ = ["Component", "Identifier", "RunId"]

Identifier = Annotated[
    str, Meta(min_length=1, max_length=MAX_IDENTIFIER, pattern=r"^[^\u0000-\u001f\u007f-\u009f]*$")
]
RunId = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{8,64}$")]
Epoch = Annotated[float, Meta(description="Seconds since 1970.")]
Number = Annotated[int, Meta(ge=0)]


class Component(type):
    """The metaclass of placeholders for components of the same name, which `components.py` derives."""


if TYPE_CHECKING:
    # The routes return the values of these enums as text.
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
    loop_lag_s: float


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
