"""Reads the agent card that the user gave, of either version, into the form of 1.0."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import attrs

from ...protocol.structure import Faults
from .shapes import Kind, Shape, read, snake_of

__all__ = ["SCHEMES", "plain_card", "read_card"]

_FLOW: Mapping[str, Kind] = {
    "authorizationUrl": "text",
    "tokenUrl": "text",
    "refreshUrl": "text",
    "scopes!": ("map", "text"),
}
_FLOWS = Shape(
    {
        "authorizationCode": Shape({**_FLOW, "pkceRequired": "flag"}),
        "clientCredentials": Shape(_FLOW),
        "implicit": Shape(_FLOW),
        "password": Shape(_FLOW),
        "deviceCode": Shape({**_FLOW, "deviceAuthorizationUrl": "text"}),
    }
)
SCHEMES: Mapping[str, tuple[str, Shape]] = {
    "apiKey": (
        "apiKeySecurityScheme",
        Shape({"description": "text", "location!": "text", "name!": "text"}),
    ),
    "http": (
        "httpAuthSecurityScheme",
        Shape({"description": "text", "scheme!": "text", "bearerFormat": "text"}),
    ),
    "oauth2": (
        "oauth2SecurityScheme",
        Shape({"description": "text", "flows!": _FLOWS, "oauth2MetadataUrl": "text"}),
    ),
    "openIdConnect": (
        "openIdConnectSecurityScheme",
        Shape({"description": "text", "openIdConnectUrl!": "text"}),
    ),
    "mutualTLS": ("mtlsSecurityScheme", Shape({"description": "text"})),
}
"""By their types in 0.3: the field of 1.0, and its fields."""

_SKILL = Shape(
    {
        "id!": "text",
        "name!": "text",
        "description!": "text",
        "tags!": ["text"],
        "examples": ["text"],
        "inputModes": ["text"],
        "outputModes": ["text"],
        "securityRequirements": ["object"],
        "security": ["object"],
    }
)
_EXTENSION = Shape({"uri!": "text", "description": "text", "required": "flag", "params": "object"})
_CARD = Shape(
    {
        "name": "text",
        "description": "text",
        "supportedInterfaces": [
            Shape({"url!": "text", "protocolBinding!": "text", "tenant": "text", "protocolVersion!": "text"})
        ],
        "provider": "any",
        "version": "text",
        "documentationUrl": "text",
        "iconUrl": "text",
        "capabilities": Shape(
            {
                "streaming": "flag",
                "pushNotifications": "flag",
                "extensions": [_EXTENSION],
                "extendedAgentCard": "flag",
                "stateTransitionHistory": "flag",
            }
        ),
        "securitySchemes": ("map", "object"),
        "securityRequirements": ["object"],
        "security": ["object"],
        "defaultInputModes": ["text"],
        "defaultOutputModes": ["text"],
        "skills": [_SKILL],
        "signatures": [Shape({"protected!": "text", "signature!": "text", "header": "object"})],
        # Of 0.3.
        "url": "text",
        "preferredTransport": "text",
        "additionalInterfaces": [Shape({"url!": "text", "transport!": "text"})],
        "protocolVersion": "text",
        "supportsAuthenticatedExtendedCard": "flag",
    }
)
_PROVIDER = Shape({"organization!": "text", "url": "text"})


def plain_card(card: Any) -> Any:
    """Return a card as plain JSON values: a dict, or an object of an SDK (pydantic, Protocol Buffers), attrs or a
    dataclass.
    """
    if card is None or isinstance(card, Mapping):
        return {} if card is None else card
    if hasattr(card, "model_dump"):
        return card.model_dump(mode="json", by_alias=True, exclude_none=True)
    if hasattr(card, "DESCRIPTOR"):
        # Only somebody who has Protocol Buffers installed can have made such a card.
        from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped,unused-ignore]

        return MessageToDict(card)
    if dataclasses.is_dataclass(card) and not isinstance(card, type):
        return dataclasses.asdict(card)
    if attrs.has(type(card)):
        return attrs.asdict(card)
    return card


def read_card(value: Any, path: str, faults: Faults) -> dict[str, Any]:
    """Return a card of 1.0 or 0.3, or a part of one, in the form of 1.0. Notes the faults.

    The addresses of 0.3 stay in `url` and `additionalInterfaces`.
    """
    card = read(_CARD, value, path, faults, strict=True)
    if isinstance(provider := card.get("provider"), str):
        # As the runtime does that this one replaces.
        card["provider"] = {"organization": provider}
    elif provider is not None:
        card["provider"] = read(_PROVIDER, provider, f"{path}.provider", faults, strict=True)
    for place, skill in enumerate(card.get("skills", [])):
        _renew_requirements(skill, f"{path}.skills[{place}]", faults)
    _renew_requirements(card, path, faults)
    if "securitySchemes" in card:
        card["securitySchemes"] = {
            name: _scheme(scheme, f"{path}.securitySchemes.{name}", faults)
            for name, scheme in card["securitySchemes"].items()
            if isinstance(scheme, Mapping)
        }
    extended = card.pop("supportsAuthenticatedExtendedCard", None)
    if extended is not None:
        card.setdefault("capabilities", {}).setdefault("extendedAgentCard", extended)
    for name in ("name", "version"):
        if card.get(name) == "":
            faults.add(f"{path}.{name}", "must not be empty")
    known = set(card.get("securitySchemes", {}))
    for place, requirement in enumerate(card.get("securityRequirements", [])):
        for name in requirement["schemes"]:
            if name not in known:
                faults.add(
                    f"{path}.securityRequirements[{place}]", f"names {name!r}, which is not in securitySchemes"
                )
    return card


def _renew_requirements(holder: dict[str, Any], path: str, faults: Faults) -> None:
    """Turn `security` of 0.3, `[{"bearer": []}]`, into `securityRequirements` of 1.0."""
    field = "securityRequirements" if "securityRequirements" in holder else "security"
    found = holder.pop(field, None)
    holder.pop("security", None)
    if found is None:
        return
    renewed = []
    for place, requirement in enumerate(found):
        schemes = requirement.get("schemes", requirement) if isinstance(requirement, Mapping) else None
        if not isinstance(schemes, Mapping):
            faults.add(f"{path}.{field}[{place}]", "must be an object of security schemes")
            continue
        lists = {}
        for name, scopes in schemes.items():
            listed = scopes.get("list", []) if isinstance(scopes, Mapping) else scopes
            if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
                faults.add(f"{path}.{field}[{place}].{name}", "must be a list of scopes")
                continue
            lists[str(name)] = {"list": listed}
        renewed.append({"schemes": lists})
    holder["securityRequirements"] = renewed


def _scheme(scheme: Mapping[str, Any], path: str, faults: Faults) -> dict[str, Any]:
    """One security scheme of either version."""
    for kind, (field, shape) in SCHEMES.items():
        if scheme.get("type") == kind:
            fields = {name: value for name, value in scheme.items() if name != "type"}
            for old in ("in", "in_"):
                if old in fields:
                    fields["location"] = fields.pop(old)
            return {field: read(shape, fields, path, faults)}
        for name in (field, snake_of(field)):
            if name in scheme:
                return {field: read(shape, scheme[name], f"{path}.{field}", faults)}
    faults.add(path, f"must have a type ({', '.join(SCHEMES)}) or one of the fields of A2A 1.0")
    return {}
