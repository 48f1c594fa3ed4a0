"""A Quart app whose routes take arguments: `@app.endpoint`, and Quart's own `get`, `post`, `route` and so on."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from inspect import isasyncgen, isgenerator
from typing import TYPE_CHECKING, Any, TypeVar

from quart import Blueprint, Response, has_request_context, has_websocket_context, request, websocket
from quart.json.provider import DefaultJSONProvider
from quart.typing import ResponseTypes
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WerkzeugResponse

from ..errors import ConfigurationError, ItemError
from ..protocol.serialiser import to_json
from ..runs.asyncio_lint import warn_of_cancelled_error
from .fastapi import (
    MEMBERS,
    from_fastapi,
    problem_of_fastapi,
    refuse_fastapi,
    refuse_fastapi_options,
    refuse_others,
)
from .views import Endpoints

__all__ = ["RoutingApp", "native_path"]

F = TypeVar("F", bound=Callable[..., Any])

BRACED = re.compile(r"\{(\w+)(?::(\w+))?\}")
NAMED = re.compile(r"<(?:[^<>:]+:)?(\w+)>")


class _JSON(DefaultJSONProvider):
    """Quart's JSON provider. Objects that it does not know are written as in the responses of endpoints."""

    @staticmethod
    def default(o: Any) -> Any:
        try:
            return DefaultJSONProvider.default(o)
        except TypeError:
            # orjson is not used, because it reads integers beyond 64 bits as floats.
            return json.loads(to_json(o))


class RoutingApp(QuartTrio):
    """The part of `AgentApp` that adds and serves the user's own routes."""

    json_provider_class = _JSON

    endpoints: Endpoints
    """Set before the first route is added."""

    def endpoint(  # type: ignore[override]  # Flask's of this name has no use here
        self, path: str, methods: Sequence[str] = ("POST",), **others: Any
    ) -> Callable[[F], F]:
        """Serve the decorated function: its result as JSON, or the items of a generator as Server-Sent Events.

        Its parameters are filled from the request: scalars from path and query string, models, dicts and lists of
        them from the JSON body, `AgentRequest` and `quart.Request`.

        Raises ConfigurationError, naming function and parameter, if no request can fill a parameter.
        """
        refuse_others(others, f"endpoint {path}")
        if isinstance(methods, str):
            methods = (methods,)
        if not callable(getattr(path, "startswith", None)) or not path.startswith("/"):
            raise ConfigurationError(f"the path of an endpoint begins with '/', and this is {path!r}")

        native, wanted = native_path(path), {method.upper() for method in methods}
        for rule in self.url_map.iter_rules():
            if rule.rule == native and not rule.websocket and (taken := wanted & (rule.methods or set())):
                raise ConfigurationError(
                    f"{' and '.join(sorted(taken))} {path} has a view already: {rule.endpoint}"
                )

        def register(fn: F) -> F:
            refuse_fastapi(fn, f"endpoint {path}")
            warn_of_cancelled_error(fn, f"endpoint {path}")
            view = self.endpoints.endpoint(fn, path=_names(native), methods=methods)
            name = view.__name__
            if name in self.view_functions:
                name = f"{name} {path}"
            self.add_url_rule(path, name.replace(".", "_"), view, methods=list(methods))
            return fn

        return register

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Any = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Add a route as Quart does; a view may have parameters that are not in its path.

        `{name}` and `{name:path}` mean the same as `<name>` and `<path:name>`.
        """
        path = native_path(rule)
        refuse_fastapi_options(options, f"route {rule}")
        if view_func is not None:
            refuse_fastapi(view_func, f"route {rule}")
            # The package's own views wrap functions that were checked before.
            if not hasattr(view_func, "described"):
                warn_of_cancelled_error(view_func, f"route {rule}")
        if view_func is not None and not options.get("websocket"):
            around = (path, options.get("subdomain"), options.get("host"))
            wrapped = self.endpoints.native(
                view_func,
                path=[*_names(*around), *(options.get("defaults") or ())],
                braced=[found[1] for found in BRACED.finditer(rule)],
                methods=options.get("methods") or getattr(view_func, "methods", None) or ("GET",),
            )
            name = endpoint or str(getattr(view_func, "__name__", ""))
            if wrapped is not view_func and self.view_functions.get(name) is view_func:
                # An earlier route of this function needed no arguments. Replace its view.
                self.view_functions[name] = wrapped
            view_func = wrapped
        super().add_url_rule(path, endpoint, view_func, provide_automatic_options, **options)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            hint = f", which FastAPI has; {MEMBERS[name]}" if name in MEMBERS else ""
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}", name=name, obj=self)

    def register_blueprint(self, blueprint: Any, **options: Any) -> None:
        """Register a blueprint as Quart does. Raises ConfigurationError for anything else."""
        if not isinstance(blueprint, Blueprint):
            raise ConfigurationError(f"a blueprint must be a quart.Blueprint, not {type(blueprint).__name__}")
        super().register_blueprint(blueprint, **options)

    def hooks(self) -> Iterator[Callable[..., Any]]:
        """Yield the user's hooks of requests, WebSockets and serving, also those of blueprints."""
        for by_blueprint in (
            self.before_request_funcs,
            self.before_websocket_funcs,
            self.after_request_funcs,
            self.after_websocket_funcs,
            self.teardown_request_funcs,
            self.teardown_websocket_funcs,
            self.template_context_processors,
            self.url_value_preprocessors,
            {None: self.before_serving_funcs},
            {None: self.after_serving_funcs},
            {None: self.teardown_appcontext_funcs},
        ):
            for functions in by_blueprint.values():
                yield from functions
        for by_code in self.error_handler_spec.values():
            for by_class in by_code.values():
                yield from by_class.values()

    @cached_property
    def logger(self) -> logging.Logger:
        """Quart's logger, without the handler and format that Quart adds."""
        return logging.getLogger(self.name)

    def log_exception(self, exception_info: Any) -> None:
        """Log as Quart does, with the path quoted, because a line break in it could forge a log line."""
        if has_request_context():
            self.logger.error("%s %r failed", request.method, request.path, exc_info=exception_info)
        elif has_websocket_context():
            self.logger.error("the WebSocket of %r failed", websocket.path, exc_info=exception_info)
        else:
            super().log_exception(exception_info)

    async def handle_user_exception(self, error: Any) -> Any:
        """Handle errors as Quart does; an HTTPException of FastAPI without a handler becomes a problem document."""
        try:
            return await super().handle_user_exception(error)
        except Exception as unhandled:
            if unhandled is error and (answer := problem_of_fastapi(error)) is not None:
                return answer
            raise

    async def make_response(self, result: Any) -> ResponseTypes:
        """Make a response as Quart does. Models become JSON, and responses of FastAPI are translated.

        Raises ItemError, naming the view, if the result cannot be a response.
        """
        value, *rest = result if isinstance(result, tuple) and len(result) in (2, 3) else (result,)
        if value is None or _is_strange(value):
            try:
                if value is None:
                    raise ItemError("None is not a response; return text, a dict, a list, or (body, status)")  # noqa: TRY301
                value = from_fastapi(value)
                if _is_strange(value):
                    value = Response(to_json(value), content_type="application/json")
            except ItemError as error:
                view = (request if has_request_context() else websocket).endpoint
                raise ItemError(f"view {view!r}: {error}") from None
            result = (value, *rest) if rest else value
        return await super().make_response(result)


def _is_strange(value: Any) -> bool:
    """Return whether Quart would refuse a response of this type."""
    known = (Response, WerkzeugResponse, HTTPException, str, bytes, bytearray, list, dict, tuple)
    return value is not None and not isinstance(value, known) and not isgenerator(value) and not isasyncgen(value)


def native_path(path: str) -> str:
    """Return `/a/{b}/{c:path}` as Quart writes it: `/a/<b>/<path:c>`."""
    return BRACED.sub(lambda found: f"<{found[2]}:{found[1]}>" if found[2] else f"<{found[1]}>", path)


def _names(*rules: str | None) -> list[str]:
    return [name for rule in rules for name in NAMED.findall(rule or "")]
