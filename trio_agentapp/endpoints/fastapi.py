"""What code written for FastAPI brings along: refused where nothing here stands for it, else translated.

Parameters that only FastAPI can fill are refused. Ignored, `Depends` would be a guard that lets everybody in.
Responses that hold their whole body, and `HTTPException`, are translated; neither package must be installed."""

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
from .annotations import is_pydantic, names_of, plain

__all__ = [
    "MEMBERS",
    "from_fastapi",
    "problem_of_fastapi",
    "refuse_fastapi",
    "refuse_fastapi_options",
    "refuse_others",
]

HOMES = ("fastapi", "starlette")
"""The packages, found by the module of an object's class, so that neither must be installed."""

FIELD = "pydantic.fields.FieldInfo"

NAMED = re.compile(r"\b(?:Depends|Security)\s*\(")
"""In an annotation that is a text, also where its names cannot be looked up."""

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
    **dict.fromkeys(
        (
            "response_model_include",
            "response_model_exclude",
            "response_model_exclude_unset",
            "response_model_exclude_defaults",
            "response_model_exclude_none",
            "response_model_by_alias",
        ),
        "return no more than is to be sent",
    ),
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
"""What a FastAPI has and an AgentApp has not."""


STREAMED: Mapping[str, str] = {
    "StreamingResponse": "make it an @app.endpoint that is a generator, which streams what it yields; or return a "
    "generator or a quart.Response of one",
    "FileResponse": "return await quart.send_file(path)",
    "background": "start it in the view, with app.add_background_task(fn)",
}
"""Answers that only an ASGI server of asyncio can send."""


def from_fastapi(value: Any) -> Any:
    """A response of FastAPI or Starlette as one of Quart; any other value as it is.

    Raises ItemError for one that has no body yet, naming what to use instead.
    """
    kinds = {base.__name__ for base in inspect.getmro(type(value)) if _is_home(base)}
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
    """The answer to an `HTTPException` of FastAPI or Starlette: its status, `detail` and headers."""
    if _home(type(error)) != "HTTPException":
        return None
    raised: Any = error
    title = PHRASES.get(raised.status_code, "Error")
    code = title.lower().replace(" ", "_")
    # FastAPI's own may be any JSON; Starlette's is text.
    response = problem(raised.status_code, code, title, "", extra={"detail": raised.detail})
    response.headers.update(raised.headers or {})
    return response


def refuse_fastapi(fn: Any, name: str, *, hook: bool = False) -> None:
    """Look at all parameters of a function, and of those it wraps, for what FastAPI would fill.

    `hook`: the function is given the app, which it may go on calling a FastAPI.

    Raises ConfigurationError, naming the function, the parameter, and what to use instead.
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
    """Raises ConfigurationError for an argument of a decorator that only FastAPI's decorators have."""
    for option in OPTIONS.keys() & options.keys():
        raise ConfigurationError(f"{name}: {option}= is an argument of FastAPI's; here {OPTIONS[option]}")


def refuse_others(options: Mapping[str, Any], name: str) -> None:
    """Raises for arguments that a decorator does not have: ConfigurationError for FastAPI's, else TypeError."""
    refuse_fastapi_options(options, name)
    for option in options:
        raise TypeError(f"{name} has no argument {option!r}")


def _layers(fn: Any) -> Iterator[Any]:
    """The function, and those within: a decorator hides parameters, and calls the function without them."""
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
    """Each parameter that FastAPI would fill, with the name of the class that says so."""
    if isinstance(fn, functools.partial):
        for place, value in [*enumerate(fn.args), *fn.keywords.items()]:
            if found := _home(value):
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
        if found := _home(parameter.default) or _in(annotations.get(name), names, set()):
            yield name, found


def _home(value: Any) -> str | None:
    """The name of the class or function of FastAPI or Starlette that a value is, is made of, or derives from."""
    if inspect.isroutine(value):
        kinds: tuple[Any, ...] = (value,)
    else:
        kinds = inspect.getmro(value if isinstance(value, type) else type(value))
    for kind in kinds:
        if _is_home(kind):
            return str(kind.__name__)
    return None


def _is_home(kind: Any) -> bool:
    return str(getattr(kind, "__module__", "")).partition(".")[0] in HOMES


def _in_text(text: str, names: Mapping[str, Any], seen: set[Any]) -> str | None:
    """As `_in`. Its names are looked up one by one: another one that is not there hides nothing."""
    if marked := NAMED.search(text):
        return marked[0].rstrip("( \t")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = _in_text(node.value, names, seen)
        else:
            value = _value(node, names)
            found = None if isinstance(value, str) else _in(value, names, seen)
        if found:
            return found
    return None


def _value(node: ast.AST, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, names), node.attr, None)
    return names.get(node.id) if isinstance(node, ast.Name) else None


def _in(annotation: Any, names: Mapping[str, Any], seen: set[Any]) -> str | None:
    """The first class of FastAPI or Starlette in an annotation, also within the fields of a model."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return _in_text(annotation, names, seen)
    while get_origin(annotation) is Annotated or annotation is not plain(annotation):
        if get_origin(annotation) is Annotated:
            inner, *marks = get_args(annotation)
            if found := next(filter(None, (_home(mark) for mark in marks)), None):
                return found
            annotation = inner
        else:
            annotation = _unwrapped(annotation)
            if isinstance(annotation, str | ForwardRef):
                return _in(annotation, names, seen)
    if inspect.isroutine(annotation):
        return _home(annotation)
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if found := _home(annotation):
            return found
        if annotation in seen:
            return None
        seen.add(annotation)
        return next(filter(None, _of_fields(annotation, seen)), None)
    if get_origin(annotation) is Literal:
        return None
    arguments = get_args(annotation)
    inner = [each for member in arguments for each in (member if isinstance(member, list) else [member])]
    return next(filter(None, (_in(each, names, seen) for each in inner)), None)


def _unwrapped(annotation: Any) -> Any:
    """One wrapping less, where `plain` would take away an `Annotated` within, too."""
    if isinstance(annotation, typing.NewType):
        return annotation.__supertype__
    return annotation.__value__ if hasattr(annotation, "__value__") else get_args(annotation)[0]


def _of_fields(cls: type, seen: set[Any]) -> Iterator[str | None]:
    defaults: list[Any] = []
    if is_pydantic(cls) and hasattr(cls, "model_fields"):
        defaults = [each for field in cls.model_fields.values() for each in (field, field.default)]
    elif attrs.has(cls):
        defaults = [field.default for field in attrs.fields(cls)]
    elif dataclasses.is_dataclass(cls):
        defaults = [field.default for field in dataclasses.fields(cls)]
    elif not typing.is_typeddict(cls) and not hasattr(cls, "__struct_fields__"):
        return
    for default in defaults:
        yield _home(default)
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except (NameError, SyntaxError, TypeError, AttributeError):
        hints = dict(getattr(cls, "__annotations__", {}))
    names = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    for hint in hints.values():
        yield _in(hint, names, seen)
