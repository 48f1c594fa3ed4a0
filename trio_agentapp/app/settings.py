"""The settings of an app, with their defaults and checks. `variables` reads those that the environment sets."""

# ruff: noqa: RUF009  `_setting` makes fields of attrs, as `attrs.field` does

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypedDict

import attrs

from ..abc import BaseInterruptBackend, EventStore, Instrument
from ..errors import ConfigurationError
from ..protocol.request import STRATEGIES, MultitaskStrategy, OnDisconnect
from ..protocol.timings import Timings
from ..runs.registry import MAX_RUNS
from ..telemetry import LOG_FORMATS
from ..web.identity import Authenticate, Authorize
from ..web.protocol_adapter import ProtocolAdapter
from . import setting_checks as check

if TYPE_CHECKING:
    from ..wires.a2a import AgentCardWithRuntimeConfig

__all__ = ["SECRETS", "Options", "Settings", "nearest_hint"]

SECRETS = ("admin_token",)
"""Settings whose values are never shown."""

MAX_CONNECTIONS = 20_000
"""Connections of one node: twice its runs. An idle one takes about 20 KiB, so all of them take 400 MB."""

MAX_SOCKETS_PER_USER = 1000
"""WebSockets of one user. Without authentication they count for the address, which may be that of a proxy."""


class Options(TypedDict, total=False):
    """The types of AgentApp's parameters. `Settings` has their defaults and checks."""

    app_name: str
    app_description: str
    agent: Any
    endpoint_path: str
    response_type: str
    stream: bool
    lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None
    before_start: Callable[..., Any] | None
    after_finish: Callable[..., Any] | None
    interrupt_backend: BaseInterruptBackend | None
    interrupt_redis_url: str | None
    state_url: str | None
    redis_prefix: str
    timings: Timings
    event_store: str | EventStore
    broker_url: str | None
    backend_url: str | None
    enable_embedded_worker: bool
    enable_stream_task: bool
    stream_task_queue: str
    stream_task_timeout: float | None
    on_disconnect: OnDisconnect
    multitask_strategy: MultitaskStrategy
    authenticate: Authenticate | None
    authorize: Authorize | None
    auth_timeout: float
    protocol_adapters: Sequence[ProtocolAdapter] | None
    web_ui: bool
    a2a_config: AgentCardWithRuntimeConfig | None
    agui_config: Any
    require_auth: bool
    cors_origins: Sequence[str]
    allowed_hosts: Sequence[str]
    trusted_proxies: Sequence[str]
    root_path: str
    max_body_bytes: int
    read_timeout: float
    max_connections: int
    max_runs: int
    max_runs_per_user: int | None
    max_sockets_per_user: int
    requests_per_second: float | None
    frames_per_second: float | None
    debug: bool
    sse_done: bool
    cleanup_budget: float
    drain_timeout: float
    gc_threshold: int
    log_format: str
    log_level: str | None
    access_log: bool
    metrics: bool
    traces: bool
    admin_token: str | None
    instruments: Sequence[Instrument] | None


def _setting(default: Any, *checks: check.Check, variable: type | None = None) -> Any:
    """Define a field of `Settings`. `variable`: the type of the environment's value, if not that of the default."""

    def validate(_settings: Settings, attribute: attrs.Attribute[Any], value: Any) -> None:
        for find_fault in checks:
            if (fault := find_fault(value)) is not None:
                raise ConfigurationError(f"{attribute.name} {fault}")

    return attrs.field(
        default=default,
        converter=_tuple if isinstance(default, tuple) else None,
        validator=validate,
        metadata={"environment": variable or type(default)},
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@attrs.frozen(kw_only=True)
class Settings:
    """The complete, checked settings of an app. Times are in seconds, sizes in bytes.

    `gc_threshold`: while the app serves, Python's garbage collector runs when there are this many young objects,
    and skips the objects of the start-up. 0 leaves the collector unchanged. With many streams, its pauses delay
    events (see docs/discussion/hot-path.md).
    """

    app_name: str = _setting("Agent", check.TEXT)
    app_description: str = _setting("", check.TEXT)
    agent: Any = _setting(None)
    endpoint_path: str = _setting("/process", check.PATH)
    response_type: str = _setting("sse", check.one_of("sse", "json"))
    stream: bool = _setting(True, check.YES_OR_NO)
    lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = _setting(None, check.lifespan)
    before_start: Callable[..., Any] | None = _setting(None, check.function)
    after_finish: Callable[..., Any] | None = _setting(None, check.function)
    interrupt_backend: BaseInterruptBackend | None = _setting(None, check.backend)
    interrupt_redis_url: str | None = _setting(None, check.redis_url, variable=str)
    state_url: str | None = _setting(None, check.STATE_URL, variable=str)
    redis_prefix: str = _setting("agentapp", check.TEXT)
    timings: Timings = _setting(attrs.Factory(Timings), check.TIMINGS)
    event_store: str | EventStore = _setting("local", check.EVENT_STORE)
    broker_url: str | None = _setting(None, check.BROKER_URL, variable=str)
    backend_url: str | None = _setting(None, check.redis_url, variable=str)
    enable_embedded_worker: bool = _setting(False, check.YES_OR_NO)
    enable_stream_task: bool = _setting(False, check.YES_OR_NO)
    stream_task_queue: str = _setting("stream_query", check.TEXT, check.not_empty)
    stream_task_timeout: float | None = _setting(None, check.SECONDS_OR_NONE, variable=float)
    on_disconnect: OnDisconnect = _setting("cancel", check.ON_DISCONNECT)
    multitask_strategy: MultitaskStrategy = _setting("reject", check.one_of(*STRATEGIES))
    authenticate: Authenticate | None = _setting(None, check.function)
    authorize: Authorize | None = _setting(None, check.function)
    auth_timeout: float = _setting(10.0, check.SECONDS)
    protocol_adapters: Sequence[ProtocolAdapter] | None = _setting(None, check.adapters)
    web_ui: bool = _setting(False, check.YES_OR_NO)
    a2a_config: AgentCardWithRuntimeConfig | None = _setting(None, check.a2a_config)
    agui_config: Any = _setting(None)
    require_auth: bool = _setting(False, check.YES_OR_NO)
    cors_origins: tuple[str, ...] = _setting(
        (), check.texts("origins such as 'https://app.example.com'"), check.origins
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (), check.texts("host names such as 'agent.example.com'"), check.hosts
    )
    trusted_proxies: tuple[str, ...] = _setting((), check.texts("addresses such as '10.0.0.7'"), check.proxies)
    root_path: str = _setting("", check.PREFIX_PATH)
    max_body_bytes: int = _setting(1024 * 1024, check.whole_number("a number of bytes", 1))
    read_timeout: float = _setting(15.0, check.SECONDS)
    max_connections: int = _setting(MAX_CONNECTIONS, check.whole_number("a number of connections", 1))
    max_runs: int = _setting(MAX_RUNS, check.whole_number("a number of runs", 1))
    max_runs_per_user: int | None = _setting(None, check.RUNS_OR_NONE, variable=int)
    max_sockets_per_user: int = _setting(MAX_SOCKETS_PER_USER, check.whole_number("a number of WebSockets", 1))
    requests_per_second: float | None = _setting(None, check.RATE, variable=float)
    frames_per_second: float | None = _setting(None, check.RATE, variable=float)
    debug: bool = _setting(False, check.YES_OR_NO)
    sse_done: bool = _setting(False, check.YES_OR_NO)
    cleanup_budget: float = _setting(30.0, check.SECONDS)
    drain_timeout: float = _setting(30.0, check.SECONDS)
    gc_threshold: int = _setting(50_000, check.whole_number("a number of objects", 0))
    log_format: str = _setting("text", check.one_of(*LOG_FORMATS))
    log_level: str | None = _setting(None, check.log_levels, variable=str)
    access_log: bool = _setting(False, check.YES_OR_NO)
    metrics: bool = _setting(False, check.YES_OR_NO)
    traces: bool = _setting(False, check.YES_OR_NO)
    admin_token: str | None = _setting(None, check.admin_token, variable=str)
    instruments: Sequence[Instrument] | None = _setting(None, check.instruments)

    def __attrs_post_init__(self) -> None:
        if self.interrupt_redis_url is not None and self.interrupt_backend is not None:
            raise ConfigurationError("interrupt_redis_url and interrupt_backend were both given; give one of them")
        if self.event_store == "redis" and self.interrupt_redis_url is None:
            raise ConfigurationError(
                "event_store='redis' needs interrupt_redis_url, for instance redis://localhost: the end of a run "
                "and its last event are written together, to one server"
            )
        if self.a2a_config is not None and self.protocol_adapters is not None:
            raise ConfigurationError(
                "a2a_config is for the built-in protocols, and protocol_adapters replaces them; give "
                "A2AAdapter(config) among the adapters"
            )


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown name: the nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known := sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"
