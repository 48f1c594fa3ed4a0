"""Binds the parameters of a user's function to path, query string and JSON body, by their annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs
from quart.wrappers import Request

from ..errors import ConfigurationError, MalformedBody, ValidationError
from ..protocol.codec import decode_json
from ..protocol.structure import Faults, kind_of
from ..server.media_types import check_is_json
from .annotations import Unservable, alternatives, annotations_of, plain

if TYPE_CHECKING:
    from .conversion import Convert

__all__ = ["Arguments", "Parameter", "Source", "read_arguments"]

BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods without a body. With these, a parameter without an annotation is text from the query string."""

MAX_BODY_DEPTH = 100
"""Limit of nesting in a body. It is half of that of a response, since a response may contain a body."""


class Source(Enum):
    PATH = "path"
    QUERY = "query"
    BODY = "body"
    REQUEST = "request"


@attrs.frozen(kw_only=True)
class Parameter:
    """One parameter: the source of its value, and how it is converted."""

    name: str
    source: Source
    annotation: Any
    optional: bool
    """The client may leave the parameter out: the function has a default for it, or accepts None."""
    default: Any = inspect.Parameter.empty
    convert: Convert | None = None
    """Converts the texts of path and query string, or the JSON value in the body."""
    many: bool = False
    """The query parameter may be given several times."""


@attrs.frozen
class Arguments:
    """The parameters of one view."""

    parameters: tuple[Parameter, ...]

    def of(self, source: Source) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.source is source]

    @property
    def whole_body(self) -> Parameter | None:
        """The single body parameter, which gets the whole JSON value; None if there is not exactly one.

        If there are several, each gets a member of an object.
        """
        body = self.of(Source.BODY)
        return body[0] if len(body) == 1 else None

    async def bind(self, request: Request, path: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name.

        Raises:
            ValidationError: an argument is missing or wrong; it has the first fault of each parameter.
            UnsupportedMediaType: the body is not declared as JSON.
            MalformedBody: the body is not JSON, or is nested too deeply.

        Quart's own errors report a body that is too large or too slow.
        """
        faults = Faults()
        found: dict[str, Any] = dict(path)
        for parameter in self.parameters:
            match parameter.source:
                case Source.PATH:
                    _take_texts(parameter, [str(path[parameter.name])], found, faults)
                case Source.QUERY:
                    _take_texts(parameter, request.args.getlist(parameter.name), found, faults)
                case Source.REQUEST:
                    found[parameter.name] = request
        if body := self.of(Source.BODY):
            _take_body(body, await _read_body(request), found, faults)
        faults.settle()
        return found


def _take_texts(parameter: Parameter, texts: list[str], found: dict[str, Any], faults: Faults) -> None:
    place = f"{parameter.source.value}.{parameter.name}"
    if not texts:
        _take(parameter, _EMPTY, place, found, faults)
    elif len(texts) > 1 and not parameter.many:
        faults.add(place, f"is given {len(texts)} times")
    else:
        _take(parameter, texts, place, found, faults)


_EMPTY: Any = object()


async def _read_body(request: Request) -> Any:
    """Return the JSON value of the body, or `_EMPTY`."""
    raw = await request.get_data(True, False, False)
    if not raw.strip():
        return _EMPTY
    check_is_json(request)
    value = decode_json(raw)
    if raw.count(b"[") + raw.count(b"{") > MAX_BODY_DEPTH and _deeper(value, MAX_BODY_DEPTH):
        raise MalformedBody(f"The body is nested deeper than {MAX_BODY_DEPTH} levels.")
    return value


def _deeper(value: Any, levels: int) -> bool:
    """Return whether a value is nested deeper than `levels`. It does not recurse, so any depth is safe."""
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
            _take(body[0], value, "$", found, faults)
        return
    if value is _EMPTY:
        value = {}
    if not isinstance(value, dict):
        faults.add("$", f"must be an object, not {kind_of(value)}")
        return
    for parameter in body:
        _take(parameter, value.get(parameter.name, _EMPTY), f"$.{parameter.name}", found, faults)


def _take(parameter: Parameter, value: Any, place: str, found: dict[str, Any], faults: Faults) -> None:
    """Put the argument into `found`, or add a fault. A parameter that uses its default is not put into `found`."""
    if value is _EMPTY:
        if not parameter.optional:
            faults.add(place, "is required")
        elif parameter.default is inspect.Parameter.empty:
            found[parameter.name] = None
        return
    assert parameter.convert is not None  # noqa: S101  every source but REQUEST has one
    try:
        found[parameter.name] = parameter.convert(value)
    except ValidationError as exc:
        faults.add_within(place, exc.errors)


def read_arguments(
    fn: Callable[..., Any],
    *,
    name: str,
    path: Iterable[str],
    methods: Iterable[str],
    converted: Iterable[str] | None = None,
    follow_wrapped: bool = True,
) -> Arguments:
    """Return the parameters of a view.

    `path` has the names in the route's path. `converted` has those that are converted by their annotation; None
    means all. The others, and those without an annotation, stay as the router made them.

    Raises ConfigurationError, naming function and parameter, if no request can fill a parameter.
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
                f"{name}: parameter {parameter.name!r} is positional-only, and arguments are given by name"
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
                f"{name}: parameter {parameter.name!r} cannot be served with the annotation {shown}: {exc}"
            ) from exc
    return Arguments(tuple(parameters))


def _parameter(name: str, annotation: Any, default: Any, in_path: bool) -> Parameter:
    # Imported for the first parameter that needs it, because msgspec adds 16 ms to the start of an app.
    from .conversion import converter_of
    from .texts import reader_of

    members, nullable = alternatives(annotation)
    bare = members[0] if len(members) == 1 else plain(annotation)
    if isinstance(bare, type) and issubclass(bare, Request):
        return Parameter(name=name, source=Source.REQUEST, annotation=annotation, optional=True)
    read, many = reader_of(annotation) or (None, False)
    if in_path:
        if read is None or many:
            raise Unservable("a parameter in the path must be a scalar")
        return Parameter(name=name, source=Source.PATH, annotation=annotation, optional=False, convert=read)
    if bare is bytes:
        raise Unservable("for raw bytes take a quart.Request, and await its get_data()")
    return Parameter(
        name=name,
        source=Source.BODY if read is None else Source.QUERY,
        annotation=annotation,
        optional=nullable or default is not inspect.Parameter.empty,
        default=default,
        convert=read or converter_of(annotation),
        many=many,
    )
