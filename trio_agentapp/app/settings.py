"""The settings of an app: from the code, else from the environment, else the default; checked once."""

# ruff: noqa: RUF009  `_setting` makes fields of attrs, as `attrs.field` does

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import UnionType
from typing import TYPE_CHECKING, Any, TypedDict

import attrs

from ..abc import BaseInterruptBackend, EventStore, Instrument
from ..errors import ConfigurationError
from ..protocol.request import STRATEGIES, CancelAfter, MultitaskStrategy, OnDisconnect
from ..protocol.text import masked_url
from ..protocol.timings import Timings
from ..runs.registry import MAX_RUNS
from ..telemetry import LOG_FORMATS
from ..web.identity import Authenticate, Authorize
from ..web.protocol_adapter import ProtocolAdapter
from ..web.proxies import ROOT_PATH, Proxies

if TYPE_CHECKING:
    from ..wires.a2a import AgentCardWithRuntimeConfig

__all__ = [
    "Options",
    "Settings",
    "UnknownParameter",
    "named_by_variable",
    "nearest_hint",
    "read_port",
    "unknown_variables",
]

PREFIX = "AGENTAPP_"

OTHER_VARIABLES = ("HOME", "TOKEN", "TRACEBACK", "WORKER_LOGLEVEL")
"""Other variables with this prefix, which deployments, the command line and the worker read."""

OF_KUBERNETES = re.compile(r"AGENTAPP_(\w+_)?(SERVICE_(HOST|PORT)\w*|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
"""Variables that Kubernetes sets in every container for a service whose name begins with `agentapp`."""

SECRETS = ("admin_token",)
"""Settings whose values are never shown."""

MAX_CONNECTIONS = 20_000
"""Connections of one node: twice its runs. An idle one takes about 20 KiB, so 400 MB."""

MAX_SOCKETS_PER_USER = 1000
"""WebSockets of one user, or of one address in an app that does not authenticate: it may be that of a proxy."""

WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


class UnknownParameter(TypeError):
    """AgentApp has no parameter of this name."""


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
    access_log: bool
    metrics: bool
    traces: bool
    admin_token: str | None
    instruments: Sequence[Instrument] | None


Check = Callable[[Any], str | None]
"""Returns what is wrong with a value as words that follow the setting's name, or None."""


def _setting(default: Any, *checks: Check, also: Any = None, variable: type | None = None) -> Any:
    """Define a field of `Settings`.

    `also`: an attrs validator that looks at other settings. `variable`: the type of the environment's value, where
    the default does not tell.
    """

    def validate(settings: Settings, attribute: attrs.Attribute[Any], value: Any) -> None:
        for check in checks:
            if (fault := check(value)) is not None:
                raise ConfigurationError(f"{attribute.name} {fault}")
        if also is not None:
            also(settings, attribute, value)

    return attrs.field(
        default=default,
        converter=_tuple if isinstance(default, tuple) else None,
        validator=validate,
        metadata={"environment": variable or type(default)},
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _must_be(words: str, right: Callable[[Any], bool]) -> Check:
    return lambda value: None if right(value) else f"must be {words}, not {value!r}"


def _one_of(*known: str) -> Check:
    return _must_be(f"one of {', '.join(known)}", lambda value: value in known)


def _texts(what: str) -> Check:
    return _must_be(
        f"a tuple of {what}",
        lambda value: isinstance(value, tuple) and all(isinstance(each, str) for each in value),
    )


def _is_number(value: object, kind: type | UnionType = int | float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


TEXT = _must_be("a text", lambda value: isinstance(value, str))
YES_OR_NO = _must_be("True or False", lambda value: isinstance(value, bool))
PATH = _must_be(
    "a path that begins with '/'", lambda value: isinstance(value, str) and value.startswith("/") and value != "/"
)
SECONDS = _must_be("a number of seconds, 0 or more", lambda value: _is_number(value) and 0 <= value < math.inf)
RATE = _must_be(
    "a number per second, more than 0, or 0 for no limit",
    lambda value: value is None or (_is_number(value) and 0 <= value < math.inf),
)
SECONDS_OR_NONE = _must_be(
    "a number of seconds, more than 0, or None",
    lambda value: value is None or (_is_number(value) and 0 < value < math.inf),
)
RUNS_OR_NONE = _must_be(
    "a number of runs, 1 or more, or None", lambda value: value is None or (_is_number(value, int) and value >= 1)
)
STATE_URL = _must_be(
    "a URL such as sqlite:///states.db", lambda value: value is None or (isinstance(value, str) and value != "")
)
ON_DISCONNECT = _must_be(
    "'cancel', 'continue' or CancelAfter(seconds)",
    lambda value: value in ("cancel", "continue") or isinstance(value, CancelAfter),
)


def _whole_number(what: str, least: int) -> Check:
    return _must_be(f"{what}, {least} or more", lambda value: _is_number(value, int) and value >= least)


def _not_empty(value: str) -> str | None:
    return None if value else "must not be empty"


def _function(value: object) -> str | None:
    return None if value is None or callable(value) else f"must be a function, not {type(value).__name__}"


def _lifespan(value: object) -> str | None:
    if inspect.isasyncgenfunction(value):
        return "must be decorated with @asynccontextmanager (from contextlib)"
    return _function(value)


def _backend(value: object) -> str | None:
    if value is None or isinstance(value, BaseInterruptBackend):
        return None
    if isinstance(value, type):
        return f"must be a BaseInterruptBackend, not the class {value.__name__}; pass an object of it"
    # The value is not shown: it may be a URL with a password.
    hint = "; a URL of Redis is the parameter interrupt_redis_url" if isinstance(value, str) else ""
    return f"must be a BaseInterruptBackend, not {type(value).__name__}{hint}"


def _adapters(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        return f"must be a list of ProtocolAdapter objects, not {type(value).__name__}"
    for adapter in value:
        if not isinstance(adapter, ProtocolAdapter):
            hint = f"; write {adapter.__name__}()" if isinstance(adapter, type) else ""
            return f"must be a list of ProtocolAdapter objects, and has one of {type(adapter).__name__}{hint}"
    return None


def _a2a_config(value: object) -> str | None:
    if value is None:
        return None
    from ..wires.a2a import AgentCardWithRuntimeConfig

    if isinstance(value, AgentCardWithRuntimeConfig):
        return None
    return f"must be AgentCardWithRuntimeConfig(...), not {type(value).__name__}"


def _only_built_in(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and settings.protocol_adapters is not None:
        raise ConfigurationError(
            f"{attribute.name} is for the built-in protocols, and protocol_adapters replaces them; give "
            "A2AAdapter(config) among the adapters"
        )


def _instruments(value: object) -> str | None:
    if value is None or (isinstance(value, list | tuple) and all(isinstance(each, Instrument) for each in value)):
        return None
    return f"must be a list of Instrument objects, not {value!r}"


LEAST_TOKEN = 16
"""Characters of an admin token. A shorter one can be guessed."""


def _admin_token(value: object) -> str | None:
    # The value is not shown: it is a secret.
    if value is None:
        return None
    if not isinstance(value, str) or len(value) < LEAST_TOKEN or not value.isascii() or not value.isprintable():
        return (
            f"must be {LEAST_TOKEN} printable ASCII characters or more, as `python -c 'import secrets; "
            "print(secrets.token_urlsafe())'` prints them"
        )
    return None if " " not in value else "must not contain spaces"


def _redis_url(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        return f"must be a URL such as redis://localhost, not {value!r}"
    # Imported only if needed: an app on one node needs no Redis client.
    from ..redis import RedisURL

    try:
        RedisURL.parse(value)
    except ConfigurationError as error:
        return f"cannot be {masked_url(value)!r}: {error}"
    return None


def _broker_url(value: object) -> str | None:
    if value is None or (isinstance(value, str) and "://" in value):
        return None
    shown = masked_url(value) if isinstance(value, str) else value
    return f"must be a URL such as redis://localhost:6379/0, not {shown!r}"


def _only_backend(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and settings.interrupt_backend is not None:
        raise ConfigurationError(f"{attribute.name} and interrupt_backend were both given; give one of them")


def _store(value: object) -> str | None:
    if value in ("local", "redis") or isinstance(value, EventStore):
        return None
    shown = masked_url(value) if isinstance(value, str) else value
    return f"must be local, redis or an EventStore, not {shown!r}"


def _only_with_redis(settings: Settings, _attribute: attrs.Attribute[Any], value: object) -> None:
    if value == "redis" and settings.interrupt_redis_url is None:
        raise ConfigurationError(
            "event_store='redis' needs interrupt_redis_url, for instance redis://localhost: the end of a run and "
            "its last event are written together, to one server"
        )


ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*)(:[1-9]\d{0,4})?")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
HOST_NAME = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


def _origins(value: tuple[str, ...]) -> str | None:
    for origin in value:
        if origin == "*":
            return (
                "must name each origin, not '*': every page could use this app with the cookies and in the network "
                "of its reader"
            )
        if (found := ORIGIN.fullmatch(origin)) is None or found[4] == DEFAULT_PORTS.get(found[1], ""):
            return (
                "must be origins as browsers send them, such as 'https://app.example.com' or "
                f"'http://localhost:5173', not {origin!r}: no path, no '/' at the end, no '*', no capitals, and no "
                "port 80 of http or 443 of https"
            )
    return None


def _proxies(value: tuple[str, ...]) -> str | None:
    try:
        Proxies(value)
    except ValueError as error:
        return f"must be addresses such as '10.0.0.7' and networks such as '10.1.0.0/16': {error}"
    return None


PREFIX_PATH = _must_be(
    "a path prefix such as '/agents': it begins with '/', has no characters that need percent-encoding, and "
    "neither '//' nor '..'",
    lambda value: isinstance(value, str) and ROOT_PATH.fullmatch(value) is not None,
)


def _hosts(value: tuple[str, ...]) -> str | None:
    for host in value:
        if HOST_NAME.fullmatch(host) is None:
            return (
                "must be host names such as 'agent.example.com' or '*.example.com', or '*' for all, not "
                f"{host!r}: no scheme, no port, no path, no capitals"
            )
    return None


@attrs.frozen(kw_only=True)
class Settings:
    """The complete, checked settings of an app. Times are in seconds, sizes in bytes.

    `gc_threshold`: while the app serves, Python's garbage collector looks at young objects when there are this
    many, and leaves out the objects of the start-up. 0 does not change the collector. Its pauses are what delays
    events when there are many streams (see docs/discussion/hot-path.md).
    """

    app_name: str = _setting("Agent", TEXT)
    app_description: str = _setting("", TEXT)
    agent: Any = _setting(None)
    endpoint_path: str = _setting("/process", PATH)
    response_type: str = _setting("sse", _one_of("sse", "json"))
    stream: bool = _setting(True, YES_OR_NO)
    lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = _setting(None, _lifespan)
    before_start: Callable[..., Any] | None = _setting(None, _function)
    after_finish: Callable[..., Any] | None = _setting(None, _function)
    interrupt_backend: BaseInterruptBackend | None = _setting(None, _backend)
    interrupt_redis_url: str | None = _setting(None, _redis_url, also=_only_backend, variable=str)
    state_url: str | None = _setting(None, STATE_URL, variable=str)
    redis_prefix: str = _setting("agentapp", TEXT)
    timings: Timings = _setting(
        attrs.Factory(Timings), _must_be("Timings(...)", lambda value: isinstance(value, Timings))
    )
    event_store: str | EventStore = _setting("local", _store, also=_only_with_redis)
    broker_url: str | None = _setting(None, _broker_url, variable=str)
    backend_url: str | None = _setting(None, _redis_url, variable=str)
    enable_embedded_worker: bool = _setting(False, YES_OR_NO)
    enable_stream_task: bool = _setting(False, YES_OR_NO)
    stream_task_queue: str = _setting("stream_query", TEXT, _not_empty)
    stream_task_timeout: float | None = _setting(None, SECONDS_OR_NONE, variable=float)
    on_disconnect: OnDisconnect = _setting("cancel", ON_DISCONNECT)
    multitask_strategy: MultitaskStrategy = _setting("reject", _one_of(*STRATEGIES))
    authenticate: Authenticate | None = _setting(None, _function)
    authorize: Authorize | None = _setting(None, _function)
    auth_timeout: float = _setting(10.0, SECONDS)
    protocol_adapters: Sequence[ProtocolAdapter] | None = _setting(None, _adapters)
    web_ui: bool = _setting(False, YES_OR_NO)
    a2a_config: AgentCardWithRuntimeConfig | None = _setting(None, _a2a_config, also=_only_built_in)
    agui_config: Any = _setting(None)
    require_auth: bool = _setting(False, YES_OR_NO)
    cors_origins: tuple[str, ...] = _setting((), _texts("origins such as 'https://app.example.com'"), _origins)
    allowed_hosts: tuple[str, ...] = _setting((), _texts("host names such as 'agent.example.com'"), _hosts)
    trusted_proxies: tuple[str, ...] = _setting((), _texts("addresses such as '10.0.0.7'"), _proxies)
    root_path: str = _setting("", PREFIX_PATH)
    max_body_bytes: int = _setting(1024 * 1024, _whole_number("a number of bytes", 1))
    read_timeout: float = _setting(15.0, SECONDS)
    max_connections: int = _setting(MAX_CONNECTIONS, _whole_number("a number of connections", 1))
    max_runs: int = _setting(MAX_RUNS, _whole_number("a number of runs", 1))
    max_runs_per_user: int | None = _setting(None, RUNS_OR_NONE, variable=int)
    max_sockets_per_user: int = _setting(MAX_SOCKETS_PER_USER, _whole_number("a number of WebSockets", 1))
    requests_per_second: float | None = _setting(None, RATE, variable=float)
    frames_per_second: float | None = _setting(None, RATE, variable=float)
    debug: bool = _setting(False, YES_OR_NO)
    sse_done: bool = _setting(False, YES_OR_NO)
    cleanup_budget: float = _setting(30.0, SECONDS)
    drain_timeout: float = _setting(30.0, SECONDS)
    gc_threshold: int = _setting(50_000, _whole_number("a number of objects", 0))
    log_format: str = _setting("text", _one_of(*LOG_FORMATS))
    access_log: bool = _setting(False, YES_OR_NO)
    metrics: bool = _setting(False, YES_OR_NO)
    traces: bool = _setting(False, YES_OR_NO)
    admin_token: str | None = _setting(None, _admin_token, variable=str)
    instruments: Sequence[Instrument] | None = _setting(None, _instruments)

    @classmethod
    def read(cls, options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
        """Make settings from options in code, and from variables `AGENTAPP_<NAME>` for the others.

        Raises:
            UnknownParameter: no such option; the message names the nearest one that exists.
            ConfigurationError: a value that cannot be used; the message begins with the name of its option.
        """
        known = [field.name for field in attrs.fields(cls)]
        for name in options:
            if name not in known:
                raise UnknownParameter(f"AgentApp has no parameter {name!r}{nearest_hint(name, known)}")
        found = _from_environment(os.environ if environment is None else environment)
        return cls(**{**found, **options})


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(name, known := sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"


def _readable() -> dict[str, type[Any]]:
    """The settings that a variable can hold, with their types: text, list of texts, number, yes or no."""
    kinds = {field.name: field.metadata["environment"] for field in attrs.fields(Settings)}
    return {name: kind for name, kind in kinds.items() if kind in (str, tuple, bool, int, float)}


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: _parsed(_variable(name), environment[_variable(name)], kind)
        for name, kind in _readable().items()
        if _variable(name) in environment
    }


def named_by_variable(error: ConfigurationError, options: Mapping[str, Any]) -> ConfigurationError:
    """Return the error with the variable's name and value, if its message begins with a setting from a variable."""
    message = str(error)
    name = re.match(r"\w*", message)[0]  # type: ignore[index]  # it always matches
    variable = _variable(name)
    if name not in _readable() or name in options or variable not in os.environ:
        return error
    shown = "***" if name in SECRETS else repr(masked_url(os.environ[variable]))
    named = variable if shown in message else f"{variable}={shown}"
    return ConfigurationError(named + message.removeprefix(name))


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a message for each variable that has the prefix of settings and is not one."""
    known = {name.upper(): _variable(name) for name in _readable()}
    known |= {name: PREFIX + name for name in OTHER_VARIABLES} | {"HOST": "HOST", "PORT": "PORT"}
    in_code = {_variable(field.name): field.name for field in attrs.fields(Settings)}
    messages = []
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in known.values():
            continue
        if OF_KUBERNETES.fullmatch(variable) and (variable != PREFIX + "PORT" or "://" in value):
            continue
        near = difflib.get_close_matches(variable.removeprefix(PREFIX), known, n=1)
        if variable in in_code:
            hint = f"; AgentApp({in_code[variable]}=...) is set in code only"
        else:
            hint = f"; did you mean {known[near[0]]}?" if near else "; known ones are in the reference of settings"
        messages.append(f"{variable} is set and means nothing{hint}")
    return messages


def _parsed(variable: str, text: str, kind: type[Any]) -> Any:
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return WORDS[text.strip().lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        words = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ConfigurationError(f"{variable} must be {words}, not {text!r}") from None


def read_port(environment: Mapping[str, str], default: int) -> int:
    """Return the variable `PORT`, which platforms set, else `default`.

    Raises:
        ConfigurationError: the value is not a port.
    """
    text = environment.get("PORT", str(default))
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise ConfigurationError(f"PORT must be a number from 0 to 65535, not {text!r}")
    return int(text)
