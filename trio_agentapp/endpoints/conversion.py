"""Converts JSON values to the types that users annotate, by msgspec's rules, and by pydantic's for its own models.

msgspec converts scalars, containers, enums and its own Structs. A type that it does not know, or converts
differently, is replaced in the annotation by a *stand-in*: a class made here, which reaches `_decode_hook`.

- attrs classes and dataclasses: msgspec would fill their fields without calling `__init__`. Converters would not
  run, and a client could set a field that has `init=False`. So msgspec converts the fields as a TypedDict, and the
  class makes the object from them.
- unions that msgspec refuses because it cannot distinguish their members: the first member that fits is used.
- the classes of the protocol, which have their own codec.
- Decimal, which must be finite; timedelta, which is in seconds as in responses; enums of mixed values.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import sys
import typing
from collections.abc import Callable
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict, Union, get_args, get_origin

import msgspec
from msgspec.inspect import CustomType, type_info

from ..errors import ValidationError
from ..protocol.codec import structure_request
from ..protocol.content import CLASSES
from ..protocol.message import Message
from ..protocol.request import AgentRequest
from ..protocol.structure import MAX_FAULTS, Faults, content_from, message_from
from .annotations import Field, Unservable, fields_of, is_pydantic, plain
from .faults import Nested, faults_of, one_of, words_of

__all__ = ["Convert", "StandIn", "converter_of", "is_pydantics", "stand_in_for"]

Convert = Callable[[Any], Any]
"""Converts a value, or raises ValidationError with paths that begin with `$`."""


def converter_of(annotation: Any, *, strict: bool = True) -> Convert:
    """Return the function that converts a JSON value to this type.

    `strict=False` also reads numbers and enum values from text, as a query string has them.

    Raises Unservable if no JSON value can become this type.
    """
    if plain(annotation) in (Any, object):
        return lambda value: value
    if is_pydantics(annotation):
        return _pydantic_converter(annotation)
    kind = stand_in_for(annotation)
    if (refusal := _refusal_of(kind)) is not None:
        raise Unservable(f"no JSON value can become this: {refusal}") from refusal
    return partial(_converted, kind, strict=strict)


def _converted(kind: Any, value: Any, *, strict: bool = True) -> Any:
    try:
        return msgspec.convert(value, kind, strict=strict, str_keys=True, dec_hook=_decode_hook)
    except msgspec.ValidationError as exc:
        raise ValidationError(faults_of(exc, value, kind, _decode_hook)) from None


# Stand-ins.


class StandIn(type):
    """The metaclass of stand-ins: it has the conversion and the schema of each."""

    convert: Convert
    schema: dict[str, Any] | None
    """The JSON Schema, if it does not depend on other schemas."""
    of: Any
    """The type that it replaces."""

    def __instancecheck__(cls, value: object) -> bool:
        # msgspec checks that a hook returns an instance of the type it was called for.
        return True


_CLASSES: dict[Any, StandIn] = {}
"""The stand-ins made so far, by class: attrs classes, dataclasses, TypedDicts and models of pydantic."""


def stand_in_for(annotation: Any) -> Any:
    """Return the annotation with stand-ins where they are needed. Raises Unservable if nothing converts to it."""
    if type(annotation).__name__ == "TypeAliasType" or isinstance(annotation, NewType):
        return stand_in_for(plain(annotation))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (Any, object, None, Ellipsis):
        return annotation
    if origin is Literal:
        has_members = any(isinstance(each, enum.Enum) for each in arguments)
        return _of_choices(annotation, arguments) if has_members else annotation
    if origin is Annotated:
        if is_pydantics(annotation):
            return _made(annotation, _pydantic_converter(annotation))
        return Annotated[(stand_in_for(arguments[0]), *arguments[1:])]
    if origin in (Union, UnionType):
        return _union(arguments)
    if isinstance(annotation, type) and annotation in _OWN:
        return _made(annotation, *_OWN[annotation])
    if is_pydantic(annotation):
        if annotation not in _CLASSES:
            _CLASSES[annotation] = _made(annotation, _pydantic_converter(annotation))
        return _CLASSES[annotation]
    if (fields := fields_of(annotation)) is not None:
        return _CLASSES.get(annotation) or _of_class(annotation, fields)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum) and _refusal_of(annotation):
        return _of_choices(annotation, tuple(annotation))
    kind: Any = origin[tuple(map(stand_in_for, arguments))] if arguments and origin is not None else annotation
    try:
        unknown = isinstance(type_info(kind), CustomType)
    except (TypeError, NameError) as exc:
        raise Unservable(f"no JSON value can become this: {exc}") from exc
    if unknown:
        raise Unservable(f"no JSON value can become a {getattr(annotation, '__name__', annotation)}")
    return kind


def _made(of: Any, convert: Convert, schema: dict[str, Any] | None = None) -> StandIn:
    made = StandIn(getattr(of, "__name__", "StandIn"), (), {})
    made.of, made.convert, made.schema = of, convert, schema
    return made


def _refusal_of(kind: Any) -> Exception | None:
    """Return msgspec's error for a type that it cannot convert to; None if it can."""
    try:
        msgspec.json.Decoder(kind)
    except (TypeError, ValueError, NameError) as exc:
        return exc
    return None


def _union(arguments: tuple[Any, ...]) -> Any:
    kind: Any = Union[tuple(map(stand_in_for, arguments))]  # noqa: UP007
    if _refusal_of(kind) is None:
        return kind
    members = tuple(member for member in arguments if member is not NoneType)
    converters = [converter_of(member) for member in members]

    def first_that_fits(value: Any) -> Any:
        said: list[str] = []
        for convert in converters:
            try:
                return convert(value)
            except ValidationError as exc:
                said += [message if path == "$" else f"{path} {message}" for path, message in exc.errors]
        raise ValidationError([("$", "fits none of the allowed types: " + "; ".join(dict.fromkeys(said)))])

    any_of = _made(Union[members], first_that_fits)  # noqa: UP007
    return any_of if len(members) == len(arguments) else any_of | None


def _of_class(kind: Any, fields: list[Field]) -> StandIn:
    """Return the stand-in of an attrs class, a dataclass or a TypedDict. The class may contain itself."""
    cls = get_origin(kind) or kind
    known = len(_CLASSES)
    made = _CLASSES[kind] = _made(kind, lambda value: value)
    try:
        hints = {each.name: stand_in_for(each.annotation) for each in fields}
        marked = {
            each.name: hints[each.name] if each.required else NotRequired[hints[each.name]] for each in fields
        }
        members = TypedDict(cls.__name__, marked)  # type: ignore[misc]
        msgspec.json.Decoder(members)
    except (TypeError, ValueError, Unservable) as exc:
        # Classes within this one may refer to it, so their stand-ins are removed, too.
        for added in [*_CLASSES][known:]:
            del _CLASSES[added]
        raise Unservable(str(exc)) from exc
    parameters = {each.name: each.parameter for each in fields}

    def convert(value: Any) -> Any:
        found = _converted(members, value)
        if typing.is_typeddict(cls):
            return found
        try:
            return cls(**{parameters[name]: item for name, item in found.items()})
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError) as exc:
            # A validator or `__post_init__` refuses the value, or fails on it.
            raise ValidationError([("$", words_of(exc))]) from None

    made.convert = convert
    return made


def _codec(read: Callable[[Any, str, Faults], Any], cls: type) -> Convert:
    def convert(value: Any) -> Any:
        faults = Faults()
        made = read(value, "$", faults)
        faults.settle()
        if not isinstance(made, cls):
            raise ValidationError([("$.type", f"must be {getattr(cls, 'type', cls.__name__)}")])
        return made

    return convert


def _of_choices(of: Any, choices: tuple[Any, ...]) -> StandIn:
    """Return the stand-in of an enum, or of a Literal with enum members. JSON has the values of the members."""
    values = [each.value if isinstance(each, enum.Enum) else each for each in choices]

    def convert(value: Any) -> Any:
        for choice, known in zip(choices, values, strict=True):
            if type(known) is type(value) and known == value:
                return choice
        raise ValidationError([("$", one_of(values))])

    return _made(of, convert, {"enum": values})


def _decimal(value: Any) -> decimal.Decimal:
    made: decimal.Decimal = _converted(decimal.Decimal, value)
    if not made.is_finite():
        raise ValidationError([("$", "must be a finite number")])
    return made


def _seconds(value: Any) -> datetime.timedelta:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.timedelta(seconds=value)
        except OverflowError:
            raise ValidationError([("$", "is out of range")]) from None
    made: datetime.timedelta = _converted(datetime.timedelta, value)
    return made


def _own(cls: type, convert: Convert) -> tuple[Convert, dict[str, Any]]:
    return convert, {"$ref": f"#/components/schemas/{cls.__name__}"}


_OWN: dict[Any, tuple[Convert, dict[str, Any]]] = {
    AgentRequest: _own(AgentRequest, lambda value: structure_request(value, require_input=False)),
    Message: _own(Message, _codec(message_from, Message)),
    **{cls: _own(cls, _codec(content_from, cls)) for cls in CLASSES.values()},
    decimal.Decimal: (_decimal, {"type": ["string", "number"], "description": "A decimal number."}),
    datetime.timedelta: (_seconds, {"type": "number", "description": "Seconds."}),
}
"""Types with their own converter and schema. Classes of the protocol are read as by the built-in routes."""


def _decode_hook(kind: Any, value: Any) -> Any:
    try:
        # A Struct's fields are read by msgspec itself, and have no stand-ins.
        return (kind if isinstance(kind, StandIn) else stand_in_for(kind)).convert(value)
    except ValidationError as exc:
        raise Nested(exc.errors) from None


# pydantic.


def is_pydantics(annotation: Any) -> bool:
    """Return whether pydantic must convert this type: one of its models, or a type with its constraints.

    Raises Unservable for constraints of pydantic or `annotated_types` if pydantic is not imported.
    """
    if get_origin(annotation) is Annotated:
        for constraint in get_args(annotation)[1:]:
            package = type(constraint).__module__.partition(".")[0]
            if package in ("pydantic", "annotated_types"):
                if "pydantic" not in sys.modules:
                    raise Unservable(f"{type(constraint).__name__} of {package} needs pydantic; import it")
                return True
    bare = plain(annotation)
    inner = () if get_origin(bare) is Literal else get_args(bare)
    return is_pydantic(bare) or any(map(is_pydantics, inner))


def _pydantic_converter(annotation: Any) -> Convert:
    pydantic: Any = sys.modules["pydantic"]
    try:
        adapter = pydantic.TypeAdapter(annotation)
        if not getattr(adapter, "pydantic_complete", True):
            adapter.rebuild(raise_errors=True)
    except (pydantic.PydanticUserError, NameError) as exc:
        raise Unservable(f"pydantic cannot convert to this: {str(exc).splitlines()[0]}") from exc

    def convert(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as exc:
            errors = exc.errors(include_url=False, include_context=False, include_input=False)
            raise ValidationError([(_path(each["loc"]), each["msg"]) for each in errors[:MAX_FAULTS]]) from None

    return convert


def _path(places: tuple[str | int, ...]) -> str:
    return "$" + "".join(f"[{place}]" if isinstance(place, int) else f".{place}" for place in places)
