"""The agent card: completed, and written for clients of both versions.

Inside this package a card has the form of 1.0. A *hybrid* card has the fields of both versions: clients of 1.0 skip
fields that they do not know, and so do those of 0.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .card_reader import SCHEMES

__all__ = ["accepts", "completed_card", "written_card"]

DEFAULT_INPUT_MODES = (
    *("text/plain", "text/markdown", "application/json", "application/pdf", "application/octet-stream"),
    *("image/*", "audio/*", "video/*"),
)
"""Of an app that names none: the runtime passes all of these to the handler."""

DEFAULT_OUTPUT_MODES = ("text/plain", "application/json")


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
    url = card.get("url") or base + path
    found = _without(card, *_OF_0_3)
    if "supportedInterfaces" not in card:
        offered = ((url, "JSONRPC", "1.0"), (base, "HTTP+JSON", "1.0"), (url, "JSONRPC", "0.3"))
        found["supportedInterfaces"] = [
            {"url": at, "protocolBinding": binding, "protocolVersion": version}
            for at, binding, version in offered
            if version in versions
        ]
    if found.get("provider") is not None:
        found["provider"] = {"url": base, **found["provider"]}
    if "0.3" not in versions:
        return {**found, "capabilities": _without(found["capabilities"], "stateTransitionHistory")}
    old = _old_fields(found, card, url)
    if "1.0" in versions:
        # Each security scheme has the fields of 0.3 only: the SDKs of 1.0 read these, and merged ones confuse them.
        skills = [{**new, **before} for new, before in zip(found["skills"], old["skills"], strict=True)]
        return {**found, **old, "skills": skills}
    found = _without(found, "supportedInterfaces", "securityRequirements", "securitySchemes")
    return {**found, **old, "capabilities": _without(found["capabilities"], "extendedAgentCard")}


_OF_0_3 = ("url", "preferredTransport", "additionalInterfaces", "protocolVersion")


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


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


def _old_skill(skill: Mapping[str, Any]) -> dict[str, Any]:
    old = _without(skill, "securityRequirements")
    if "securityRequirements" in skill:
        old["security"] = _old_requirements(skill["securityRequirements"])
    return old


def _old_requirements(requirements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: scopes.get("list", []) for name, scopes in each["schemes"].items()} for each in requirements]


def _old_scheme(scheme: Mapping[str, Any]) -> dict[str, Any]:
    for kind, (field, _shape) in SCHEMES.items():
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
