"""From a JSON value to what an annotation asks for, by the library whose model it is.

attrs classes, dataclasses, typed dicts and plain containers go through cattrs, strictly; pydantic's and msgspec's
models through their own library, by its own rules.
"""

from __future__ import annotations

import enum
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, Literal, get_args, get_origin

from ..errors import ValidationError
from ..protocol.codec import structure_request
from ..protocol.request import AgentRequest
from ..protocol.structure import MAX_FAULTS, kind_of
from .annotations import (
    Unservable,
    alternatives,
    is_fielded,
    is_pydantic,
    is_struct,
    library_of,
    plain,
    resolve_fields,
    typed_dict_of,
)
from .scalars import JSON_SCALARS, Unfit, one_of

__all__ = ["Shape", "moved", "shape_of"]

Shape = Callable[[Any], Any]
"""Gives the value in its shape. Raises ValidationError with every fault that the library tells, rooted at `$`."""

_ECHO = 200


def shape_of(annotation: Any) -> Shape:
    """What turns a JSON value into a value of this type.

    Raises Unservable if nothing can.
    """
    bare = plain(annotation)
    if bare in (Any, object):
        return lambda value: value
    if bare is AgentRequest:
        return partial(structure_request, require_input=False)
    match library_of(annotation):
        case "pydantic":
            return _by_pydantic(annotation)
        case "msgspec":
            return _by_msgspec(annotation)
        case "cattrs":
            return _by_cattrs(annotation)


def moved(faults: list[tuple[str, str]], root: str) -> list[tuple[str, str]]:
    """The same faults, of a value that stands at `root`."""
    return [(root + path.removeprefix("$"), message) for path, message in faults]


def _by_pydantic(annotation: Any) -> Shape:
    pydantic: Any = sys.modules["pydantic"]
    try:
        adapter = pydantic.TypeAdapter(annotation)
        if not getattr(adapter, "pydantic_complete", True):
            adapter.rebuild(raise_errors=True)
    except (pydantic.PydanticUserError, NameError) as exc:
        raise Unservable(f"pydantic cannot make it: {str(exc).splitlines()[0]}") from exc

    def shape(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as exc:
            errors = exc.errors(include_url=False, include_context=False, include_input=False)
            raise ValidationError([(_path(each["loc"]), each["msg"]) for each in errors[:MAX_FAULTS]]) from None

    return shape


def _by_msgspec(annotation: Any) -> Shape:
    msgspec: Any = sys.modules["msgspec"]
    try:
        msgspec.json.Decoder(annotation)
    except (TypeError, NameError) as exc:
        raise Unservable(f"msgspec cannot make it: {exc}") from exc

    def shape(value: Any) -> Any:
        try:
            return msgspec.convert(value, annotation)
        except msgspec.ValidationError as exc:
            # It stops at the first one.
            message, _, path = str(exc).partition(" - at `")
            raise ValidationError([(path.removesuffix("`") or "$", message.replace("`", ""))]) from None

    return shape


def _path(places: tuple[str | int, ...]) -> str:
    return "$" + "".join(f"[{place}]" if isinstance(place, int) else f".{place}" for place in places)


def _by_cattrs(annotation: Any) -> Shape:
    import cattrs

    converter = _converter()
    try:
        hook = converter.get_structure_hook(annotation)
    except (TypeError, NameError, cattrs.StructureHandlerNotFoundError) as exc:
        raise Unservable(f"a JSON value cannot become this: {exc}") from exc

    def shape(value: Any) -> Any:
        try:
            return hook(value, annotation)
        except Exception as exc:
            faults = list(_faults(exc, "$"))[:MAX_FAULTS]
        raise ValidationError(faults)

    return shape


def _faults(error: BaseException, path: str) -> Iterator[tuple[str, str]]:
    """What cattrs tells by exceptions in exceptions."""
    import cattrs

    if isinstance(error, cattrs.ClassValidationError | cattrs.IterableValidationError):
        noted, bare = error.group_exceptions()
        for inner, note in noted:
            place = note.name if hasattr(note, "name") else note.index
            yield from _faults(inner, path + (f"[{place}]" if isinstance(place, int) else f".{str(place)[:40]}"))
        for inner in bare:
            yield from _faults(inner, path)
    elif isinstance(error, ValidationError):
        yield from moved(error.errors, path)
    elif isinstance(error, KeyError):
        yield path, "is required"
    elif isinstance(error, Unfit) or (isinstance(error, ValueError) and _is_told(error)):
        yield path, str(error)[:_ECHO]
    elif isinstance(error, ValueError | TypeError | LookupError | AttributeError | ArithmeticError):
        yield path, "is not valid"
    else:
        raise error


def _is_told(error: ValueError) -> bool:
    """Whether a validator of the user's wrote it for people; attrs' own put their objects beside the words."""
    return len(error.args) == 1 and isinstance(error.args[0], str) and type(error) is ValueError


@lru_cache(maxsize=1)
def _converter() -> Any:
    import cattrs
    from cattrs import cols

    converter = cattrs.Converter(detailed_validation=True)
    for kind, shape in JSON_SCALARS.items():
        converter.register_structure_hook(kind, partial(_scalar, shape))
    converter.register_structure_hook(enum.Enum, partial(_scalar, None))
    converter.register_structure_hook(AgentRequest, lambda value, _: structure_request(value, require_input=False))
    add: Any = converter.register_structure_hook_factory
    add(_is_loose_union, _any_of)
    add(_is_literal, _literal)
    add(is_fielded, _fielded)
    add(cols.is_mapping, _mapping)
    add(typing.is_typeddict, _typed_dict)  # which is a mapping, too: of the two the later one is asked first
    add(cols.is_sequence, lambda kind, made: _of_list(cols.list_structure_factory(kind, made)))
    add(cols.is_any_set, _set)
    add(_is_tuple, _tuple)
    add(is_pydantic, lambda kind, _made: _ignoring_type(_by_pydantic(kind)))
    add(is_struct, lambda kind, _made: _ignoring_type(_by_msgspec(kind)))
    return converter


Hook = Callable[[Any, Any], Any]


def _scalar(shape: Shape | None, value: Any, kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        for member in kind:
            if type(member.value) is type(value) and member.value == value:
                return member
        raise Unfit(one_of(member.value for member in kind))
    if shape is None or kind not in JSON_SCALARS:
        raise Unfit("is not valid")
    return shape(value)


def _ignoring_type(shape: Shape) -> Hook:
    return lambda value, _: shape(value)


def _fielded(kind: Any, converter: Any) -> Hook:
    resolve_fields(kind)
    return _of_object(converter.gen_structure_attrs_fromdict(kind))


def _of_object(hook: Hook) -> Hook:
    def checked(value: Any, kind: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Unfit(f"must be an object, not {kind_of(value)}")
        return hook(value, kind)

    return checked


def _typed_dict(kind: Any, converter: Any) -> Hook:
    """cattrs does not see `Required` and `NotRequired` where annotations are text."""
    hints, required = typed_dict_of(kind)
    hooks = {name: (converter.get_structure_hook(hint), hint) for name, hint in hints.items()}

    def members(value: Any, _: Any) -> dict[str, Any]:
        made: dict[str, Any] = {}
        faults = [(f"$.{name}", "is required") for name in required if name not in value]
        for name, (hook, hint) in hooks.items():
            if name in value:
                try:
                    made[name] = hook(value[name], hint)
                except Exception as exc:
                    faults += list(_faults(exc, f"$.{name}"))
        if faults:
            raise ValidationError(faults)
        return made

    return _of_object(members)


def _of_list(hook: Hook) -> Hook:
    def checked(value: Any, kind: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise Unfit(f"must be a list, not {kind_of(value)}")
        return hook(value, kind)

    return checked


def _mapping(kind: Any, converter: Any) -> Hook:
    from cattrs.cols import mapping_structure_factory

    if arguments := get_args(kind):
        kind = dict[arguments[0], arguments[1]]  # type: ignore[valid-type]
    return _of_object(mapping_structure_factory(kind, converter, structure_to=dict))


def _set(kind: Any, converter: Any) -> Hook:
    (item,) = get_args(kind) or (Any,)
    as_list = list[item]  # type: ignore[valid-type]
    hook = converter.get_structure_hook(as_list)
    make = frozenset if (get_origin(kind) or kind) is frozenset else set
    return lambda value, _: make(hook(value, as_list))


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_tuple(kind: Any) -> bool:
    return kind is tuple or get_origin(kind) is tuple


def _tuple(kind: Any, converter: Any) -> Hook:
    from cattrs.cols import homogenous_tuple_structure_factory

    arguments = get_args(kind)
    if not arguments or arguments[1:] == (Ellipsis,):
        return _of_list(homogenous_tuple_structure_factory(kind, converter))
    hooks = [converter.get_structure_hook(argument) for argument in arguments]

    def each(value: Any, _: Any) -> tuple[Any, ...]:
        if len(value) != len(hooks):
            raise Unfit(f"must have {len(hooks)} items, not {len(value)}")
        made, faults = [], []
        for place, (item, hook, argument) in enumerate(zip(value, hooks, arguments, strict=True)):
            try:
                made.append(hook(item, argument))
            except Exception as exc:
                faults += list(_faults(exc, f"$[{place}]"))
        if faults:
            raise ValidationError(faults)
        return tuple(made)

    return _of_list(each)


def _literal(kind: Any, _converter: Any) -> Hook:
    choices = get_args(kind)

    def choose(value: Any, _: Any) -> Any:
        for choice in choices:
            if isinstance(choice, enum.Enum) and type(choice.value) is type(value) and choice.value == value:
                return choice
            if type(choice) is type(value) and choice == value:
                return choice
        raise Unfit(one_of(choices))

    return choose


def _is_loose_union(kind: Any) -> bool:
    """Every union but those of classes only, which cattrs tells apart by their fields."""
    members, nullable = alternatives(kind)
    return len(members) + nullable > 1 and (len(members) == 1 or not all(map(is_fielded, members)))


def _any_of(kind: Any, converter: Any) -> Hook:
    members, nullable = alternatives(kind)
    hooks = [(converter.get_structure_hook(member), member) for member in members]

    def first_that_fits(value: Any, _: Any) -> Any:
        if value is None and nullable:
            return None
        if len(hooks) == 1:
            return hooks[0][0](value, hooks[0][1])
        said = []
        for hook, member in hooks:
            try:
                return hook(value, member)
            except Exception as exc:
                said += [message for _path, message in _faults(exc, "$")]
        raise Unfit("fits none of what may stand here: " + "; ".join(dict.fromkeys(said)))

    return first_that_fits
