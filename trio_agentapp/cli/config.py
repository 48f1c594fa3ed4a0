"""Reads the file of `--config` of the deploy commands."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .environment import opened

__all__ = ["LOCAL", "read_config"]

LOCAL: dict[str, type] = {"host": str, "port": int, "entrypoint": str, "environment": dict}
NAMES = {str: "a text", int: "a number", float: "a number", dict: "a table of names and values"}


def read_config(path: Path, keys: Mapping[str, type]) -> dict[str, Any]:
    """Return those of `keys` that the file sets, of the types given, with the values of its environment as texts.

    Raises:
        ConfigurationError: it cannot be read, or has a wrong key or value. The message holds no value.
    """
    # Imported here: what only shows its help does not load the protocol.
    from ..protocol.hosts import port_fault

    found = _parsed(path)
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} must hold keys and values: {', '.join(keys)}")
    for key, value in found.items():
        if key not in keys:
            raise ConfigurationError(f"{path} has an unknown key {key!r}; the keys are {', '.join(keys)}")
        if type(value) is not keys[key] and (keys[key], type(value)) != (float, int):
            raise ConfigurationError(f"{path}: {key} must be {NAMES[keys[key]]}")
    if (fault := port_fault(found.get("port", 0))) is not None:
        raise ConfigurationError(f"{path}: {fault}")
    if "environment" in found:
        found["environment"] = {name: _text(path, name, value) for name, value in found["environment"].items()}
    return found


def _text(path: Path, name: Any, value: Any) -> str:
    if not isinstance(name, str) or not name or {"=", "\0"} & set(name):
        raise ConfigurationError(f"{path}: {name!r} is not the name of a variable")
    # YAML reads yes and no as booleans.
    if type(value) not in (str, int, float) or "\0" in str(value):
        raise ConfigurationError(f"{path}: the value of {name} must be a text or a number; put it into quotes")
    return str(value)


def _parsed(path: Path) -> Any:
    wrong: type[Exception] = ValueError
    parse: Callable[[str], Any]
    match path.suffix:
        case ".json":
            parse = json.loads
        case ".toml":
            parse = tomllib.loads
        case ".yaml" | ".yml":
            try:
                import yaml
            except ImportError:
                raise ConfigurationError(
                    f"{path} needs a library: pip install pyyaml; or write JSON or TOML"
                ) from None
            parse, wrong = yaml.safe_load, yaml.YAMLError
        case _:
            raise ConfigurationError(f"{path} must end in .json, .toml, .yaml or .yml")
    with opened(path) as file:
        text = file.read()
    try:
        return parse(text)
    except wrong:
        # Without the message of the parser, which may quote a secret.
        raise ConfigurationError(f"{path} is not valid {path.suffix[1:].upper()}") from None
