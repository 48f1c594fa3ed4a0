"""What a parameter's annotation says, without the wrappings that typing has for it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

__all__ = [
    "Unservable",
    "alternatives",
    "annotations_of",
    "is_fielded",
    "is_pydantic",
    "is_struct",
    "library_of",
    "names_around",
    "plain",
    "resolve_fields",
    "result_of",
    "typed_dict_of",
]


class Unservable(Exception):
    """An annotation that no request can fill; the message says why, and what would do."""


def annotations_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's parameters, by name; those written as text are looked up.

    Names are searched where the function is defined, also among the locals of the function that defines it: so
    `from __future__ import annotations` and a model of three lines above work together in any place.

    Raises Unservable if a name is not there.
    """
    inner = _innermost(fn)
    found: dict[str, Any] = {}
    for name, annotation in getattr(inner, "__annotations__", {}).items():
        if name != "return":
            try:
                found[name] = _looked_up(inner, annotation)
            except (NameError, SyntaxError, TypeError, AttributeError) as exc:
                raise Unservable(f"the annotation of {name!r} cannot be looked up: {exc}") from exc
    return found


def result_of(fn: Callable[..., Any]) -> Any:
    """The annotation of what it returns; `Any` if there is none, or it cannot be looked up."""
    inner = _innermost(fn)
    try:
        return _looked_up(inner, getattr(inner, "__annotations__", {}).get("return", Any))
    except (NameError, SyntaxError, TypeError, AttributeError):
        return Any


def _innermost(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = inspect.unwrap(fn)
    return fn if inspect.isroutine(fn) else type(fn).__call__


def _looked_up(fn: Any, annotation: Any) -> Any:
    """An annotation of this function; one that is text is looked up where the function is defined."""
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, names_around(fn), include_extras=True)["it"]


def names_around(fn: Any) -> dict[str, Any]:
    """The names that are known where a function is defined: of its module, and of the functions around it."""
    globalns = getattr(fn, "__globals__", {})
    return {**globalns, **_locals_around(globalns), **_closure(fn)}


def _closure(fn: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            # It has no value yet: the function is being defined, and calls itself.
            continue
    return found


def _locals_around(globalns: dict[str, Any]) -> dict[str, Any]:
    """The locals of the nearest caller in the module that these globals are of."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is globalns:
            return dict(frame.f_locals)
        frame = frame.f_back
    return {}


def plain(annotation: Any) -> Any:
    """Without `Annotated`, `NewType`, `Required` and `type` aliases."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated or origin in (typing.Required, typing.NotRequired):
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def alternatives(annotation: Any) -> tuple[list[Any], bool]:
    """The members of a union, None left out, and whether None is one; a single type is a union of one."""
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
    """A model or dataclass of pydantic, which is loaded then; it is never imported for the question."""
    loaded = "pydantic" in sys.modules
    return loaded and isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__")


def is_struct(annotation: Any) -> bool:
    struct = getattr(sys.modules.get("msgspec"), "Struct", None)
    return struct is not None and isinstance(annotation, type) and issubclass(annotation, struct)


def is_fielded(annotation: Any) -> bool:
    """An attrs class or a dataclass."""
    return isinstance(annotation, type) and (attrs.has(annotation) or dataclasses.is_dataclass(annotation))


def resolve_fields(cls: Any) -> None:
    """Look up the types of a dataclass's or an attrs class's fields that are written as text, in it or in a list.

    Raises NameError if a name is not there.
    """
    around = _locals_around(vars(sys.modules[cls.__module__])) | {cls.__name__: cls}
    if attrs.has(cls):
        attrs.resolve_types(cls, localns=around)
    else:
        hints = typing.get_type_hints(cls, localns=around, include_extras=True)
        for field in dataclasses.fields(cls):
            field.type = hints.get(field.name, field.type)


def typed_dict_of(cls: Any) -> tuple[dict[str, Any], list[str]]:
    """The types of a typed dict's keys, and the keys that must be there.

    Raises NameError if a name is not there.
    """
    around = _locals_around(vars(sys.modules[cls.__module__])) | {cls.__name__: cls}
    hints = typing.get_type_hints(cls, localns=around, include_extras=True)
    marks = {name: get_origin(hint) for name, hint in hints.items()}
    required = [
        name
        for name in hints
        if marks[name] is typing.Required
        or (name in cls.__required_keys__ and marks[name] is not typing.NotRequired)
    ]
    return {name: plain(hint) for name, hint in hints.items()}, required


def library_of(annotation: Any) -> Literal["pydantic", "msgspec", "cattrs"]:
    """Whose rules a value of it follows: those of the models and constraints that occur in it."""
    said = set(_libraries(annotation))
    if "pydantic" in said:
        return "pydantic"
    return "msgspec" if "msgspec" in said else "cattrs"


def _libraries(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Annotated:
        for constraint in get_args(annotation)[1:]:
            home = type(constraint).__module__.partition(".")[0]
            if home == "msgspec":
                yield home
            elif home in ("pydantic", "annotated_types") and "pydantic" in sys.modules:
                yield "pydantic"
            elif home == "annotated_types":
                raise Unservable(f"{type(constraint).__name__} of {home} is not understood; leave it out")
    annotation = plain(annotation)
    if is_pydantic(annotation):
        yield "pydantic"
    elif is_struct(annotation):
        yield "msgspec"
    elif get_origin(annotation) is not Literal:
        for argument in get_args(annotation):
            yield from _libraries(argument)
