"""The agent card: read from what the user gave, completed, and written for clients of both versions.

Inside this package a card has the form of 1.0. A *hybrid* card has the fields of both versions: clients of 1.0 skip
fields that they do not know, and so do those of 0.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ...protocol.structure import Faults
from .shapes import Kind, Shape, read

__all__ = ["DEFAULT_INPUT_MODES", "accepts", "completed_card", "plain_card", "read_card", "written_card"]

DEFAULT_INPUT_MODES = (
    *("text/plain", "text/markdown", "application/json", "application/pdf", "application/octet-stream"),
    *("image/*", "audio/*", "video/*"),
)
"""Of an app that names none: the runtime passes all of these to the handler."""

DEFAULT_OUTPUT_MODES = ("text/plain", "application/json")

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
_SCHEMES: Mapping[str, tuple[str, Shape]] = {
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
    for kind, (field, shape) in _SCHEMES.items():
        if scheme.get("type") == kind:
            fields = {name: value for name, value in scheme.items() if name != "type"}
            for old in ("in", "in_"):
                if old in fields:
                    fields["location"] = fields.pop(old)
            return {field: read(shape, fields, path, faults)}
        for name in (field, _snake(field)):
            if name in scheme:
                return {field: read(shape, scheme[name], f"{path}.{field}", faults)}
    faults.add(path, f"must have a type ({', '.join(_SCHEMES)}) or one of the fields of A2A 1.0")
    return {}


def _snake(field: str) -> str:
    from .shapes import snake_of

    return snake_of(field)


def completed_card(card: Mapping[str, Any], *, name: str, description: str, extended: bool) -> dict[str, Any]:
    """Return a card with everything that it must have, except its addresses."""
    name = card.get("name") or name
    description = card.get("description") or description or f"The agent {name}."
    skill = {"id": "dialog", "name": name, "description": description, "tags": ["dialog"]}
    return {
        **card,
        "name": name,
        "description": description,
        "version": card.get("version") or "1.0.0",
        "capabilities": {
            "streaming": True,
            "pushNotifications": True,
            "extendedAgentCard": extended,
            **card.get("capabilities", {}),
        },
        "defaultInputModes": card.get("defaultInputModes") or list(DEFAULT_INPUT_MODES),
        "defaultOutputModes": card.get("defaultOutputModes") or list(DEFAULT_OUTPUT_MODES),
        "skills": card.get("skills") or [skill],
    }


def written_card(card: Mapping[str, Any], *, base: str, path: str, versions: Sequence[str]) -> dict[str, Any]:
    """Return the card for clients: its addresses begin with `base`, and `path` is that of JSON-RPC."""
    found = {name: value for name, value in card.items() if name not in _OF_0_3}
    url = card.get("url") or base + path
    if "supportedInterfaces" not in card:
        found["supportedInterfaces"] = [
            *(
                [_interface(url, "JSONRPC", "1.0"), _interface(base, "HTTP+JSON", "1.0")]
                if "1.0" in versions
                else []
            ),
            *([_interface(url, "JSONRPC", "0.3")] if "0.3" in versions else []),
        ]
    if found.get("provider") is not None:
        found["provider"] = {"url": base, **found["provider"]}
    if "0.3" not in versions:
        found["capabilities"] = {
            name: value for name, value in found["capabilities"].items() if name != "stateTransitionHistory"
        }
        return found
    old = _old_fields(found, card, url)
    if "1.0" in versions:
        return _merged(found, old)
    for name in ("supportedInterfaces", "securityRequirements", "securitySchemes"):
        found.pop(name, None)
    found["skills"] = old.pop("skills")
    found["capabilities"] = {
        name: value for name, value in found["capabilities"].items() if name != "extendedAgentCard"
    }
    return {**found, **old}


_OF_0_3 = ("url", "preferredTransport", "additionalInterfaces", "protocolVersion")


def _interface(url: str, binding: str, version: str) -> dict[str, str]:
    return {"url": url, "protocolBinding": binding, "protocolVersion": version}


def _old_fields(found: Mapping[str, Any], card: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The fields of 0.3 that 1.0 does not have, or has in another form."""
    old: dict[str, Any] = {
        "protocolVersion": "0.3.0",
        "url": next(
            (each["url"] for each in card.get("supportedInterfaces", []) if each["protocolVersion"] == "0.3"), url
        ),
        "preferredTransport": card.get("preferredTransport") or "JSONRPC",
        "supportsAuthenticatedExtendedCard": bool(found["capabilities"].get("extendedAgentCard")),
        "skills": [_old_skill(skill) for skill in found["skills"]],
    }
    if "additionalInterfaces" in card:
        old["additionalInterfaces"] = card["additionalInterfaces"]
    if "securityRequirements" in found:
        old["security"] = _old_requirements(found["securityRequirements"])
    if "securitySchemes" in found:
        old["securitySchemes"] = {name: _old_scheme(each) for name, each in found["securitySchemes"].items()}
    return old


def _merged(found: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Both versions in one card."""
    card = {**found, **old}
    card["skills"] = [{**new, **before} for new, before in zip(found["skills"], old["skills"], strict=True)]
    if "securitySchemes" in found:
        # Each scheme has the fields of 0.3 only: the SDKs of 1.0 read these, and merged ones confuse them.
        card["securitySchemes"] = old["securitySchemes"]
    return card


def _old_skill(skill: Mapping[str, Any]) -> dict[str, Any]:
    old = {name: value for name, value in skill.items() if name != "securityRequirements"}
    if "securityRequirements" in skill:
        old["security"] = _old_requirements(skill["securityRequirements"])
    return old


def _old_requirements(requirements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: scopes.get("list", []) for name, scopes in each["schemes"].items()} for each in requirements]


def _old_scheme(scheme: Mapping[str, Any]) -> dict[str, Any]:
    for kind, (field, _shape) in _SCHEMES.items():
        if field in scheme:
            fields = dict(scheme[field])
            if "location" in fields:
                fields["in"] = fields.pop("location")
            return {"type": kind, **fields}
    return dict(scheme)


def accepts(modes: Sequence[str], media_type: str) -> bool:
    """Whether a media type is among the modes: media types, ranges such as `image/*`, or words such as `text`."""
    kind = media_type.split(";")[0].strip().lower()
    main = kind.split("/")[0]
    for mode in modes:
        known = mode.split(";")[0].strip().lower()
        if known in (kind, main, "*/*", "*", f"{main}/*") or (known == "data" and kind == "application/json"):
            return True
    return False
