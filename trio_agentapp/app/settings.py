"""The settings of an app: from the code, else from the environment, else the default; checked once, loudly."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypedDict

import attrs

from ..abc import BaseInterruptBackend
from ..errors import ConfigurationError
from ..protocol.request import STRATEGIES, CancelAfter, MultitaskStrategy, OnDisconnect
from ..protocol.text import masked_url
from ..protocol.timings import Timings
from ..telemetry import LOG_FORMATS
from ..web.identity import Authenticate, Authorize

__all__ = ["Options", "Settings", "UnknownParameter", "read_port", "unknown_variables"]

PREFIX = "AGENTAPP_"

OTHER_VARIABLES = ("HOME", "TOKEN", "TRACEBACK", "WORKER_LOGLEVEL")
"""What else the environment may say, with the same prefix: of deployments, the command line and the worker."""

OF_KUBERNETES = re.compile(r"AGENTAPP_(\w+_)?(SERVICE_(HOST|PORT)\w*|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
"""What Kubernetes sets in every container beside a service whose name begins with `agentapp`."""

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
    """A parameter that AgentApp does not have."""


class Options(TypedDict, total=False):
    """The parameters of AgentApp; their defaults and meanings stand with `Settings`."""

    app_name: str
    app_description: str
    agent: Callable[..., Any] | None
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
    event_store: str
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
    require_auth: bool
    cors_origins: Sequence[str]
    allowed_hosts: Sequence[str]
    max_body_bytes: int
    read_timeout: float
    debug: bool
    sse_done: bool
    cleanup_budget: float
    drain_timeout: float
    gc_threshold: int
    log_format: str


def _is(kind: type, words: str) -> Callable[[Settings, attrs.Attribute[Any], object], None]:
    def check(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigurationError(f"{attribute.name} must be {words}, not {value!r}")

    return check


def _seconds(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigurationError(f"{attribute.name} must be a number of seconds, 0 or more, not {value!r}")


def _callable(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigurationError(f"{attribute.name} must be a function, not {type(value).__name__}")


def _lifespan(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    _callable(settings, attribute, value)
    if inspect.isasyncgenfunction(value):
        raise ConfigurationError("lifespan must be decorated with @asynccontextmanager (from contextlib)")


def _path(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value.startswith("/") or value == "/":
        raise ConfigurationError(f"{attribute.name} must be a path that begins with '/', not {value!r}")


def _on_disconnect(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("cancel", "continue") and not isinstance(value, CancelAfter):
        raise ConfigurationError(
            f"{attribute.name} must be 'cancel', 'continue' or CancelAfter(seconds), not {value!r}"
        )


def _one_of(*known: str) -> Callable[[Settings, attrs.Attribute[Any], object], None]:
    def check(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in known:
            raise ConfigurationError(f"{attribute.name} must be one of {', '.join(known)}, not {value!r}")

    return check


def _event_store(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    _one_of("local", "redis")(settings, attribute, value)
    if value == "redis" and settings.interrupt_redis_url is None:
        raise ConfigurationError(
            "event_store='redis' needs interrupt_redis_url, for instance redis://localhost: the end of a run and "
            "its last event are written together, to one server"
        )


def _backend(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, BaseInterruptBackend):
        raise ConfigurationError(f"{attribute.name} must be a BaseInterruptBackend, not {type(value).__name__}")


def _redis_url(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{attribute.name} must be a URL such as redis://localhost, not {value!r}")
    # Loaded when it is wanted: an app on one node needs no Redis client.
    from ..redis import RedisURL

    try:
        RedisURL.parse(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{attribute.name} cannot be {masked_url(value)!r}: {error}") from error


def _alone(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and settings.interrupt_backend is not None:
        raise ConfigurationError(f"{attribute.name} and interrupt_backend were both given; one is enough")


def _state_url(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{attribute.name} must be a URL such as sqlite:///states.db, not {value!r}")


def _broker_url(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (not isinstance(value, str) or "://" not in value):
        shown = masked_url(value) if isinstance(value, str) else value
        raise ConfigurationError(f"{attribute.name} must be a URL such as redis://localhost:6379/0, not {shown!r}")


def _optional_seconds(settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _seconds(settings, attribute, value)
        if not value:
            raise ConfigurationError(f"{attribute.name} must be more than 0 seconds, or None, not {value!r}")


def _not_empty(_settings: Settings, attribute: attrs.Attribute[Any], value: str) -> None:
    if not value:
        raise ConfigurationError(f"{attribute.name} must not be empty")


ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*)(:[1-9]\d{0,4})?")
USUAL_PORT = {"http": ":80", "https": ":443"}
HOST_NAME = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _texts(attribute: attrs.Attribute[Any], value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, tuple) or not all(isinstance(each, str) for each in value):
        raise ConfigurationError(f"{attribute.name} must be a tuple of {what}, not {value!r}")
    return value


def _origins(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    for origin in _texts(attribute, value, "origins such as 'https://app.example.com'"):
        if origin == "*":
            raise ConfigurationError(
                f"{attribute.name} must name each origin, not '*': every page could use this app with the cookies "
                "and in the network of its reader"
            )
        if (found := ORIGIN.fullmatch(origin)) is None or found[4] == USUAL_PORT.get(found[1], ""):
            raise ConfigurationError(
                f"{attribute.name} must be origins as browsers send them, such as 'https://app.example.com' or "
                f"'http://localhost:5173', not {origin!r}: no path, no '/' at the end, no '*', no capitals, and no "
                "port 80 of http or 443 of https"
            )


def _hosts(_settings: Settings, attribute: attrs.Attribute[Any], value: object) -> None:
    for host in _texts(attribute, value, "host names such as 'agent.example.com'"):
        if HOST_NAME.fullmatch(host) is None:
            raise ConfigurationError(
                f"{attribute.name} must be host names such as 'agent.example.com' or '*.example.com', or '*' for "
                f"all, not {host!r}: no scheme, no port, no path, no capitals"
            )


def _at_least(least: int) -> Callable[[Settings, attrs.Attribute[Any], int], None]:
    def check(_settings: Settings, attribute: attrs.Attribute[Any], value: int) -> None:
        if value < least:
            raise ConfigurationError(f"{attribute.name} must be at least {least}, not {value}")

    return check


@attrs.frozen(kw_only=True)
class Settings:
    """What an app was told, complete and checked. Times are in seconds, sizes in bytes.

    `gc_threshold`: while serving, Python's garbage collector looks at young objects when there are this many, and
    not at what start-up made; 0 leaves it alone. Its pauses are what makes many streams late (HOT-PATH, section 3).
    """

    app_name: str = attrs.field(default="Agent", validator=_is(str, "a text"))
    app_description: str = attrs.field(default="", validator=_is(str, "a text"))
    agent: Callable[..., Any] | None = attrs.field(default=None, validator=_callable)
    endpoint_path: str = attrs.field(default="/process", validator=_path)
    response_type: str = attrs.field(default="sse", validator=_one_of("sse", "json"))
    stream: bool = attrs.field(default=True, validator=_is(bool, "True or False"))
    lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = attrs.field(
        default=None, validator=_lifespan
    )
    before_start: Callable[..., Any] | None = attrs.field(default=None, validator=_callable)
    after_finish: Callable[..., Any] | None = attrs.field(default=None, validator=_callable)
    interrupt_backend: BaseInterruptBackend | None = attrs.field(default=None, validator=_backend)
    interrupt_redis_url: str | None = attrs.field(
        default=None, validator=[_redis_url, _alone], metadata={"environment": str}
    )
    state_url: str | None = attrs.field(default=None, validator=_state_url, metadata={"environment": str})
    redis_prefix: str = attrs.field(default="agentapp", validator=_is(str, "a text"))
    timings: Timings = attrs.field(factory=Timings, validator=_is(Timings, "Timings(...)"))
    event_store: str = attrs.field(default="local", validator=_event_store)
    broker_url: str | None = attrs.field(default=None, validator=_broker_url, metadata={"environment": str})
    backend_url: str | None = attrs.field(default=None, validator=_redis_url, metadata={"environment": str})
    enable_embedded_worker: bool = attrs.field(default=False, validator=_is(bool, "True or False"))
    enable_stream_task: bool = attrs.field(default=False, validator=_is(bool, "True or False"))
    stream_task_queue: str = attrs.field(default="stream_query", validator=[_is(str, "a text"), _not_empty])
    stream_task_timeout: float | None = attrs.field(
        default=None, validator=_optional_seconds, metadata={"environment": float}
    )
    on_disconnect: OnDisconnect = attrs.field(default="cancel", validator=_on_disconnect)
    multitask_strategy: MultitaskStrategy = attrs.field(default="reject", validator=_one_of(*STRATEGIES))
    authenticate: Authenticate | None = attrs.field(default=None, validator=_callable)
    authorize: Authorize | None = attrs.field(default=None, validator=_callable)
    require_auth: bool = attrs.field(default=False, validator=_is(bool, "True or False"))
    cors_origins: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_origins)
    allowed_hosts: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_hosts)
    max_body_bytes: int = attrs.field(default=1024 * 1024, validator=[_is(int, "a number of bytes"), _at_least(1)])
    read_timeout: float = attrs.field(default=15.0, validator=_seconds)
    debug: bool = attrs.field(default=False, validator=_is(bool, "True or False"))
    sse_done: bool = attrs.field(default=False, validator=_is(bool, "True or False"))
    cleanup_budget: float = attrs.field(default=30.0, validator=_seconds)
    drain_timeout: float = attrs.field(default=30.0, validator=_seconds)
    gc_threshold: int = attrs.field(default=50_000, validator=[_is(int, "a number of objects"), _at_least(0)])
    log_format: str = attrs.field(default="text", validator=_one_of(*LOG_FORMATS))

    @classmethod
    def read(cls, options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
        """Settings from the options of the code, completed from `AGENTAPP_<NAME>` of the environment.

        Raises:
            UnknownParameter: an option that does not exist; the message names the nearest one that does.
            ConfigurationError: a value that cannot be used; the message begins with the name of its option.
        """
        known = [field.name for field in attrs.fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; those are {', '.join(known)}"
                raise UnknownParameter(f"AgentApp has no parameter {name!r}{hint}")
        told = _from_environment(os.environ if environment is None else environment)
        return cls(**{**told, **options})

    @property
    def streams_by_default(self) -> bool:
        return self.stream and self.response_type == "sse"


def _readable() -> dict[str, type[Any]]:
    """The settings that the environment may hold: texts, several of them, numbers, yes or no."""
    kinds = {field.name: field.metadata.get("environment", type(field.default)) for field in attrs.fields(Settings)}
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
    """The same error, with the variable and its value if its message begins with a setting from the environment."""
    message = str(error)
    name = re.match(r"\w*", message)[0]  # type: ignore[index]  # it matches always
    variable = _variable(name)
    if name not in _readable() or name in options or variable not in os.environ:
        return error
    shown = repr(masked_url(os.environ[variable]))
    named = variable if shown in message else f"{variable}={shown}"
    return ConfigurationError(named + message.removeprefix(name))


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """What to say of each variable that looks like a setting, and is none."""
    known = {name.upper(): _variable(name) for name in _readable()}
    known |= {name: PREFIX + name for name in OTHER_VARIABLES} | {"HOST": "HOST", "PORT": "PORT"}
    in_code = {_variable(field.name): field.name for field in attrs.fields(Settings)}
    told = []
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
        told.append(f"{variable} is set and means nothing{hint}")
    return told


def _parsed(variable: str, text: str, kind: type[Any]) -> Any:
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return WORDS[text.strip().lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        words = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ConfigurationError(f"{variable} must be {words}, not {text!r}") from None


def read_port(environment: Mapping[str, str], default: int) -> int:
    """`PORT` of the environment, as platforms set it.

    Raises:
        ConfigurationError: it is not a port.
    """
    text = environment.get("PORT", str(default))
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise ConfigurationError(f"PORT must be a number from 0 to 65535, not {text!r}")
    return int(text)
