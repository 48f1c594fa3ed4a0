"""Resolves the annotations of a user's function, and removes `typing`'s wrappers from a type."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import attrs

__all__ = [
    "AT_MODULE_LEVEL",
    "Field",
    "Unservable",
    "alternatives",
    "annotations_of",
    "fields_of",
    "is_pydantic",
    "names_of",
    "plain",
    "result_of",
]

AT_MODULE_LEVEL = "define the class at module level, or import it there"


class Unservable(Exception):
    """No request can fill a parameter with this annotation. The message says why, and what to use instead."""


def annotations_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function's parameters by name. Annotations written as text are resolved.

    Names are looked up in the function's closure, its module and the builtins, as Python does. A local variable of
    an enclosing function is in the closure only if the body of the function uses it; otherwise it is not found.

    Raises Unservable if a name is not defined there.
    """
    inner = _innermost(fn)
    found: dict[str, Any] = {}
    for name, annotation in getattr(inner, "__annotations__", {}).items():
        if name != "return":
            try:
                found[name] = _resolved(inner, annotation)
            except (NameError, SyntaxError, TypeError, AttributeError) as exc:
                raise Unservable(
                    f"the annotation of parameter {name!r} cannot be resolved: {exc}; {AT_MODULE_LEVEL}"
                ) from exc
    return found


def result_of(fn: Callable[..., Any]) -> Any:
    """Return the annotation of the result, or `Any` if there is none or it cannot be resolved."""
    inner = _innermost(fn)
    try:
        return _resolved(inner, getattr(inner, "__annotations__", {}).get("return", Any))
    except (NameError, SyntaxError, TypeError, AttributeError):
        return Any


def _innermost(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = inspect.unwrap(fn)
    return fn if inspect.isroutine(fn) else type(fn).__call__


def _resolved(fn: Any, annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, names_of(fn), include_extras=True)["it"]


def names_of(fn: Any) -> dict[str, Any]:
    """Return the names that a function can use: those of its module and of its closure."""
    names = dict(getattr(fn, "__globals__", {}))
    free = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    for name, cell in zip(free, getattr(fn, "__closure__", None) or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            # The cell is still empty, for instance if a recursive function is being decorated.
            continue
    return names


def plain(annotation: Any) -> Any:
    """Return the type without `Annotated`, `NewType`, `Required`, `NotRequired` and `type` aliases around it."""
    while True:
        if get_origin(annotation) in (Annotated, typing.Required, typing.NotRequired):
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def alternatives(annotation: Any) -> tuple[list[Any], bool]:
    """Return the members of a union without None, and whether None is one of them.

    Any other type counts as a union of one member.
    """
    annotation = plain(annotation)
    if get_origin(annotation) not in (Union, types.UnionType):
        return [annotation], annotation in (None, type(None))
    members: list[Any] = []
    nullable = False
    for member in get_args(annotation):
        inner, none = alternatives(member)
        nullable = nullable or none
        members += [each for each in inner if each is not type(None)]
    return members, nullable


def is_pydantic(annotation: Any) -> bool:
    """Return whether this is a model or dataclass of pydantic, without importing pydantic."""
    loaded = "pydantic" in sys.modules
    return loaded and isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__")


@attrs.frozen
class Field:
    """A member that the JSON of a class may have."""

    name: str
    parameter: str
    """The name of its parameter in `__init__`."""
    annotation: Any
    required: bool
    default: Any = inspect.Parameter.empty
    """The default in the signature. A default factory is represented by a marker object."""


def fields_of(kind: Any) -> list[Field] | None:
    """Return the parameters of an attrs class's or a dataclass's `__init__`, or the keys of a TypedDict.

    Returns None for any other type. Raises Unservable if an annotation cannot be resolved.
    """
    cls = get_origin(kind) or kind
    is_attrs, is_typed_dict = isinstance(cls, type) and attrs.has(cls), typing.is_typeddict(cls)
    if not is_attrs and not is_typed_dict and not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        return None
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as exc:
        raise Unservable(f"{exc}; {AT_MODULE_LEVEL}") from exc
    if is_typed_dict:
        return [Field(name, name, plain(hint), _is_required(cls, name, hint)) for name, hint in hints.items()]
    arguments = dict(zip(getattr(cls, "__parameters__", ()), get_args(kind), strict=False))
    aliases = {field.alias: field.name for field in attrs.fields(cls)} if is_attrs else {}
    found = []
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            name = aliases.get(parameter.name, parameter.name)
            hint = _filled(hints.get(name, Any), arguments)
            hint = hint.type if isinstance(hint, dataclasses.InitVar) else hint
            # attrs shows NOTHING for a default that a factory makes.
            default = parameter.empty if parameter.default is attrs.NOTHING else parameter.default
            found.append(Field(name, parameter.name, hint, parameter.default is parameter.empty, default))
    return found


def _is_required(cls: Any, name: str, hint: Any) -> bool:
    # `__required_keys__` is wrong if annotations are text: Python does not see Required and NotRequired in text.
    mark = get_origin(hint)
    return mark is typing.Required or (name in cls.__required_keys__ and mark is not typing.NotRequired)


def _filled(hint: Any, arguments: dict[Any, Any]) -> Any:
    """Return the annotation with its type variables replaced by the arguments of the generic class."""
    if isinstance(hint, TypeVar):
        return arguments.get(hint, Any)
    variables = getattr(hint, "__parameters__", ()) if get_args(hint) else ()
    return hint[tuple(arguments.get(each, Any) for each in variables)] if variables else hint
