"""Converting JSON values to the types that users annotate: msgspec's rules, and pydantic's for its own models.

msgspec converts scalars, containers, enums, dataclasses, attrs classes, TypedDicts and Structs. Two kinds of types
are outside of what it knows, and reach our `_decode_hook` as *stand-ins*: the classes of the protocol, which have a
codec of their own, and unions that msgspec refuses because it could not tell their members apart. A stand-in is a
class made here that takes the place of the type in the annotation.
"""

from __future__ import annotations

import decimal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin

import attrs
import msgspec
from msgspec.inspect import CustomType, DataclassType, DecimalType, Field, Type, type_info

from ..errors import ValidationError
from ..protocol.codec import structure_request
from ..protocol.content import CLASSES
from ..protocol.events import ContentEvent, MessageEvent, ResponseEvent
from ..protocol.message import Message
from ..protocol.request import AgentRequest
from ..protocol.structure import MAX_FAULTS, Faults, content_from, message_from
from .annotations import AT_MODULE_LEVEL, Unservable, is_pydantic, plain
from .faults import Nested, faults_of

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
    parts = _parts_of(kind)
    if any(isinstance(each, DataclassType) and is_pydantic(each.cls) for each in parts):
        # msgspec would fill a dataclass of pydantic's without running its validators.
        return _pydantic_converter(annotation)
    for each in parts:
        _check(each)
    has_decimals = any(isinstance(each, DecimalType) for each in parts)

    def convert(value: Any) -> Any:
        try:
            made = msgspec.convert(value, kind, strict=strict, str_keys=True, dec_hook=_decode_hook)
        except msgspec.ValidationError as exc:
            raise ValidationError(faults_of(exc, value, kind, _decode_hook)) from None
        except (LookupError, AttributeError, ArithmeticError):
            # A validator of the user's class met a value that it did not expect.
            raise ValidationError([("$", "is not valid")]) from None
        if has_decimals and (place := _not_finite(made, "$")):
            raise ValidationError([(place, "must be a finite number")])
        return made

    return convert


# Stand-ins.


class StandIn(type):
    """The class of stand-ins."""

    convert: Convert | None
    """None for what clients cannot send."""
    component: str
    """The component of the OpenAPI document that describes it, or an empty string."""
    members: tuple[Any, ...]
    """The members of a union."""

    def __instancecheck__(cls, value: object) -> bool:
        # msgspec checks that a hook returns an instance of the type it was called for.
        return True


def stand_in_for(annotation: Any) -> Any:
    """Return the annotation with stand-ins where msgspec needs them."""
    if type(annotation).__name__ == "TypeAliasType" or isinstance(annotation, NewType):
        return stand_in_for(plain(annotation))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and annotation in _OWN:
        return _made(_OWN[annotation], component=annotation.__name__)
    if not arguments or origin is Literal:
        return annotation
    if origin is Annotated:
        return Annotated[(stand_in_for(arguments[0]), *arguments[1:])]
    if origin not in (Union, UnionType):
        return origin[tuple(map(stand_in_for, arguments))]
    kind: Any = Union[tuple(map(stand_in_for, arguments))]  # noqa: UP007
    if _is_known(kind):
        return kind
    members = tuple(member for member in arguments if member is not NoneType)
    any_of = _made(_first_that_fits([converter_of(member) for member in members]), members=members)
    return any_of if len(members) == len(arguments) else any_of | None


def _made(convert: Convert | None, *, component: str = "", members: tuple[Any, ...] = ()) -> StandIn:
    made = StandIn(component or "AnyOf", (), {})
    made.convert, made.component, made.members = convert, component, members
    return made


def _is_known(kind: Any) -> bool:
    try:
        msgspec.json.Decoder(kind)
    except TypeError:
        return False
    return True


def _first_that_fits(converters: list[Convert]) -> Convert:
    def convert(value: Any) -> Any:
        said: list[str] = []
        for each in converters:
            try:
                return each(value)
            except ValidationError as exc:
                said += [message if path == "$" else f"{path} {message}" for path, message in exc.errors]
        raise ValidationError([("$", "fits none of the allowed types: " + "; ".join(dict.fromkeys(said)))])

    return convert


def _codec(read: Callable[[Any, str, Faults], Any], cls: type) -> Convert:
    def convert(value: Any) -> Any:
        faults = Faults()
        made = read(value, "$", faults)
        faults.settle()
        if not isinstance(made, cls):
            raise ValidationError([("$.type", f"must be {getattr(cls, 'type', cls.__name__)}")])
        return made

    return convert


_OWN: dict[Any, Convert | None] = {
    AgentRequest: lambda value: structure_request(value, require_input=False),
    Message: _codec(message_from, Message),
    **{cls: _codec(content_from, cls) for cls in CLASSES.values()},
    **dict.fromkeys((ResponseEvent, MessageEvent, ContentEvent)),
}
"""The classes of the protocol, which are read as the built-in routes read them."""


def _decode_hook(kind: Any, value: Any) -> Any:
    convert: Any = kind.convert if isinstance(kind, StandIn) else _model_converter(kind)
    try:
        return convert(value)
    except ValidationError as exc:
        raise Nested(exc.errors) from None


# What msgspec does not know, or would get wrong, is refused when a function is registered.


def _parts_of(kind: Any) -> list[Type]:
    """Return msgspec's descriptions of all types that occur in a type, also in fields. Raises Unservable."""
    try:
        return list(_walk(type_info(kind), set()))
    except NameError as exc:
        raise Unservable(f"{exc}; {AT_MODULE_LEVEL}") from exc
    except TypeError as exc:
        if AgentRequest.__module__.rpartition(".")[0] in str(exc):
            # msgspec sees a class of the protocol only if it is a field: elsewhere a stand-in takes its place.
            raise Unservable(OWN_FIELD) from exc
        raise Unservable(f"no JSON value can become this: {exc}") from exc


def _walk(part: Any, seen: set[int]) -> Iterator[Type]:
    if isinstance(part, tuple):
        for each in part:
            yield from _walk(each, seen)
    elif isinstance(part, Type | Field) and id(part) not in seen:
        seen.add(id(part))
        if isinstance(part, Type):
            yield part
        for name in part.__struct_fields__:
            yield from _walk(getattr(part, name), seen)


OWN_FIELD = "a class of the protocol, such as Message, cannot be a field of another; make it a parameter of its own"


def _check(part: Type) -> None:
    if isinstance(part, CustomType):
        known = part.cls.convert is not None if isinstance(part.cls, StandIn) else is_pydantic(part.cls)
        if not known:
            raise Unservable(f"no JSON value can become a {part.cls.__name__}")
    if not isinstance(part, DataclassType) or not attrs.has(part.cls):
        return
    name = part.cls.__name__
    if part.cls in _OWN:
        raise Unservable(OWN_FIELD)
    for field in attrs.fields(part.cls):
        if field.converter is not None:
            raise Unservable(
                f"the converter of {name}.{field.name} would not be called; annotate the type that clients send, "
                "and convert it in __attrs_post_init__"
            )


def _not_finite(value: Any, path: str) -> str | None:
    """Return where a Decimal is NaN or infinite, which msgspec lets pass and JSON numbers cannot be."""
    if isinstance(value, decimal.Decimal):
        return None if value.is_finite() else path
    if isinstance(value, dict):
        inner = [(f"{path}.{name}", item) for name, item in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        inner = [(f"{path}[{place}]", item) for place, item in enumerate(value)]
    else:
        fields = getattr(value, "__attrs_attrs__", None) or getattr(value, "__dataclass_fields__", {}).values()
        names = getattr(value, "__struct_fields__", None) or [field.name for field in fields]
        inner = [(f"{path}.{name}", getattr(value, name)) for name in names]
    return next((found for where, item in inner if (found := _not_finite(item, where))), None)


# pydantic.


def is_pydantics(annotation: Any) -> bool:
    """Tell whether pydantic is to convert this type: a model of its own, or constraints written for it.

    Raises Unservable for constraints of `annotated_types` if pydantic, which knows them, is not imported.
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


@cache
def _model_converter(cls: Any) -> Convert:
    return _pydantic_converter(cls)


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
