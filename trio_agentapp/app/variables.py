"""Reads settings that the code does not give from variables of the environment."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any

import attrs

from ..errors import ConfigurationError
from ..protocol.text import masked_url
from .settings import SECRETS, Settings, nearest_hint

__all__ = ["PREFIX", "UnknownParameter", "named_by_variable", "read_port", "read_settings", "unknown_variables"]

PREFIX = "AGENTAPP_"

OTHER_VARIABLES = (
    *("HOME", "TOKEN", "TRACEBACK", "WORKER_LOGLEVEL"),
    *("CERTFILE", "KEYFILE", "CA_CERTS", "CERT_REQS", "CLIENT_CERT", "CLIENT_KEY"),
)
"""Other variables with this prefix, which deployments, the command line, the worker and TLS read."""

OF_KUBERNETES = re.compile(r"AGENTAPP_(\w+_)?(SERVICE_(HOST|PORT)\w*|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
"""Variables that Kubernetes sets in every container for a service whose name begins with `agentapp`."""

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


def read_settings(options: Mapping[str, Any]) -> Settings:
    """Make settings from options in code, and from variables `AGENTAPP_<NAME>` for the others.

    Raises:
        UnknownParameter: no such option; the message names the nearest one that exists.
        ConfigurationError: a value that cannot be used; the message begins with the name of its option.
    """
    known = [field.name for field in attrs.fields(Settings)]
    for name in options:
        if name not in known:
            raise UnknownParameter(f"AgentApp has no parameter {name!r}{nearest_hint(name, known)}")
    found = {
        name: _parsed(_variable(name), os.environ[_variable(name)], kind)
        for name, kind in _readable().items()
        if _variable(name) in os.environ
    }
    return Settings(**{**found, **options})


def _readable() -> dict[str, type[Any]]:
    """Return the settings that a variable can set, with their types: text, list of texts, number, yes or no."""
    kinds = {field.name: field.metadata["environment"] for field in attrs.fields(Settings)}
    return {name: kind for name, kind in kinds.items() if kind in (str, tuple, bool, int, float)}


def _variable(name: str) -> str:
    return PREFIX + name.upper()


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
    """Return a message for each variable with the prefix `AGENTAPP_` that is not a setting."""
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
