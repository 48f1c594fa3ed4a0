"""The checks of single settings: each returns what is wrong with a value, or None."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from types import UnionType
from typing import Any

from ..abc import BaseInterruptBackend, EventStore, Instrument
from ..errors import ConfigurationError
from ..protocol.request import CancelAfter
from ..protocol.text import masked_url
from ..protocol.timings import Timings
from ..telemetry import levels_in
from ..web.protocol_adapter import ProtocolAdapter
from ..web.proxies import ROOT_PATH, Proxies

Check = Callable[[Any], str | None]
"""Returns what is wrong with a value, as text that follows the setting's name; None if it is right."""


def must_be(words: str, right: Callable[[Any], bool]) -> Check:
    """Return a check that a value is right, described by `words`.

    Its message has the value, without passwords of URLs.
    """

    def check(value: Any) -> str | None:
        if right(value):
            return None
        shown = masked_url(value) if isinstance(value, str) else value
        return f"must be {words}, not {shown!r}"

    return check


def one_of(*known: str) -> Check:
    return must_be(f"one of {', '.join(known)}", lambda value: value in known)


def texts(what: str) -> Check:
    return must_be(
        f"a tuple of {what}",
        lambda value: isinstance(value, tuple) and all(isinstance(each, str) for each in value),
    )


def log_levels(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        return f"must be a text such as 'debug' or 'info,my.agent=debug', not {value!r}"
    try:
        levels_in(value)
    except ValueError as error:
        return f"cannot be {value!r}: {error}"
    return None


def _is_number(value: object, kind: type | UnionType = int | float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


TEXT = must_be("a text", lambda value: isinstance(value, str))
YES_OR_NO = must_be("True or False", lambda value: isinstance(value, bool))
PATH = must_be(
    "a path that begins with '/'", lambda value: isinstance(value, str) and value.startswith("/") and value != "/"
)
PREFIX_PATH = must_be(
    "a path prefix such as '/agents': it begins with '/', has no characters that need percent-encoding, and "
    "neither '//' nor '..'",
    lambda value: isinstance(value, str) and ROOT_PATH.fullmatch(value) is not None,
)
SECONDS = must_be("a number of seconds, 0 or more", lambda value: _is_number(value) and 0 <= value < math.inf)
RATE = must_be(
    "a number per second, more than 0, or 0 for no limit",
    lambda value: value is None or (_is_number(value) and 0 <= value < math.inf),
)
SECONDS_OR_NONE = must_be(
    "a number of seconds, more than 0, or None",
    lambda value: value is None or (_is_number(value) and 0 < value < math.inf),
)
RUNS_OR_NONE = must_be(
    "a number of runs, 1 or more, or None", lambda value: value is None or (_is_number(value, int) and value >= 1)
)
STATE_URL = must_be(
    "a URL such as sqlite:///states.db", lambda value: value is None or (isinstance(value, str) and value != "")
)
BROKER_URL = must_be(
    "a URL such as redis://localhost:6379/0",
    lambda value: value is None or (isinstance(value, str) and "://" in value),
)
EVENT_STORE = must_be(
    "local, redis or an EventStore", lambda value: value in ("local", "redis") or isinstance(value, EventStore)
)
TIMINGS = must_be("Timings(...)", lambda value: isinstance(value, Timings))
ON_DISCONNECT = must_be(
    "'cancel', 'continue' or CancelAfter(seconds)",
    lambda value: value in ("cancel", "continue") or isinstance(value, CancelAfter),
)


def whole_number(what: str, least: int) -> Check:
    return must_be(f"{what}, {least} or more", lambda value: _is_number(value, int) and value >= least)


def not_empty(value: str) -> str | None:
    return None if value else "must not be empty"


def function(value: object) -> str | None:
    return None if value is None or callable(value) else f"must be a function, not {type(value).__name__}"


def lifespan(value: object) -> str | None:
    if inspect.isasyncgenfunction(value):
        return "must be decorated with @asynccontextmanager (from contextlib)"
    return function(value)


def backend(value: object) -> str | None:
    if value is None or isinstance(value, BaseInterruptBackend):
        return None
    if isinstance(value, type):
        return f"must be a BaseInterruptBackend, not the class {value.__name__}; pass an object of it"
    # The message does not show the value, which may be a URL with a password.
    hint = "; a URL of Redis is the parameter interrupt_redis_url" if isinstance(value, str) else ""
    return f"must be a BaseInterruptBackend, not {type(value).__name__}{hint}"


def adapters(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        return f"must be a list of ProtocolAdapter objects, not {type(value).__name__}"
    for adapter in value:
        if not isinstance(adapter, ProtocolAdapter):
            hint = f"; write {adapter.__name__}()" if isinstance(adapter, type) else ""
            return f"must be a list of ProtocolAdapter objects, and has one of {type(adapter).__name__}{hint}"
    return None


def a2a_config(value: object) -> str | None:
    if value is None:
        return None
    from ..wires.a2a import AgentCardWithRuntimeConfig

    if isinstance(value, AgentCardWithRuntimeConfig):
        return None
    return f"must be AgentCardWithRuntimeConfig(...), not {type(value).__name__}"


def instruments(value: object) -> str | None:
    if value is None or (isinstance(value, list | tuple) and all(isinstance(each, Instrument) for each in value)):
        return None
    return f"must be a list of Instrument objects, not {value!r}"


LEAST_TOKEN = 16
"""The least number of characters of an admin token. A shorter one can be guessed."""


def admin_token(value: object) -> str | None:
    # The message does not show the value, because it is a secret.
    if value is None:
        return None
    if not isinstance(value, str) or len(value) < LEAST_TOKEN or not value.isascii() or not value.isprintable():
        return (
            f"must be {LEAST_TOKEN} printable ASCII characters or more, as `python -c 'import secrets; "
            "print(secrets.token_urlsafe())'` prints them"
        )
    return None if " " not in value else "must not contain spaces"


def redis_url(value: object) -> str | None:
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


ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*)(:[1-9]\d{0,4})?")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
HOST_NAME = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


def origins(value: tuple[str, ...]) -> str | None:
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


def proxies(value: tuple[str, ...]) -> str | None:
    try:
        Proxies(value)
    except ValueError as error:
        return f"must be addresses such as '10.0.0.7' and networks such as '10.1.0.0/16': {error}"
    return None


def hosts(value: tuple[str, ...]) -> str | None:
    for host in value:
        if HOST_NAME.fullmatch(host) is None:
            return (
                "must be host names such as 'agent.example.com' or '*.example.com', or '*' for all, not "
                f"{host!r}: no scheme, no port, no path, no capitals"
            )
    return None
