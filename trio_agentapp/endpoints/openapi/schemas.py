"""JSON Schemas of what users annotate (OpenAPI 3.1 is JSON Schema 2020-12).

Models of pydantic and msgspec are described by their own library; attrs classes, dataclasses, typed dicts and what
`typing` offers are read here.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import re
import sys
import typing
import uuid
from collections import abc
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import attrs
import orjson
from quart import Response

from ...errors import ItemError
from ...protocol.content import CLASSES
from ...protocol.events import ContentEvent, MessageEvent, ResponseEvent
from ...protocol.message import Message
from ...protocol.request import AgentRequest
from ...protocol.serialiser import to_json
from ..annotations import Unservable, alternatives, is_fielded, library_of, plain, typed_dict_of
from .models import Schema, ref

__all__ = ["Schemas"]

OURS: dict[Any, str] = {
    AgentRequest: "AgentRequest",
    Message: "Message",
    ResponseEvent: "ResponseEvent",
    MessageEvent: "MessageEvent",
    ContentEvent: "ContentEvent",
    **{cls: cls.__name__ for cls in CLASSES.values()},
}

SCALARS: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    decimal.Decimal: {"type": ["string", "number"], "description": "A decimal number."},
    uuid.UUID: {"type": "string", "format": "uuid"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"},
    datetime.timedelta: {"type": "number", "description": "Seconds."},
    type(None): {"type": "null"},
    None: {"type": "null"},
}

_TEMPLATE = "#/components/schemas/{name}"


class Schemas:
    """The schemas of one document; those with a name are kept in `components`."""

    def __init__(self, reserved: abc.Iterable[str] = ()) -> None:
        self.components: dict[str, Schema] = {}
        self._reserved = set(reserved)
        self._names: dict[Any, str] = {}

    def of(self, annotation: Any) -> Schema:
        """The schema of a type; `{}`, which is anything, for one that cannot be told."""
        if plain(annotation) in OURS:
            return ref(OURS[plain(annotation)])
        try:
            library = library_of(annotation)
        except Unservable:
            library = "cattrs"
        if library == "pydantic":
            return self._of_pydantic(annotation)
        if library == "msgspec":
            return self._of_msgspec(annotation)
        return self._of_typing(annotation)

    def with_default(self, annotation: Any, default: Any) -> Schema:
        """The same, telling the default if it is one that JSON can spell."""
        schema = self.of(annotation)
        if default is inspect.Parameter.empty or default is None or "$ref" in schema:
            return schema
        try:
            return {**schema, "default": orjson.loads(to_json(default))}
        except ItemError:
            return schema

    def _of_typing(self, annotation: Any) -> Schema:
        members, nullable = alternatives(annotation)
        if len(members) > 1 or (nullable and members != [None] and members != [type(None)]):
            options = [self.of(member) for member in members]
            return {"anyOf": [*options, {"type": "null"}] if nullable else options}
        bare = members[0]
        if isinstance(bare, abc.Hashable) and bare in SCALARS:
            return SCALARS[bare]
        if get_origin(bare) is Literal:
            return {"enum": [each.value if isinstance(each, enum.Enum) else each for each in get_args(bare)]}
        if isinstance(bare, type) and issubclass(bare, enum.Enum):
            return self._named(bare, lambda: {"enum": [_spelled(member.value) for member in bare]})
        if is_fielded(bare):
            return self._named(bare, lambda: self._fields(bare))
        if typing.is_typeddict(bare):
            return self._named(bare, lambda: self._typed_dict(bare))
        return self._container(bare)

    def _container(self, bare: Any) -> Schema:
        origin = get_origin(bare) or bare
        arguments = get_args(bare)
        if not isinstance(origin, type) or issubclass(origin, str | bytes | Response):
            return {}
        if issubclass(origin, abc.Mapping):
            values = self.of(arguments[1]) if len(arguments) == 2 else {}
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            items = [self.of(argument) for argument in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        if issubclass(origin, abc.Collection):
            items_of = self.of(arguments[0]) if arguments else {}
            return {"type": "array", "items": items_of}
        return {}

    def _named(self, cls: Any, make: Callable[[], Schema]) -> Schema:
        """The schema of a class, by reference, so that it may refer to itself."""
        if cls not in self._names:
            name = self._free_name(cls.__name__, cls.__module__)
            self._names[cls] = name
            self.components[name] = {}
            said = inspect.cleandoc(vars(cls).get("__doc__") or "")
            # Dataclasses write their signature where no docstring is.
            told = {} if not said or said.startswith(f"{cls.__name__}(") else {"description": said}
            self.components[name] = {**make(), **told}
        return ref(self._names[cls])

    def _free_name(self, name: str, module: str) -> str:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        taken = self._reserved | set(self.components)
        if name in taken:
            name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{module}.{name}")
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        return free

    def _fields(self, cls: Any) -> Schema:
        try:
            hints = typing.get_type_hints(cls, include_extras=True)
        except (NameError, TypeError):
            hints = {}
        properties: Schema = {}
        required: list[str] = []
        for name, kind, has_default, default in _fields_of(cls):
            properties[name] = self.with_default(hints.get(name, kind), default)
            if not has_default:
                required.append(name)
        return _object(properties, required)

    def _typed_dict(self, cls: Any) -> Schema:
        try:
            hints, required = typed_dict_of(cls)
        except NameError:
            return {"type": "object"}
        return _object({name: self.of(kind) for name, kind in hints.items()}, required)

    def _of_pydantic(self, annotation: Any) -> Schema:
        pydantic: Any = sys.modules["pydantic"]
        try:
            adapter = pydantic.TypeAdapter(annotation)
            schema = adapter.json_schema(ref_template=_TEMPLATE.replace("{name}", "{model}"))
        except (pydantic.PydanticUserError, NameError):
            return {}
        return self._adopt(schema, schema.pop("$defs", {}), annotation)

    def _of_msgspec(self, annotation: Any) -> Schema:
        msgspec: Any = sys.modules["msgspec"]
        try:
            (schema,), components = msgspec.json.schema_components([annotation], ref_template=_TEMPLATE)
        except TypeError:
            return {}
        return self._adopt(schema, components, annotation)

    def _adopt(self, schema: Schema, components: dict[str, Schema], annotation: Any) -> Schema:
        """Take over what a library has described; names that mean something else here already are changed."""
        if isinstance(annotation, type) and "$ref" not in schema:
            # A model that is not nested in anything gets its name all the same.
            components = {**components, annotation.__name__: schema}
            schema = ref(annotation.__name__)
        renamed: dict[str, str] = {}
        for name, component in components.items():
            if self.components.get(name, component) != component or name in self._reserved:
                renamed[ref(name)["$ref"]] = self._free_name(name, annotation_module(annotation))
        for name, component in components.items():
            target = renamed.get(ref(name)["$ref"], name)
            self.components[target.removeprefix("#/components/schemas/")] = _renamed(component, renamed)
        found: Schema = _renamed(schema, renamed)
        return found


def annotation_module(annotation: Any) -> str:
    return str(getattr(plain(annotation), "__module__", "model"))


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _target(item, names) if key == "$ref" else _renamed(item, names) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return value


def _target(reference: str, names: dict[str, str]) -> str:
    return str(ref(names[reference])["$ref"]) if reference in names else reference


def _fields_of(cls: Any) -> typing.Iterator[tuple[str, Any, bool, Any]]:
    """Name, type, whether there is a default, and the default if it is a plain one."""
    empty = inspect.Parameter.empty
    if attrs.has(cls):
        for field in attrs.fields(cls):
            if field.init:
                has_default = field.default is not attrs.NOTHING
                made = isinstance(field.default, attrs.Factory)  # type: ignore[arg-type]
                default = field.default if has_default and not made else empty
                yield field.name, Any if field.type is None else field.type, has_default, default
    else:
        for each in dataclasses.fields(cls):
            if each.init:
                plain_default = each.default is not dataclasses.MISSING
                has_default = plain_default or each.default_factory is not dataclasses.MISSING
                yield each.name, each.type, has_default, each.default if plain_default else empty


def _object(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _spelled(value: Any) -> Any:
    return orjson.loads(to_json(value))
