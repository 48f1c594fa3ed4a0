"""Tools: their schemas, their arguments, and what the model gets when they fail."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import threading
import time
from typing import Annotated, Any, Literal

import msgspec
import pytest
import trio

from trio_agentapp import Run
from trio_agentapp.agents import Tool, tool
from trio_agentapp.errors import ConfigurationError


@dataclasses.dataclass
class Place:
    lat: float
    names: list[str] = dataclasses.field(default_factory=list)


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


class NotJson:
    pass


async def weather(place: Place, unit: Unit = Unit.C, days: int = 3, *, exact: bool | None = None) -> str:
    """The weather at a place.

    It is not always right.

    Args:
        place: where,
            with its names
        days (int): how many

    Returns:
        a text
    """
    return f"{place} {unit} {days} {exact}"


def test_the_schema_of_a_function() -> None:
    assert Tool(weather).schema == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather at a place.\n\nIt is not always right.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"$ref": "#/$defs/Place", "description": "where, with its names"},
                    "unit": {"$ref": "#/$defs/Unit"},
                    "days": {"type": "integer", "description": "how many", "default": 3},
                    "exact": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
                },
                "required": ["place"],
                "additionalProperties": False,
                "$defs": {
                    "Place": {
                        "title": "Place",
                        "type": "object",
                        "properties": {
                            "lat": {"type": "number"},
                            "names": {"type": "array", "items": {"type": "string"}},
                        },
                        "required": ["lat"],
                    },
                    "Unit": {"title": "Unit", "enum": ["celsius", "fahrenheit"]},
                },
            },
        },
    }


def properties_of(made: Tool) -> dict[str, Any]:
    properties: dict[str, Any] = made.schema["function"]["parameters"]["properties"]
    return properties


def test_other_annotations() -> None:
    def find(
        kind: Literal["a", "b"],
        anything: Any,
        bare,
        text: Annotated[str, msgspec.Meta(min_length=1, description="not empty")],
        run: Run,
        *more: int,
        **others: int,
    ) -> None: ...

    assert properties_of(Tool(find)) == {
        "kind": {"enum": ["a", "b"]},
        "anything": {},
        "bare": {},
        "text": {"type": "string", "minLength": 1, "description": "not empty"},
    }
    assert Tool(find, name="other", description="Text.").schema["function"]["description"] == "Text."


def test_the_decorator() -> None:
    @tool
    def first() -> str:
        return "1"

    @tool(name="b", timeout=2)
    async def second() -> str:
        return "2"

    assert (first.name, first(), first.timeout) == ("first", "1", None)
    assert (second.name, second.timeout) == ("b", 2)


@dataclasses.dataclass
class Arguments:
    """Its name is that of the type which has the arguments of a tool."""

    x: int


async def test_names_of_types_and_parameters_do_not_matter() -> None:
    def give(given: Arguments, __private: int, argument_0: int, __struct_fields__: int = 4) -> list[int]:
        return [given.x, __private, argument_0, __struct_fields__]

    made = Tool(give)
    assert list(properties_of(made)) == ["given", "__private", "argument_0", "__struct_fields__"]
    assert await made.use('{"given": {"x": 1}, "__private": 2, "argument_0": 3}') == "[1,2,3,4]"
    assert (await made.use('{"given": {"x": 1}}')).endswith("Object missing required field `__private`")


def test_a_default_that_is_not_json_is_not_shown() -> None:
    def wait(at_most: float = math.inf, at_least: float = 1.5) -> None: ...

    assert properties_of(Tool(wait)) == {
        "at_most": {"type": "number"},
        "at_least": {"type": "number", "default": 1.5},
    }


def test_a_partial_function_has_the_docstring_of_its_function() -> None:
    function = Tool(functools.partial(weather, days=1), name="today").schema["function"]
    assert function["description"] == Tool(weather).description
    assert function["parameters"]["properties"]["place"]["description"] == "where, with its names"


class Adder:
    async def __call__(self, x: int) -> int:
        return x + 1


def test_functions_that_cannot_be_tools() -> None:
    def unknown(x: NotJson) -> None: ...

    def generator() -> Any:
        yield 1

    def positional(x: int, /) -> None: ...

    def local(x: Somewhere) -> None: ...  # noqa: F821

    def ambiguous(x: Place | Square) -> None: ...

    def half(x: str = "\ud83d") -> None: ...

    for fn, said in (
        (lambda x: x, r"tool '<lambda>': a name has 1 to 64 letters, digits, '_' and '-'"),
        (unknown, r"tool unknown: no JSON can become an argument: .*NotJson"),
        (generator, "a tool returns its result, and this one is a generator"),
        (positional, "arguments are given by name, so none is positional-only"),
        (local, r"its signature cannot be read: name 'Somewhere' is not defined; define its types at module level"),
        (ambiguous, r"tool ambiguous: no JSON can become an argument"),
        (half, "tool half: its texts and defaults cannot be sent as JSON: .* surrogates not allowed"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Tool(fn)


@dataclasses.dataclass
class Square:
    y: int


async def test_arguments_are_converted() -> None:
    made = Tool(weather)
    assert await made.use('{"place": {"lat": 1}}') == "Place(lat=1.0, names=[]) Unit.C 3 None"
    given = '{"place": {"lat": 1.5, "names": ["a"]}, "unit": "fahrenheit", "days": 1, "exact": true}'
    assert await made.use(given) == "Place(lat=1.5, names=['a']) Unit.F 1 True"
    assert await Tool(Adder(), name="add").use('{"x": 1}') == "2"
    assert await Tool(functools.partial(weather, place=Place(0)), name="here").use("{}") == (
        "Place(lat=0, names=[]) Unit.C 3 None"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"place": {"lat": "x"}}', "Expected `float`, got `str` - at `$.place.lat`"),
        ("{}", "Object missing required field `place`"),
        ('{"place": {"lat": 1}, "city": "Rome"}', "Object contains unknown field `city`"),
        ('{"place": {"la', "Input data was truncated"),
        ("[]", "Expected `object`, got `array`"),
        ('{"x": "\ud83d"}', "'utf-8' codec can't encode character '\\ud83d' in position 7: surrogates not allowed"),
    ],
)
async def test_bad_arguments_are_told(arguments: str, said: str) -> None:
    assert await Tool(weather).use(arguments) == f"Error: the arguments of weather are not valid: {said}"


async def test_arguments_that_are_nested_too_deep_are_told() -> None:
    said = await Tool(lambda value: "got it", name="take").use('{"value": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert said.startswith("Error: the arguments of take are not valid: maximum recursion depth exceeded")


async def test_results_become_text() -> None:
    async def give(what: str) -> Any:
        values = {
            "text": "as it is",
            "none": None,
            "place": Place(1.0, ["a"]),
            "set": {1},
            "other": NotJson,
            "half": "a\ud83d",
        }
        return values[what]

    async def of(what: str) -> str:
        return await Tool(give).use(f'{{"what": "{what}"}}')

    assert await of("text") == "as it is"
    assert await of("none") == "null"
    assert await of("place") == '{"lat":1.0,"names":["a"]}'
    assert await of("set") == "[1]"
    assert await of("other") == str(NotJson)
    assert await of("half") == "a?"


async def test_an_exception_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(kind: str) -> None:
        if kind == "group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail, "a")
                nursery.start_soon(fail, "b")
        raise ValueError(f"no {kind}")

    assert await Tool(fail).use('{"kind": "x"}') == "Error: fail failed: ValueError: no x"
    assert set((await Tool(fail).use('{"kind": "group"}')).removeprefix("Error: fail failed: ").split("; ")) == {
        "ValueError: no a",
        "ValueError: no b",
    }
    assert caplog.records[0].message == "tool fail failed"
    assert caplog.records[0].exc_info is not None


async def test_other_exceptions_are_not_for_the_model() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await Tool(leave).use("{}")


async def test_a_time_limit(autojump_clock: object) -> None:
    async def slow(seconds: float) -> str:
        await trio.sleep(seconds)
        return "done"

    made = Tool(slow, timeout=5)
    began = trio.current_time()
    assert await made.use('{"seconds": 60}') == "Error: slow took longer than 5 s and was stopped."
    assert trio.current_time() - began == 5
    assert await made.use('{"seconds": 4}') == "done"


async def test_an_outer_limit_is_shorter(autojump_clock: object) -> None:
    """The tool does not take the end of the scope around it for its own."""
    with trio.move_on_after(2) as outer:
        await Tool(trio.sleep_forever, name="forever", timeout=5).use("{}")
    assert outer.cancelled_caught
    assert trio.current_time() == pytest.approx(2)


def worker() -> str:
    """Work in a thread."""
    return threading.current_thread().name


async def test_a_sync_tool_runs_in_a_thread() -> None:
    assert await Tool(worker).use("{}") != threading.current_thread().name


async def test_a_sync_tool_sees_its_time_limit() -> None:
    def busy() -> str:
        while True:
            trio.from_thread.check_cancelled()
            time.sleep(0.01)

    with trio.fail_after(5):
        said = await Tool(busy, timeout=0.1).use("{}")
    assert said == "Error: busy took longer than 0.1 s and was stopped."
