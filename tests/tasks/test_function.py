"""Which body goes to which parameters, and what the kinds of function give."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from trio_agentapp.errors import ConfigurationError, ValidationError
from trio_agentapp.tasks import NO_BODY, TaskFunction
from trio_agentapp.tasks import function as function_module
from trio_agentapp.tasks.function import TooManyItems


def single(data: Any) -> Any:
    return data


def optional(data: Any = "default") -> Any:
    return data


def several(a: int, b: int = 2) -> Any:
    return [a, b]


def none() -> Any:
    return "none"


def rest(a: int, **others: Any) -> Any:
    return [a, others]


async def call(fn: Any, body: object) -> object:
    with trio.fail_after(5):
        return await TaskFunction(fn, name="/t")(body, threads=trio.CapacityLimiter(1))


@pytest.mark.parametrize(
    ("fn", "body", "result"),
    [
        (single, {"x": 5}, {"x": 5}),
        (single, None, None),
        (single, [1], [1]),
        (optional, NO_BODY, "default"),
        (optional, 0, 0),
        (several, {"a": 1}, [1, 2]),
        (several, {"b": 3, "a": 1}, [1, 3]),
        (none, NO_BODY, "none"),
        (none, {"ignored": 1}, "none"),
        (rest, {"a": 1, "z": 2}, [1, {"z": 2}]),
        (lambda data, /: data, {"x": 1}, {"x": 1}),
        (lambda *, data: data, {"x": 1}, {"x": 1}),
        (functools.partial(several, b=9), {"a": 1}, [1, 9]),
    ],
)
async def test_the_body_goes_to_the_parameters(fn: Any, body: object, result: object) -> None:
    assert await call(fn, body) == result


@pytest.mark.parametrize(
    ("fn", "body", "places"),
    [
        (single, NO_BODY, ["$"]),
        (several, NO_BODY, ["$.a"]),
        (several, [1, 2], ["$"]),
        (several, {"b": 1, "c": 2}, ["$.a", "$.c"]),
        (rest, {"z": 1}, ["$.a"]),
    ],
)
def test_a_body_that_does_not_fit(fn: Any, body: object, places: list[str]) -> None:
    with pytest.raises(ValidationError) as raised:
        TaskFunction(fn, name="/t").bind(body)
    assert [place for place, _ in raised.value.errors] == places


@pytest.mark.parametrize("fn", [42, lambda a, b, /: a, lambda a, *b: a])
def test_what_cannot_be_called_with_a_body(fn: Any) -> None:
    with pytest.raises(ConfigurationError):
        TaskFunction(fn, name="/t")


@pytest.mark.parametrize("timeout", [0, -1, True, float("inf")])
def test_a_timeout_that_cannot_be(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        TaskFunction(single, name="/t", timeout=timeout)


async def coroutine(data: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return data


async def async_items(data: Any) -> AsyncIterator[int]:
    for item in range(data):
        yield item


def items(data: Any) -> Iterator[int]:
    yield from range(data)


def makes_a_coroutine(data: Any) -> Any:
    return coroutine(data)


def makes_a_generator(data: Any) -> Any:
    return items(data)


def makes_an_async_generator(data: Any) -> Any:
    return async_items(data)


@pytest.mark.parametrize("fn", [single, coroutine, makes_a_coroutine])
async def test_functions_give_what_they_return(fn: Any) -> None:
    assert await call(fn, 3) == 3


@pytest.mark.parametrize("fn", [items, async_items, makes_a_generator, makes_an_async_generator])
async def test_generators_give_the_list_of_their_items(fn: Any) -> None:
    assert await call(fn, 3) == [0, 1, 2]


@pytest.mark.parametrize("fn", [items, async_items])
async def test_a_generator_without_end_is_ended(fn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_module, "MAX_ITEMS", 5)
    assert await call(fn, 5) == [0, 1, 2, 3, 4]
    with pytest.raises(TooManyItems):
        await call(fn, 6)
