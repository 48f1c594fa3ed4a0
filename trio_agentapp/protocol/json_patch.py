"""JSON Patch (RFC 6902): the operations that turn one JSON value into another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

__all__ = ["Operation", "apply", "difference"]

Operation: TypeAlias = dict[str, Any]


def difference(before: Any, after: Any, path: str = "") -> list[Operation]:
    """Return the operations that make `after` of `before`, both JSON values.

    Objects are compared member by member. Lists are compared index by index, then elements are added or removed at
    the end. Any other value that differs is replaced. Parts that are the same Python object are skipped.
    """
    if before is after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return _of_objects(before, after, path)
    if isinstance(before, list) and isinstance(after, list):
        return _of_lists(before, after, path)
    # In Python, 1 == True and 1 == 1.0; in JSON, only the latter two are the same value.
    if before == after and isinstance(before, bool) is isinstance(after, bool):
        return []
    return [{"op": "replace", "path": path, "value": after}]


def _of_objects(before: dict[str, Any], after: dict[str, Any], path: str) -> list[Operation]:
    operations: list[Operation] = [
        {"op": "remove", "path": f"{path}/{_escaped(name)}"} for name in before if name not in after
    ]
    for name, value in after.items():
        place = f"{path}/{_escaped(name)}"
        if name in before:
            operations += difference(before[name], value, place)
        else:
            operations.append({"op": "add", "path": place, "value": value})
    return operations


def _of_lists(before: list[Any], after: list[Any], path: str) -> list[Operation]:
    common = min(len(before), len(after))
    operations: list[Operation] = []
    for place in range(common):
        operations += difference(before[place], after[place], f"{path}/{place}")
    operations += [{"op": "add", "path": f"{path}/-", "value": value} for value in after[common:]]
    operations += [{"op": "remove", "path": f"{path}/{place}"} for place in range(len(before) - 1, common - 1, -1)]
    return operations


def _escaped(name: str) -> str:
    """Return a name as a token of a JSON Pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def apply(value: Any, patch: Sequence[Mapping[str, Any]]) -> Any:
    """Return `value` after the operations of a patch that `difference` has made. `value` itself is not changed.

    Raises LookupError: the patch was made for another value.
    """
    for operation in patch:
        way = [token.replace("~1", "/").replace("~0", "~") for token in operation["path"].split("/")[1:]]
        value = _applied(value, way, operation)
    return value


def _applied(value: Any, way: list[str], operation: Mapping[str, Any]) -> Any:
    if not way:
        return operation["value"]
    # Copy only the objects on the path; the others are shared.
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    place: Any = way[0] if isinstance(copy, dict) or way[0] == "-" else int(way[0])
    if len(way) > 1:
        copy[place] = _applied(copy[place], way[1:], operation)
    elif operation["op"] == "remove":
        del copy[place]
    elif place == "-" and isinstance(copy, list):
        copy.append(operation["value"])
    else:
        copy[place] = operation["value"]
    return copy
