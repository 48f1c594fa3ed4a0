"""Quart's map of routes, with a cache for paths without parameters."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from quart.routing import QuartMap
from werkzeug.routing import Rule
from werkzeug.routing.matcher import StateMachineMatcher

__all__ = ["RouteMap"]

MAX_FOUND = 1024
"""Entries of the cache. Usually there are as many as routes, but a route for any method can cause any number."""


class _Matcher(StateMachineMatcher):
    """Searches each path without parameters only once.

    Each search makes a closure that refers to itself, which only the garbage collector can free.
    """

    def __init__(self, merge_slashes: bool) -> None:
        super().__init__(merge_slashes)
        self._found: dict[tuple[str, str, str, bool], Rule] = {}

    def add(self, rule: Rule) -> None:
        self._found.clear()
        super().add(rule)

    def match(self, domain: str, path: str, method: str, websocket: bool) -> tuple[Rule, MutableMapping[str, Any]]:
        search = (domain, path, method, websocket)
        rule = self._found.get(search)
        if rule is not None:
            return rule, {}
        rule, values = super().match(domain, path, method, websocket)
        if not values and len(self._found) < MAX_FOUND:
            self._found[search] = rule
        return rule, values


class RouteMap(QuartMap):
    """The `url_map_class` of the app."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._matcher = _Matcher(self.merge_slashes)
