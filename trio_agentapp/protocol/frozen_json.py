"""JSON values that cannot be changed, so that a change in place raises an error and is not lost silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from .payload import plain_json

__all__ = ["FrozenDict", "FrozenList", "freeze"]


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise TypeError(
        "this is part of run.state, and a change in place would not be sent; "
        "change it in `with run.state.edit() as state: ...`"
    )


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed. `copy.deepcopy` gives plain dicts and lists."""

    __slots__ = ()
    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __deepcopy__(self, memo: object) -> dict[str, Any]:
        copy: dict[str, Any] = plain_json(self)
        return copy


class FrozenList(list[Any]):
    """A list that cannot be changed."""

    __slots__ = ()
    __setitem__ = __delitem__ = append = extend = insert = pop = remove = clear = reverse = sort = _refuse
    __iadd__ = __imul__ = _refuse

    def __deepcopy__(self, memo: object) -> list[Any]:
        copy: list[Any] = plain_json(self)
        return copy


def freeze(value: Any, path: str = "$") -> Any:
    """Return a copy of a JSON value that cannot be changed. Raises ItemError as `plain_json` does."""
    return _frozen(plain_json(value, path))


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FrozenDict({name: _frozen(item) for name, item in value.items()})
    if isinstance(value, list):
        return FrozenList(map(_frozen, value))
    return value
