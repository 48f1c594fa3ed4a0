"""Makes JSON Schemas of types that users annotate, by msgspec, and by pydantic for its own models."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin

import msgspec

from ...errors import ItemError
from ...protocol.content import CLASSES
from ...protocol.events import ContentEvent, MessageEvent, ResponseEvent, StateEvent
from ...protocol.exact_json import exact_loads
from ...protocol.message import Message
from ...protocol.request import AgentRequest
from ...protocol.serialiser import to_json
from ..annotations import Field, Unservable, fields_of, plain
from ..conversion import StandIn, is_pydantics, stand_in_for
from .components import TEMPLATE, Schema, ref

__all__ = ["Schemas"]

COMPONENTS = (AgentRequest, Message, ResponseEvent, MessageEvent, ContentEvent, StateEvent, *CLASSES.values())
"""Classes of the protocol. Their components are the built-in ones."""


class Schemas:
    """The schemas of one document. Named schemas are kept in `components`."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.components: dict[str, Schema] = {}
        self._reserved = set(reserved)
        self._made: dict[str, Schema] = {}
        """The components as msgspec and pydantic made them, by their name in this document."""
        self._classes: dict[Any, str] = {}

    def of(self, annotation: Any) -> Schema:
        """Return the schema of a type; if it has none, `{}`, which permits any value."""
        try:
            if plain(annotation) in COMPONENTS:
                return ref(plain(annotation).__name__)
            if is_pydantics(annotation):
                return self._of_pydantic(annotation)
            if (fields := fields_of(plain(annotation))) is not None:
                return self._of_class(plain(annotation), fields)
            (schema,), components = msgspec.json.schema_components(
                [stand_in_for(annotation)], schema_hook=self._of_unknown, ref_template=TEMPLATE
            )
        except (Unservable, TypeError, NameError):
            return {}
        return self._adopt(schema, components, annotation)

    def with_default(self, annotation: Any, default: Any) -> Schema:
        """Return the schema of a type with its default, if the default can be written as JSON."""
        schema = self.of(annotation)
        if default is inspect.Parameter.empty or default is None or "$ref" in schema:
            return schema
        try:
            return {**schema, "default": exact_loads(to_json(default))}
        except ItemError:
            return schema

    def _of_unknown(self, kind: Any) -> Schema:
        """Return the schema of a stand-in, or of a class that msgspec does not know."""
        if not isinstance(kind, StandIn):
            return self._of_pydantic(kind) if is_pydantics(kind) else {}
        if kind.schema is not None:
            return kind.schema
        if get_origin(kind.of) is Union:
            return {"anyOf": [self.of(each) for each in get_args(kind.of)]}
        return self.of(kind.of)

    def _of_class(self, kind: Any, fields: list[Field]) -> Schema:
        """Return the schema of a class with fields as a reference, so that the class may contain itself."""
        if kind not in self._classes:
            cls = get_origin(kind) or kind
            name = self._classes[kind] = self._name_for(cls.__name__, {"of": kind}, cls.__module__)
            self.components[name] = {}
            doc = inspect.cleandoc(vars(cls).get("__doc__") or "")
            required = [each.name for each in fields if each.required]
            self.components[name] = {
                "type": "object",
                "properties": {each.name: self.with_default(each.annotation, each.default) for each in fields},
                **({"required": required} if required else {}),
                # A dataclass without a docstring has its signature as `__doc__`.
                **({"description": doc} if doc and not doc.startswith(f"{cls.__name__}(") else {}),
            }
        return ref(self._classes[kind])

    def _of_pydantic(self, annotation: Any) -> Schema:
        pydantic: Any = sys.modules["pydantic"]
        try:
            schema = pydantic.TypeAdapter(annotation).json_schema(ref_template=TEMPLATE.format(name="{model}"))
        except pydantic.PydanticUserError:
            return {}
        components = schema.pop("$defs", {})
        if isinstance(annotation, type) and "$ref" not in schema:
            # pydantic makes a component only for a model that contains itself. Here every model becomes one.
            components[annotation.__name__] = schema
            schema = ref(annotation.__name__)
        return self._adopt(schema, components, annotation)

    def _adopt(self, schema: Schema, components: dict[str, Schema], annotation: Any) -> Schema:
        """Add the components that a library made. A name that another component has is changed."""
        module = str(getattr(plain(annotation), "__module__", "model"))
        names = {name: self._name_for(name, component, module) for name, component in components.items()}
        for name, component in components.items():
            self.components[names[name]] = _renamed(component, names)
        adopted: Schema = _renamed(schema, names)
        return adopted

    def _name_for(self, name: str, component: Schema, module: str) -> str:
        candidates = [name, f"{module}.{name}", *(f"{module}.{name}_{number}" for number in range(2, 1000))]
        for candidate in (re.sub(r"[^A-Za-z0-9._-]", "_", each) for each in candidates):
            if candidate not in self._reserved and self._made.setdefault(candidate, component) == component:
                return candidate
        raise AssertionError(name)


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: ref(names.get(item.rpartition("/")[2], item.rpartition("/")[2]))["$ref"]
            if key == "$ref" and isinstance(item, str)
            else _renamed(item, names)
            for key, item in value.items()
        }
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value
