"""Routes that are found again are those that a search would find."""

from __future__ import annotations

import pytest
from quart.routing import QuartRule
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map

from trio_agentapp.server.route_map import MAX_FOUND, RouteMap

RULES = [
    ("/", ["GET"], {}),
    ("/process", ["POST"], {}),
    ("/runs", ["GET"], {}),
    ("/runs/<run_id>", ["GET"], {}),
    ("/runs/cancel", ["POST"], {}),
    ("/page/", ["GET"], {}),
    ("/with-default", ["GET"], {"defaults": {"page": 1}}),
    ("/any", None, {}),
]


def rules() -> list[QuartRule]:
    found = [QuartRule(path, endpoint=path, methods=methods, **more) for path, methods, more in RULES]
    return [
        *found,
        QuartRule("/both", endpoint="http", methods=["GET"]),
        QuartRule("/both", endpoint="ws", websocket=True),
    ]


def answer(routes: Map, path: str, method: str, websocket: bool = False) -> object:
    try:
        return routes.bind("host", path_info=path).match(path, method, websocket=websocket)
    except HTTPException as error:
        return type(error), getattr(error, "new_url", None), sorted(getattr(error, "valid_methods", None) or ())


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/process",
        "/process/",
        "//process",
        "/runs",
        "/runs/a",
        "/runs/b",
        "/runs/cancel",
        "/page",
        "/page/",
        "/with-default",
        "/any",
        "/both",
        "/nowhere",
        "/PROCESS",
        "/runs/a/b",
    ],
)
def test_a_second_search_finds_what_the_first_did(path: str) -> None:
    ours, plain = RouteMap(), Map()
    for routes in (ours, plain):
        for rule in rules():
            routes.add(rule)
    for method in ("GET", "POST", "HEAD", "DELETE"):
        for websocket in (False, True):
            expected = answer(plain, path, method, websocket)
            assert [answer(ours, path, method, websocket) for _ in range(3)] == [expected] * 3


def test_values_are_not_shared_and_new_routes_count() -> None:
    routes = RouteMap()
    routes.add(QuartRule("/<name>", endpoint="any", methods=["GET"]))
    assert answer(routes, "/first", "GET") == ("any", {"name": "first"})
    routes.add(QuartRule("/second", endpoint="second", methods=["GET"]))
    adapter = routes.bind("host")
    _, values = adapter.match("/second", "GET")
    values["name"] = "mine"
    assert adapter.match("/second", "GET") == ("second", {})
    routes.add(QuartRule("/third", endpoint="third", methods=["GET"]))
    assert answer(routes, "/third", "GET") == ("third", {})
    routes.add(QuartRule("/page", endpoint="without slash", methods=["GET"], strict_slashes=False))
    assert answer(routes, "/page/", "GET") == ("without slash", {})
    routes.add(QuartRule("/page/", endpoint="with slash", methods=["GET"]))
    assert answer(routes, "/page/", "GET") == ("with slash", {})


def test_what_is_remembered_is_bounded() -> None:
    routes = RouteMap()
    routes.add(QuartRule("/any", endpoint="any"))
    for number in range(MAX_FOUND + 10):
        assert answer(routes, "/any", f"M{number}") == ("any", {})
    assert len(routes._matcher._found) == MAX_FOUND
