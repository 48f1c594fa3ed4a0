"""Serves code written for FastAPI: refuses parameters that only FastAPI fills, translates responses and errors.

Ignoring such a parameter would be a security hole, because `Depends` may protect a route. Neither FastAPI nor
Starlette needs to be installed, because their classes are recognised by the name of their package.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ForwardRef, Literal, get_args, get_origin

import attrs
from quart import Response

from ..errors import ConfigurationError, ItemError
from ..server.problems import PHRASES, problem
from .annotations import is_pydantic, names_of

__all__ = [
    "MEMBERS",
    "from_fastapi",
    "problem_of_fastapi",
    "refuse_fastapi",
    "refuse_fastapi_options",
    "refuse_others",
]

PACKAGES = ("fastapi", "starlette")

FIELD = "pydantic.fields.FieldInfo"

NAMED = re.compile(r"\b(?:Depends|Security)\s*\(")
"""Finds calls in an annotation that is text, even if its names cannot be resolved."""

GUARD = (
    "call the function in the body; guards are AgentApp(authenticate=...) for agents and tasks, and "
    "@app.before_request for routes"
)
TYPED = "annotate the type alone; limits are Annotated[..., pydantic.Field(...)]"
FORM = "take a quart.Request, and await its form or files"
INSTEAD: Mapping[str, str] = {
    "Depends": GUARD,
    "Security": GUARD,
    "Query": TYPED,
    "Path": TYPED,
    "Body": TYPED,
    "Header": "take a quart.Request, and read its headers",
    "Cookie": "take a quart.Request, and read its cookies",
    "Form": FORM,
    "File": FORM,
    "UploadFile": FORM,
    "Request": "take a quart.Request in a route or endpoint; a query handler's request is an AgentRequest",
    "HTTPConnection": "take a quart.Request, or use quart.websocket",
    "WebSocket": "use quart.websocket in an @app.websocket route",
    "BackgroundTasks": "use run.start_soon in a query handler, or app.add_background_task in a route",
    "Response": "return a quart.Response, or body, status and headers as a tuple",
}

OPTIONS: Mapping[str, str] = {
    "dependencies": GUARD,
    "response_model": "annotate what the function returns",
    "response_class": "return a quart.Response",
    "status_code": "return (body, status)",
    **{
        f"response_model_{part}": "return only what should be sent"
        for part in ("include", "exclude", "exclude_unset", "exclude_defaults", "exclude_none", "by_alias")
    },
    **dict.fromkeys(
        ("summary", "description", "response_description", "deprecated", "operation_id"),
        "the function's docstring is its description",
    ),
    **dict.fromkeys(("tags", "responses", "include_in_schema", "openapi_extra", "callbacks"), "leave it out"),
}

MEMBERS: Mapping[str, str] = {
    "include_router": "use a quart.Blueprint and app.register_blueprint",
    "add_api_route": "use app.add_url_rule",
    "add_api_websocket_route": "use app.websocket",
    "api_route": "use app.route",
    "websocket_route": "use app.websocket",
    "on_event": "use AgentApp(lifespan=...)",
    "add_event_handler": "use AgentApp(lifespan=...)",
    "exception_handler": "use app.errorhandler",
    "add_exception_handler": "use app.register_error_handler",
    "exception_handlers": "use app.errorhandler",
    "dependency_overrides": "dependencies are not called here; call the functions in the body",
    "mount": "use a quart.Blueprint, or serve the other app by itself",
    "openapi": "the document is served at /openapi.json",
}
"""Members of a FastAPI app that an AgentApp does not have, and what to use instead."""

STREAMED: Mapping[str, str] = {
    "StreamingResponse": "make it an @app.endpoint that is a generator, which streams what it yields; or return a "
    "generator or a quart.Response of one",
    "FileResponse": "return await quart.send_file(path)",
    "background": "start it in the view, with app.add_background_task(fn)",
}
"""Responses that only an ASGI server of asyncio can send, and what to use instead."""


def from_fastapi(value: Any) -> Any:
    """Convert a response of FastAPI or Starlette into one of Quart. Return any other value unchanged.

    Raises ItemError, which says what to use instead, for a response whose body is not in memory, such as a stream.
    """
    kinds = {base.__name__ for base in inspect.getmro(type(value)) if _is_fastapi(base)}
    if "Response" not in kinds:
        return value
    found: str | None = next((name for name in ("FileResponse", "StreamingResponse") if name in kinds), None)
    if found is None and value.background is not None:
        found = "background"
    if found is not None:
        name = f"{found}= of FastAPI's responses" if found == "background" else f"{found} of FastAPI"
        raise ItemError(f"{name} cannot be sent here; {STREAMED[found]}")
    response = Response(bytes(value.body), value.status_code)
    response.headers.clear()
    for key, text in value.raw_headers:
        response.headers.add(key.decode("latin-1"), text.decode("latin-1"))
    return response


def problem_of_fastapi(error: BaseException) -> Response | None:
    """Return the response to an `HTTPException` of FastAPI or Starlette: its status, `detail` and headers."""
    if _class_of(type(error)) != "HTTPException":
        return None
    raised: Any = error
    title = PHRASES.get(raised.status_code, "Error")
    code = title.lower().replace(" ", "_")
    # In FastAPI the detail may be any JSON value.
    response = problem(raised.status_code, code, title, "", extra={"detail": raised.detail})
    response.headers.update(raised.headers or {})
    return response


def refuse_fastapi(fn: Any, name: str, *, hook: bool = False) -> None:
    """Raise ConfigurationError if only FastAPI can fill a parameter of a function, or of a function that it wraps.

    The error names the function, the parameter, and what to use instead. `hook`: the function gets the app, so a
    parameter that is annotated as FastAPI is accepted.
    """
    allowed = ("FastAPI", "Starlette") if hook else ()
    for layer in _layers(fn):
        for parameter, found in _of_parameters(layer):
            if found not in allowed:
                instead = INSTEAD.get(found, "take it out")
                if found == FIELD:
                    raise ConfigurationError(
                        f"{name}: parameter {parameter!r} has pydantic's Field(...) as its default, which checks "
                        "nothing there; write Annotated[<type>, pydantic.Field(...)] = <default>"
                    )
                raise ConfigurationError(
                    f"{name}: parameter {parameter!r} uses {found} of FastAPI, which has no effect here; {instead}"
                )


def refuse_fastapi_options(options: Mapping[str, Any], name: str) -> None:
    """Raise ConfigurationError for an argument of a decorator that only FastAPI's decorators have."""
    for option in OPTIONS.keys() & options.keys():
        raise ConfigurationError(f"{name}: {option}= is an argument of FastAPI's; here {OPTIONS[option]}")


def refuse_others(options: Mapping[str, Any], name: str) -> None:
    """Raise ConfigurationError for an argument that only FastAPI's decorators have, TypeError for any other."""
    refuse_fastapi_options(options, name)
    for option in options:
        raise TypeError(f"{name} has no argument {option!r}")


def _layers(fn: Any) -> Iterator[Any]:
    """Yield the function and those that it wraps. A decorator hides their parameters and does not fill them."""
    seen: set[int] = set()
    pending = [fn]
    while pending:
        layer = pending.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, functools.partial):
            yield layer
            pending.append(layer.func)
        elif view_class := getattr(layer, "view_class", None):
            verbs = ("dispatch_request", "get", "head", "post", "put", "patch", "delete", "options", "trace")
            pending += [getattr(view_class, verb) for verb in verbs if hasattr(view_class, verb)]
        elif inspect.isroutine(layer):
            yield layer
        else:
            pending += filter(inspect.isfunction, [type(layer).__call__] if callable(layer) else [])
        if (wrapped := getattr(layer, "__wrapped__", None)) is not None:
            pending.append(wrapped)


def _of_parameters(fn: Any) -> Iterator[tuple[str, str]]:
    """Yield each parameter that FastAPI would fill, with the name of FastAPI's class in it."""
    if isinstance(fn, functools.partial):
        for place, value in [*enumerate(fn.args), *fn.keywords.items()]:
            if found := _class_of(value):
                yield str(place), found
        return
    try:
        parameters = inspect.signature(fn, follow_wrapped=False).parameters
    except (TypeError, ValueError):
        return
    annotations = getattr(fn, "__annotations__", {})
    names = {**vars(builtins), **names_of(fn)}
    for name, parameter in parameters.items():
        if f"{type(parameter.default).__module__}.{type(parameter.default).__name__}" == FIELD:
            yield name, FIELD
        if found := _class_of(parameter.default) or next(_classes(annotations.get(name), names, set()), None):
            yield name, found


def _class_of(value: Any) -> str | None:
    """Return the name of FastAPI's class or function if the value is one, or an instance or subclass of one."""
    if inspect.isroutine(value):
        kinds: tuple[Any, ...] = (value,)
    else:
        kinds = inspect.getmro(value if isinstance(value, type) else type(value))
    return next((str(kind.__name__) for kind in kinds if _is_fastapi(kind)), None)


def _is_fastapi(kind: Any) -> bool:
    return str(getattr(kind, "__module__", "")).partition(".")[0] in PACKAGES


def _classes(annotation: Any, names: Mapping[str, Any], seen: set[Any]) -> Iterator[str]:
    """Yield the names of FastAPI's classes in an annotation, also in text and in the fields of models."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        yield from _classes_in_text(annotation, names, seen)
    elif isinstance(annotation, typing.NewType):
        yield from _classes(annotation.__supertype__, names, seen)
    elif type(annotation).__name__ == "TypeAliasType":
        yield from _classes(annotation.__value__, names, seen)
    elif get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        yield from filter(None, map(_class_of, marks))
        yield from _classes(inner, names, seen)
    elif isinstance(annotation, list) or get_args(annotation):
        # The parameters of a Callable are a list. A Literal is skipped, because its members are not types.
        members = annotation if isinstance(annotation, list) else get_args(annotation)
        for member in members if get_origin(annotation) is not Literal else ():
            yield from _classes(member, names, seen)
    elif found := _class_of(annotation):
        yield found
    elif isinstance(annotation, type) and annotation not in seen:
        seen.add(annotation)
        yield from _classes_in_fields(annotation, seen)


def _classes_in_text(text: str, names: Mapping[str, Any], seen: set[Any]) -> Iterator[str]:
    """As `_classes`, for text. Names are looked up one by one, so that an unknown name does not hide the others."""
    if marked := NAMED.search(text):
        yield marked[0].rstrip("( \t")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _classes_in_text(node.value, names, seen)
        elif not isinstance(value := _value(node, names), str):
            yield from _classes(value, names, seen)


def _value(node: ast.AST, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, names), node.attr, None)
    return names.get(node.id) if isinstance(node, ast.Name) else None


def _classes_in_fields(cls: type, seen: set[Any]) -> Iterator[str]:
    defaults: list[Any] = []
    if is_pydantic(cls) and hasattr(cls, "model_fields"):
        defaults = [each for field in cls.model_fields.values() for each in (field, field.default)]
    elif attrs.has(cls):
        defaults = [field.default for field in attrs.fields(cls)]
    elif dataclasses.is_dataclass(cls):
        defaults = [field.default for field in dataclasses.fields(cls)]
    elif not typing.is_typeddict(cls) and not hasattr(cls, "__struct_fields__"):
        return
    yield from filter(None, map(_class_of, defaults))
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except (NameError, SyntaxError, TypeError, AttributeError):
        hints = dict(getattr(cls, "__annotations__", {}))
    names = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    for hint in hints.values():
        yield from _classes(hint, names, seen)
