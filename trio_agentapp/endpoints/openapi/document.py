"""Makes the OpenAPI 3.1 document of an app from its mounted routes and the schemas that these refer to."""

from __future__ import annotations

import inspect
import re
from collections import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args, get_origin

from quart import Quart, Response
from werkzeug.routing import Rule
from werkzeug.wrappers import Response as WerkzeugResponse

from ...errors import RequestError
from ..annotations import alternatives, plain, result_of
from ..arguments import Arguments, Parameter, Source
from ..views import View
from .components import Schema, built_in, ref
from .operations import BODY, FAULTY, JSON, PATH_PARAMETERS, SSE, Errors, Operation, frame_of, response
from .routes import operation_of
from .schemas import Schemas

__all__ = ["document_of"]

BUILT_IN = re.compile(r"trio_agentapp_(task )?[A-Z]+ /.*")
"""Matches the names of the built-in routes in Quart's URL map: method and path."""

VARIABLE = re.compile(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>")
CONVERTERS: dict[str, Schema] = {
    "int": {"type": "integer", "minimum": 0},
    "float": {"type": "number"},
    "uuid": {"type": "string", "format": "uuid"},
}
STREAMS = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator, abc.Iterator, abc.Generator)
TAGS = {
    "Runs": "Start, watch and stop runs of the agent.",
    "Sessions": "Conversations.",
    "Tasks": "Work that is submitted now and read later.",
    "Endpoints": "What this app serves beside its agent.",
    "OpenAI": "The APIs of OpenAI's clients, over the same runs. OpenAI's reference describes them.",
    "A2A": "The protocol in which agents call each other. Its specification (a2a-protocol.org) has the objects.",
    "Front ends": "The protocols of front ends, over the same runs. Their specifications describe them.",
    "Health": "For load balancers and operators.",
    "Documentation": "",
}
PROBLEM = "application/problem+json"

OTHER_CODES = {400: ["malformed_request"]}
"""Codes of problem documents that are made from Quart's own errors."""

OTHER_ERRORS: dict[str, Schema] = {
    "default": response({"type": "object"}, "An error in the shape of this protocol."),
}

RETRY_AFTER = (409, 429, 503)


def document_of(app: Quart, *, name: str, description: str, endpoint_path: str, root_path: str = "") -> Schema:
    """Return the document of the routes that are mounted now; `root_path` is their prefix."""
    made = _Document(app, endpoint_path)
    paths = made.paths()
    components = {**built_in(), **made.schemas.components}
    used = {name: components[name] for name in _closure((paths, made.responses, ref("Problem")), components)}
    tags = {operation["tags"][0] for path in paths.values() for operation in path.values()}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": _version(), **({"description": description} if description else {})},
        **({"servers": [{"url": root_path}]} if root_path else {}),
        "paths": paths,
        "components": {"schemas": dict(sorted(used.items())), "responses": made.responses},
        "tags": [
            {"name": tag, **({"description": words} if words else {})} for tag, words in TAGS.items() if tag in tags
        ],
    }


def _version() -> str:
    try:
        return version("trio-agentapp")
    except PackageNotFoundError:
        return "0"


class _Document:
    def __init__(self, app: Quart, endpoint_path: str) -> None:
        self._app = app
        self._endpoint_path = endpoint_path
        self._descriptions = {name: schema.get("description", name) for name, schema in built_in().items()}
        self.schemas = Schemas(reserved=built_in())
        self.responses: dict[str, Schema] = {}
        self._ids: set[str] = set()

    def paths(self) -> dict[str, Schema]:
        paths: dict[str, Schema] = {}
        for rule in self._app.url_map.iter_rules():
            path = VARIABLE.sub(r"{\2}", rule.rule)
            for method in sorted((rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}):
                operation = self._operation(rule, path, method)
                if operation is not None:
                    # If two routes are equal, the first one responds.
                    paths.setdefault(path, {}).setdefault(method.lower(), operation)
        return dict(sorted(paths.items()))

    def _operation(self, rule: Rule, path: str, method: str) -> Schema | None:
        built_in = BUILT_IN.fullmatch(rule.endpoint)
        if built_in is None:
            view = self._app.view_functions.get(rule.endpoint)
            return None if view is None or rule.websocket else self._of_user(rule, method, view)
        task_path = re.sub(r"/<task_id>(/cancel)?$", "", rule.rule) if built_in[1] else None
        known = operation_of(
            "WS" if rule.websocket else method, path, endpoint_path=self._endpoint_path, task_path=task_path
        )
        if known is None:
            known = Operation("Health", f"{method} {path}", {"200": {"description": "Done."}})
        return self._of_built_in(known, rule, method)

    def _of_built_in(self, known: Operation, rule: Rule, method: str) -> Schema:
        responses = {
            status: response(ref(each), self._descriptions[each]) if isinstance(each, str) else each
            for status, each in known.responses.items()
        }
        return {
            "tags": [known.tag],
            "summary": known.summary,
            **_some(description=known.description),
            "operationId": self._id(method, rule),
            **_some(parameters=[*_path_parameters(rule), *known.parameters]),
            **(_body(known.body, required=known.body_required) if known.body is not None else {}),
            "responses": {**(OTHER_ERRORS if known.own_errors else self._problems(known.errors)), **responses},
        }

    def _of_user(self, rule: Rule, method: str, view: Callable[..., Any]) -> Schema:
        described: View | None = getattr(view, "described", None)
        arguments = Arguments(())
        if described is not None:
            arguments = described.arguments.get(frozenset(rule.arguments), arguments)
        fn = view if described is None else described.fn
        summary, description = _described(fn, rule.endpoint)
        body = arguments.of(Source.BODY)
        errors: Errors = ()
        if any(each.source is not Source.REQUEST for each in arguments.parameters):
            errors = BODY if body else FAULTY
        return {
            "tags": ["Endpoints"],
            "summary": summary,
            **_some(description=description),
            "operationId": self._id(method, rule),
            **_some(parameters=self._parameters(rule, arguments)),
            **(self._body_of(arguments, body) if body else {}),
            "responses": {"200": self._response(described, fn), **self._problems(errors)},
        }

    def _parameters(self, rule: Rule, arguments: Arguments) -> list[Schema]:
        in_path = {each.name: each for each in arguments.of(Source.PATH)}
        found = []
        for parameter in _path_parameters(rule):
            known = in_path.get(parameter["name"])
            found.append(parameter if known is None else {**parameter, "schema": self.schemas.of(known.annotation)})
        for each in arguments.of(Source.QUERY):
            found.append(
                {
                    "name": each.name,
                    "in": "query",
                    "required": not each.optional,
                    "schema": self.schemas.with_default(_not_null(each.annotation), each.default),
                }
            )
        return found

    def _body_of(self, arguments: Arguments, body: list[Parameter]) -> Schema:
        whole = arguments.whole_body
        if whole is not None:
            return _body(self.schemas.with_default(whole.annotation, whole.default), required=not whole.optional)
        needed = [each.name for each in body if not each.optional]
        schema: Schema = {
            "type": "object",
            "properties": {each.name: self.schemas.with_default(each.annotation, each.default) for each in body},
            **_some(required=needed),
        }
        return _body(schema, required=bool(needed))

    def _response(self, described: View | None, fn: Callable[..., Any]) -> Schema:
        returns = result_of(fn) if described is None else described.returns
        origin = get_origin(returns) or returns
        streamed = described is not None and described.endpoint and origin in STREAMS
        if described is not None and (described.streams or streamed):
            item = get_args(returns)[0] if origin in STREAMS and get_args(returns) else Any
            items = {"anyOf": [self.schemas.of(item), ref("EndpointFailure")]}
            return response(frame_of(items), "A stream of items.", SSE)
        if described is not None and described.endpoint and not _is_response(returns):
            return response(self.schemas.of(returns), "The result.")
        schema = {} if _is_response(returns) or origin in (tuple, str, *STREAMS) else self.schemas.of(returns)
        return response(schema, "The response.") if schema else {"description": "The response."}

    def _problems(self, errors: Errors) -> dict[str, Schema]:
        by_status: dict[int, list[type[RequestError]]] = {}
        for error in errors:
            by_status.setdefault(error.status, []).append(error)
        problems = {str(status): self._problem(status, by_status[status]) for status in sorted(by_status)}
        return {**problems, "default": self._problem(0, [])}

    def _problem(self, status: int, errors: list[type[RequestError]]) -> Schema:
        codes = list(dict.fromkeys(error.code for error in errors)) + OTHER_CODES.get(status, [])
        name = "".join(word.capitalize() for code in codes for word in code.split("_")) or "Problem"
        if name not in self.responses:
            schema = ref("Problem")
            if codes:
                schema = {"allOf": [schema, {"type": "object", "properties": {"code": {"enum": codes}}}]}
            retry = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
            self.responses[name] = {
                "description": " or ".join(f"`{code}`" for code in codes) or "Any other error.",
                **_some(headers=retry if status in RETRY_AFTER else {}),
                "content": {PROBLEM: {"schema": schema}},
            }
        return {"$ref": f"#/components/responses/{name}"}

    def _id(self, method: str, rule: Rule) -> str:
        words = VARIABLE.sub(r"by \2", rule.rule)
        name = re.sub(r"\W+", "_", f"{method} {words}").strip("_").lower()
        free, number = name, 1
        while free in self._ids:
            number += 1
            free = f"{name}_{number}"
        self._ids.add(free)
        return free


def _some(**members: Any) -> Schema:
    """Return the members that are not empty."""
    return {name: value for name, value in members.items() if value}


def _body(schema: Schema, *, required: bool) -> Schema:
    return {"requestBody": {"required": required, "content": {JSON: {"schema": schema}}}}


def _path_parameters(rule: Rule) -> list[Schema]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": CONVERTERS.get(converter) or PATH_PARAMETERS.get(name, {"type": "string"}),
        }
        for converter, name in VARIABLE.findall(rule.rule)
    ]


def _not_null(annotation: Any) -> Any:
    """Return `X` for `X | None`, because no text in a query string means null."""
    members, nullable = alternatives(annotation)
    return members[0] if nullable and len(members) == 1 else annotation


def _is_response(annotation: Any) -> bool:
    bare = plain(annotation)
    return isinstance(bare, type) and issubclass(bare, Response | WerkzeugResponse)


def _described(fn: Callable[..., Any], endpoint: str) -> tuple[str, str]:
    """Return summary and description: the docstring's first paragraph and the rest, or the function's name."""
    doc = inspect.getdoc(fn) if inspect.isroutine(fn) else None
    if not doc:
        name = str(getattr(fn, "__name__", endpoint))
        return name.replace("_", " ").strip().capitalize() or endpoint, ""
    first, _, rest = doc.partition("\n\n")
    return " ".join(first.split()).removesuffix("."), rest.strip()


def _closure(roots: Iterable[Any], components: Mapping[str, Schema]) -> set[str]:
    """Return the names of all components to which `roots` refer, directly or not."""
    found: set[str] = set()
    pending = [name for root in roots for name in _references(root)]
    while pending:
        name = pending.pop()
        if name not in found and name in components:
            found.add(name)
            pending += _references(components[name])
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and item.startswith("#/components/schemas/"):
                yield item.rpartition("/")[2]
            elif key != "description":
                yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)
