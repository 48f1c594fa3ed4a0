"""Loads the app that a text names: `agent.py`, `agent.py:app`, `package.module:app`, or a folder."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ..errors import ConfigurationError
from ..telemetry import is_library
from .application import AgentApp

__all__ = ["is_file", "load_app", "resolved"]

ENTRY_FILES = ("app.py", "agent.py", "main.py")
"""File names of an app in a folder. The first that exists is used."""

USUAL_NAMES = ("agent_app", "app", "application")
USUAL_FUNCTIONS = ("create_app", "create_agent_app", "get_app", "get_agent_app")


def load_app(entrypoint: str) -> AgentApp:
    """Import the module that `entrypoint` names, and find the app in it.

    `app.run()` and `app.deploy()` do nothing meanwhile. Without `:name` the app is the one of a usual name, else
    the one that a function of a usual name makes, else the only one. `:name` may also name a function without
    parameters that makes the app.

    Raises:
        ConfigurationError: there is no such file, module or app; or there are several apps; or the module raised
            an error. The message is one line and says where.
    """
    place, name = _split(entrypoint)
    module = _import_file(Path(place)) if is_file(place) else _import_module(place)
    return _named(module, name, place) if name else _only_one(module, place)


def is_file(place: str) -> bool:
    return place.endswith(".py") or os.sep in place


def resolved(entrypoint: str) -> str:
    """Return the entrypoint with an absolute path, for a process with another current folder."""
    place, name = _split(entrypoint)
    if is_file(place):
        place = os.path.abspath(place)
    return f"{place}:{name}" if name else place


def _split(entrypoint: str) -> tuple[str, str]:
    """Split an entrypoint into the file or module and the name in it, which may be empty."""
    place, _, name = entrypoint.partition(":")
    if not place:
        raise ConfigurationError(f"{entrypoint!r} names no file or module; write agent.py, or module:name")
    return (_entry_file(place) if _is_folder(place) else place), name


def _is_folder(place: str) -> bool:
    """Return whether a text names a folder.

    A name that Python would import as a package or module is not a folder.
    """
    module = os.path.isfile(os.path.join(place, "__init__.py")) or os.path.isfile(f"{place}.py")
    return os.path.isdir(place) and (os.sep in place or place.startswith(".") or not module)


def _entry_file(folder: str) -> str:
    for name in ENTRY_FILES:
        if os.path.isfile(path := os.path.join(folder, name)):
            return path
    raise ConfigurationError(
        f"the folder {folder} has none of {', '.join(ENTRY_FILES)}; write {os.path.join(folder, 'FILE.py')}, or "
        "--entrypoint FILE.py on the command line"
    )


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    folder, names = path.parent, [path.stem]
    while (folder / "__init__.py").exists():
        names.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    if len(names) > 1:
        # As in a script, files beside it can be imported. The folder comes last in the path, so that it hides no
        # module.
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        return _import_module(".".join(names))
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        if before is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = before
        raise _failure(str(path), error) from error
    return module


def _import_module(name: str) -> ModuleType:
    # Modules of the current folder can be imported, as with `python -m`.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigurationError(f"there is no module {error.name!r} here; a file ends in .py") from None
        raise _failure(name, error) from error
    except BaseException as error:
        raise _failure(name, error) from error


def _failure(place: str, error: BaseException, *, while_: str = "imported") -> BaseException:
    """Turn an error of the user's module into a ConfigurationError; keep KeyboardInterrupt and the like."""
    if isinstance(error, SystemExit):
        return ConfigurationError(f"{place} ended the program while it was {while_} (exit code {error.code})")
    if not isinstance(error, Exception):
        return error
    if isinstance(error, SyntaxError):
        return ConfigurationError(f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    where = next((frame for frame in reversed(frames) if not is_library(frame.filename)), frames[-1])
    return ConfigurationError(f"{where.filename}, line {where.lineno}: {type(error).__name__}: {error}")


def _named(module: ModuleType, name: str, place: str) -> AgentApp:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            found = _apps(module)
            more = f"; its apps are {', '.join(found)}" if found else ""
            raise ConfigurationError(f"{place} has no {name!r}{more}")
        value = getattr(value, part)
    if inspect.isfunction(value):
        value = _made(value, place)
    if not isinstance(value, AgentApp):
        raise ConfigurationError(f"{place}:{name} is not an AgentApp but {type(value).__name__}")
    return value


def _made(function: FunctionType, place: str) -> Any:
    if (obstacle := _obstacle(function)) is not None:
        raise ConfigurationError(f"{place}: {function.__name__}() {obstacle}, so the app cannot be made with it")
    try:
        return function()
    except BaseException as error:
        raise _failure(f"{place}: {function.__name__}()", error, while_="called") from error


def _only_one(module: ModuleType, place: str) -> AgentApp:
    apps = _apps(module)
    usual = {name: apps[name] for name in USUAL_NAMES if name in apps}
    for found in (usual, _functions(module), apps, _functions(module, usable=False)):
        if len({id(value) for value in found.values()}) > 1:
            names = ", ".join(found)
            raise ConfigurationError(f"{place} has several apps, {names}; say which: {place}:{next(iter(found))}")
        if found:
            return _named(module, next(iter(found)), place)
    raise ConfigurationError(
        f"{place} has no AgentApp among its global names, and no function {USUAL_FUNCTIONS[0]}() that makes one"
    )


def _functions(module: ModuleType, *, usable: bool = True) -> dict[str, FunctionType]:
    """Return the functions with a usual name that can (`usable`) or cannot be called without arguments."""
    found = {name: value for name in USUAL_FUNCTIONS if inspect.isfunction(value := vars(module).get(name))}
    return {name: value for name, value in found.items() if (_obstacle(value) is None) is usable}


def _obstacle(function: FunctionType) -> str | None:
    """Return why an app cannot be made by calling this function without arguments; None if it can."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "is async"
    try:
        inspect.signature(function).bind()
    except TypeError:
        return "needs arguments"
    return None


def _apps(module: ModuleType) -> dict[str, AgentApp]:
    return {name: value for name, value in vars(module).items() if isinstance(value, AgentApp)}
