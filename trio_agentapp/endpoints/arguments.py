"""A view's arguments out of a request: by annotation, from path, query string and JSON body (DESIGN, section 2)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

import attrs
from quart.wrappers import Request

from ..errors import ConfigurationError, MalformedBody, UnsupportedMediaType, ValidationError
from ..protocol.codec import decode_json
from ..protocol.structure import Faults, kind_of
from .annotations import Unservable, alternatives, annotations_of, library_of, plain
from .scalars import Parse, Unfit, many_of, scalar_of
from .shapes import Shape, moved, shape_of

__all__ = ["Arguments", "Parameter", "Source", "read_arguments"]

BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Where a parameter without an annotation is a text of the query string: clients send no body with these."""


MAX_BODY_DEPTH = 100
"""Levels of nesting in a body. Half of what an answer may have: a function may give back what it got, and more."""


class Source(Enum):
    PATH = "path"
    QUERY = "query"
    BODY = "body"
    REQUEST = "request"


@attrs.frozen(kw_only=True)
class Parameter:
    """One parameter: where its value is found, and what makes it."""

    name: str
    source: Source
    annotation: Any
    optional: bool
    """It may be left out: the function has a default for it, or it takes None."""
    default: Any = inspect.Parameter.empty
    parse: Parse | None = None
    """Of a text, in path and query string."""
    collect: Callable[[list[Any]], Any] | None = None
    """What makes one value of those of a repeated query parameter; None: it may stand there once."""
    shape: Shape | None = None
    """Of a JSON value, in the body; in the query string only where an annotation holds constraints."""

    @property
    def has_default(self) -> bool:
        return self.default is not inspect.Parameter.empty


@attrs.frozen
class Arguments:
    """The parameters of one view."""

    parameters: tuple[Parameter, ...]

    def of(self, source: Source) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.source is source]

    @property
    def whole_body(self) -> Parameter | None:
        """The parameter that gets the whole JSON body; with several each gets its member of an object."""
        body = self.of(Source.BODY)
        return body[0] if len(body) == 1 else None

    async def bind(self, request: Request, path: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name.

        Raises ValidationError with every fault of path, query and body; UnsupportedMediaType, MalformedBody, and
        Quart's own for a body too large or too slow.
        """
        faults = Faults()
        found: dict[str, Any] = dict(path)
        for parameter in self.parameters:
            match parameter.source:
                case Source.PATH:
                    _take_text(parameter, [str(path[parameter.name])], found, faults)
                case Source.QUERY:
                    _take_text(parameter, request.args.getlist(parameter.name), found, faults)
                case Source.REQUEST:
                    found[parameter.name] = request
        if body := self.of(Source.BODY):
            _take_body(body, await _read(request), found, faults)
        faults.settle()
        return found


def _take_text(parameter: Parameter, texts: list[str], found: dict[str, Any], faults: Faults) -> None:
    assert parameter.parse is not None  # noqa: S101
    place = f"{parameter.source.value}.{parameter.name}"
    if not texts:
        _leave_out(parameter, place, found, faults)
        return
    if len(texts) > 1 and parameter.collect is None:
        faults.add(place, f"is given {len(texts)} times")
        return
    try:
        values = [parameter.parse(text) for text in texts]
        value = values[0] if parameter.collect is None else parameter.collect(values)
        found[parameter.name] = value if parameter.shape is None else parameter.shape(value)
    except Unfit as exc:
        faults.add(place, str(exc))
    except ValidationError as exc:
        for path, message in moved(exc.errors, place):
            faults.add(path, message)


def _leave_out(parameter: Parameter, place: str, found: dict[str, Any], faults: Faults) -> None:
    if not parameter.optional:
        faults.add(place, "is required")
    elif not parameter.has_default:
        found[parameter.name] = None


_EMPTY: Any = object()


async def _read(request: Request) -> Any:
    """The JSON value of the body, or `_EMPTY`."""
    raw = await request.get_data(True, False, False)
    if not raw.strip():
        return _EMPTY
    if request.mimetype not in ("", "application/json") and not request.mimetype.endswith("+json"):
        raise UnsupportedMediaType(f"The body must be application/json, and this is {request.mimetype[:80]!r}.")
    value = decode_json(raw)
    if raw.count(b"[") + raw.count(b"{") > MAX_BODY_DEPTH and _deeper(value, MAX_BODY_DEPTH):
        raise MalformedBody(f"The body is not JSON for this route: it is more than {MAX_BODY_DEPTH} levels deep.")
    return value


def _deeper(value: Any, levels: int) -> bool:
    """Whether it is nested deeper than that, found without going as deep oneself."""
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(layer)


def _take_body(body: list[Parameter], value: Any, found: dict[str, Any], faults: Faults) -> None:
    if len(body) == 1:
        if value is _EMPTY and not body[0].optional:
            faults.add("$", "the body is empty; JSON is needed")
        else:
            _take_value(body[0], value, "$", found, faults)
        return
    if value is _EMPTY:
        value = {}
    if not isinstance(value, dict):
        faults.add("$", f"must be an object, not {kind_of(value)}")
        return
    for parameter in body:
        _take_value(parameter, value.get(parameter.name, _EMPTY), f"$.{parameter.name}", found, faults)


def _take_value(parameter: Parameter, value: Any, place: str, found: dict[str, Any], faults: Faults) -> None:
    assert parameter.shape is not None  # noqa: S101
    if value is _EMPTY:
        _leave_out(parameter, place, found, faults)
        return
    try:
        found[parameter.name] = parameter.shape(value)
    except ValidationError as exc:
        for path, message in moved(exc.errors, place):
            faults.add(path, message)


def read_arguments(
    fn: Callable[..., Any],
    *,
    name: str,
    path: Iterable[str],
    methods: Iterable[str],
    converted: Iterable[str] | None = None,
    follow_wrapped: bool = True,
) -> Arguments:
    """What a view asks for. `path`: the names that the route's path gives; `converted`: those of them that follow
    their annotation, if not all. The others, and those without one, stay as the router made them.

    Raises ConfigurationError, naming function and parameter, for what cannot be served.
    """
    signature = inspect.signature(fn, follow_wrapped=follow_wrapped)
    try:
        annotations = annotations_of(fn)
    except Unservable as exc:
        raise ConfigurationError(f"{name}: {exc}") from exc
    given = set(path)
    following = given if converted is None else set(converted)
    bodiless = set(methods) <= BODILESS
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigurationError(
                f"{name}: arguments are given by name, and {parameter.name!r} is positional-only"
            )
        annotation = annotations.get(parameter.name, parameter.annotation)
        if parameter.name in given and (annotation is parameter.empty or parameter.name not in following):
            continue
        if annotation is parameter.empty:
            annotation = str if bodiless else Any
        try:
            parameters.append(_parameter(parameter.name, annotation, parameter.default, parameter.name in given))
        except Unservable as exc:
            shown = inspect.formatannotation(annotation)
            raise ConfigurationError(
                f"{name}: parameter {parameter.name!r} cannot be served, its annotation being {shown}: {exc}"
            ) from exc
    return Arguments(tuple(parameters))


def _parameter(name: str, annotation: Any, default: Any, in_path: bool) -> Parameter:
    members, nullable = alternatives(annotation)
    optional = nullable or default is not inspect.Parameter.empty
    bare = members[0] if len(members) == 1 else plain(annotation)
    if isinstance(bare, type) and issubclass(bare, Request):
        return Parameter(name=name, source=Source.REQUEST, annotation=annotation, optional=True)
    parse = scalar_of(annotation)
    if in_path:
        if parse is None:
            raise Unservable("a part of a path is a scalar")
        return Parameter(
            name=name,
            source=Source.PATH,
            annotation=annotation,
            optional=False,
            parse=parse,
            shape=_constraints(annotation),
        )
    many = many_of(annotation)
    if parse is not None or many is not None:
        collect, parse = (None, parse) if many is None else many
        return Parameter(
            name=name,
            source=Source.QUERY,
            annotation=annotation,
            optional=optional,
            default=default,
            parse=parse,
            collect=collect,
            shape=_constraints(annotation),
        )
    if bare is bytes:
        raise Unservable("for raw bytes ask for a quart.Request, and await its get_data()")
    return Parameter(
        name=name,
        source=Source.BODY,
        annotation=annotation,
        optional=optional,
        default=default,
        shape=shape_of(annotation),
    )


def _constraints(annotation: Any) -> Shape | None:
    """Where pydantic's or msgspec's constraints stand around a scalar, they judge it."""
    return None if library_of(annotation) == "cattrs" else shape_of(annotation)
