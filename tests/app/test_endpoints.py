"""`@app.endpoint`: kinds of functions, arguments by annotation, answers."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import json
import re
import threading
import typing
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal, NewType, Optional

import attrs
import msgspec
import pydantic
import pytest
import trio
from quart import Request, Response

from trio_agentapp import AgentApp, AgentRequest, Message, TextContent
from trio_agentapp.endpoints.views import MAX_ENDPOINT_THREADS
from trio_agentapp.errors import ConfigurationError, Forbidden, MalformedBody, ValidationError

from .conftest import Served, post

UserId = NewType("UserId", str)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Number(enum.IntEnum):
    ONE = 1


@attrs.define
class Item:
    name: str
    price: float
    tags: list[str] = attrs.field(factory=list)
    colour: Colour | None = None


@attrs.define
class Tree:
    value: int
    below: list[Tree] = attrs.field(factory=list)


@attrs.define
class Positive:
    number: int = attrs.field(validator=attrs.validators.gt(0))
    word: str = attrs.field(default="a")

    @word.validator
    def _check(self, _attribute: Any, value: str) -> None:
        if value == "bad":
            raise ValueError("must not be bad")


@dataclasses.dataclass
class Line:
    item: Item
    when: datetime.datetime
    amount: decimal.Decimal = decimal.Decimal(1)
    ids: set[int] = dataclasses.field(default_factory=set)
    place: tuple[float, float] = (0.0, 0.0)
    more: dict[str, int] = dataclasses.field(default_factory=dict)
    kind: Literal["a", 1] = "a"
    either: int | str | list[int] = 0


class Struct(msgspec.Struct):
    a: int
    b: str = "b"


class Model(pydantic.BaseModel):
    a: int
    below: list[Model] = []
    alias: str = pydantic.Field("x", alias="theAlias")


@pydantic.dataclasses.dataclass
class PydanticData:
    a: int


@dataclasses.dataclass
class Mixed:
    model: Model
    struct: Struct | None = None


class Options(typing.TypedDict, total=False):
    depth: typing.Required[int]
    words: list[str]


async def ask(app: AgentApp, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
    """One request to a running app: status and JSON."""
    async with app.runtime():
        return await post(app.test_client(), path, body, **options)


def faults(answer: tuple[int, Any]) -> dict[str, str]:
    status, problem = answer
    assert (status, problem["code"]) == (422, "validation_error"), answer
    return {fault["loc"]: fault["msg"] for fault in problem["errors"]}


# Kinds of functions.


async def test_kinds_of_functions() -> None:
    app = AgentApp()
    loop_thread = threading.get_ident()

    @app.endpoint("/sync")
    def sync() -> dict[str, bool]:
        return {"in_thread": threading.get_ident() != loop_thread}

    @app.endpoint("/coroutine")
    async def coroutine() -> dict[str, bool]:
        await trio.lowlevel.checkpoint()
        return {"in_thread": threading.get_ident() != loop_thread}

    app.endpoint("/lambda")(lambda: coroutine())
    app.endpoint("/partial")(functools.partial(coroutine))

    class Callable_:
        async def __call__(self) -> list[int]:
            return [1]

        async def method(self, x: int) -> int:
            return x

    app.endpoint("/object")(Callable_())
    app.endpoint("/method")(Callable_().method)
    async with app.runtime():
        client = app.test_client()
        assert await post(client, "/sync") == (200, {"in_thread": True})
        assert await post(client, "/coroutine") == (200, {"in_thread": False})
        assert await post(client, "/lambda") == (200, {"in_thread": False})
        assert await post(client, "/partial") == (200, {"in_thread": False})
        assert await post(client, "/object") == (200, [1])
        assert await post(client, "/method?x=3") == (200, 3)


async def test_generators_stream() -> None:
    app = AgentApp()

    @app.endpoint("/async")
    async def numbers(count: int = 2) -> AsyncIterator[str]:
        for number in range(count):
            yield f"number: {number}\n"

    @app.endpoint("/sync", methods=["GET", "POST"])
    def sync() -> Iterator[int]:
        yield 1

    @app.endpoint("/made")
    async def made(right: bool) -> AsyncIterator[str]:
        if not right:
            raise Forbidden("No stream for you.")
        return numbers(1)

    @app.endpoint("/iterable")
    async def iterable() -> Any:
        send, receive = trio.open_memory_channel[int](3)
        for number in range(3):
            send.send_nowait(number)
        send.close()
        return receive

    async with app.runtime():
        client = app.test_client()
        answer = await client.post("/async?count=3")
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache, no-transform"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert await answer.get_data() == b"".join(b'data: "number: %d\\n"\n\n' % number for number in range(3))
        assert await (await client.get("/sync")).get_data() == b"data: 1\n\n"
        head = await client.head("/sync")
        assert (head.status_code, await head.get_data()) == (200, b"")
        assert head.headers["Content-Type"].startswith("text/event-stream")
        assert (await client.post("/async?count=x")).status_code == 422
        # What is raised before there is a generator is an ordinary refusal.
        assert (await client.post("/made?right=0")).status_code == 403
        assert await (await client.post("/made?right=1")).get_data() == b'data: "number: 0\\n"\n\n'
        assert await (await client.post("/iterable")).get_data() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


async def test_answers() -> None:
    app = AgentApp()
    results: list[Any] = [
        None,
        5,
        "text",
        (1, 2),
        {1, 2},
        Item("a", 1),
        [Line(Item("b", 2), datetime.datetime.max)],
    ]

    @app.endpoint("/result")
    async def result(number: int) -> Any:
        return results[number]

    @app.endpoint("/response")
    async def response() -> Response:
        return Response("mine", status=201, content_type="text/plain")

    @app.endpoint("/unspeakable")
    async def unspeakable() -> object:
        return object()

    async with app.runtime():
        client = app.test_client()
        assert await post(client, "/result?number=0") == (200, None)
        assert await post(client, "/result?number=1") == (200, 5)
        assert await post(client, "/result?number=2") == (200, "text")
        assert await post(client, "/result?number=3") == (200, [1, 2])
        assert await post(client, "/result?number=4") == (200, [1, 2])
        assert (await post(client, "/result?number=5"))[1]["price"] == 1
        assert (await post(client, "/result?number=6"))[1][0]["when"] == "9999-12-31T23:59:59.999999"
        own = await client.post("/response")
        assert (own.status_code, await own.get_data()) == (201, b"mine")
        status, problem = await post(client, "/unspeakable")
        assert (status, problem["code"]) == (500, "internal")
        assert "object" not in problem["detail"]


async def test_synchronous_functions_are_bounded_and_do_not_hold_the_loop() -> None:
    assert MAX_ENDPOINT_THREADS == 200
    app = AgentApp()
    go = threading.Event()
    running = threading.Semaphore(0)

    @app.endpoint("/wait")
    def wait() -> str:
        running.release()
        go.wait(10)
        return "done"

    @app.endpoint("/quick")
    async def quick() -> str:
        return "quick"

    async with app.runtime(), trio.open_nursery() as nursery:
        client = app.test_client()
        # More than Trio's own limit, which other things share.
        for _ in range(60):
            nursery.start_soon(post, client, "/wait")
        with trio.fail_after(10):
            for _ in range(60):
                await trio.to_thread.run_sync(running.acquire)
        assert await post(client, "/quick") == (200, "quick")
        go.set()


async def test_context_variables_reach_threads() -> None:
    from quart import request

    app = AgentApp()

    @app.endpoint("/header")
    def header() -> str | None:
        return request.headers.get("X-Thing")

    assert await ask(app, "/header", headers={"X-Thing": "it"}) == (200, "it")


# Arguments.


async def test_scalars_from_the_query() -> None:
    app = AgentApp()

    @app.endpoint("/scalars", methods=["GET", "POST"])
    async def scalars(
        s: str,
        i: int,
        f: float,
        b: bool,
        c: Colour,
        n: Number,
        lit: Literal["a", 2],
        u: uuid.UUID,
        d: datetime.date,
        dt: datetime.datetime,
        t: datetime.time,
        dec: decimal.Decimal,
        either: int | str,
        text_first: str | int,
        new: UserId,
        maybe: int | None,
        old: Optional[str] = None,  # noqa: UP045
        default: int = 7,
    ) -> dict[str, Any]:
        return {name: [value, type(value).__name__] for name, value in locals().items()}

    query = (
        "s=&i=-5&f=1e3&b=yes&c=red&n=1&lit=2&u=12345678-1234-5678-1234-567812345678&d=2030-01-02&t=03:04"
        "&dt=2030-01-02T03:04:05Z&dec=1.10&either=x&text_first=5&new=u1"
    )
    status, found = await ask(app, f"/scalars?{query}")
    assert status == 200
    assert found == {
        "s": ["", "str"],
        "i": [-5, "int"],
        "f": [1000.0, "float"],
        "b": [True, "bool"],
        "c": ["red", "Colour"],
        "n": [1, "Number"],
        "lit": [2, "int"],
        "u": ["12345678-1234-5678-1234-567812345678", "UUID"],
        "d": ["2030-01-02", "date"],
        "dt": ["2030-01-02T03:04:05+00:00", "datetime"],
        "t": ["03:04:00", "time"],
        "dec": ["1.10", "Decimal"],
        "either": ["x", "str"],
        "text_first": ["5", "str"],
        "new": ["u1", "str"],
        "maybe": [None, "NoneType"],
        "old": [None, "NoneType"],
        "default": [7, "int"],
    }
    wrong = faults(
        await ask(app, "/scalars?i=1.5&f=inf&b=maybe&c=green&n=2&lit=b&u=1&d=x&dt=x&t=x&dec=nan&default=")
    )
    assert wrong == {
        "query.s": "is required",
        "query.i": "must be a whole number",
        "query.f": "must be a number",
        "query.b": "must be true or false",
        "query.c": "must be one of red, blue",
        "query.n": "must be one of 1",
        "query.lit": "must be one of a, 2",
        "query.u": "must be a UUID",
        "query.d": "must be a date (ISO 8601)",
        "query.dt": "must be a date and time (ISO 8601)",
        "query.t": "must be a time (ISO 8601)",
        "query.dec": "must be a number",
        "query.either": "is required",
        "query.text_first": "is required",
        "query.new": "is required",
        "query.default": "must be a whole number",
    }
    assert faults(await ask(app, f"/scalars?{query}&i=6"))["query.i"] == "is given 2 times"
    assert faults(await ask(app, f"/scalars?{query}&default={'9' * 5000}")) == {
        "query.default": "must be a whole number"
    }


async def test_lists_of_scalars_from_a_repeated_query_parameter() -> None:
    app = AgentApp()

    @app.endpoint("/lists")
    async def lists(
        ids: list[int], words: set[str] = frozenset(), both: tuple[float, ...] = (), maybe: list[str] | None = None
    ) -> list[Any]:
        return [ids, sorted(words), both, maybe]

    assert await ask(app, "/lists?ids=1&ids=2&words=a&words=a&both=1&maybe=m") == (
        200,
        [[1, 2], ["a"], [1.0], ["m"]],
    )
    assert await ask(app, "/lists?ids=1") == (200, [[1], [], [], None])
    assert faults(await ask(app, "/lists?both=x")) == {"query.ids": "is required", "query.both": "must be a number"}


async def test_paths() -> None:
    app = AgentApp()

    @app.endpoint("/a/{number}/<word>/{rest:path}", methods=["GET"])
    async def a(number: int, word: Colour, rest: str, q: str = "q") -> list[Any]:
        return [number, word, rest, q]

    @app.endpoint("/b/{number:int}/{bare}", methods=["GET"])
    async def b(number: int, bare) -> list[Any]:  # type: ignore[no-untyped-def]
        return [number, bare]

    async with app.runtime():
        client = app.test_client()
        assert await (await client.get("/a/-5/red/x/y?q=z")).get_json() == [-5, "red", "x/y", "z"]
        answer = await client.get("/a/x/green/x")
        assert faults((answer.status_code, await answer.get_json())) == {
            "path.number": "must be a whole number",
            "path.word": "must be one of red, blue",
        }
        assert await (await client.get("/b/5/x")).get_json() == [5, "x"]
        assert (await client.get("/b/x/x")).status_code == 404


async def test_models_of_every_library() -> None:
    app = AgentApp()

    @app.endpoint("/attrs")
    async def of_attrs(it: Item) -> Any:
        return [type(it).__name__, it]

    @app.endpoint("/tree")
    async def tree(it: Tree) -> Any:
        return it

    @app.endpoint("/dataclass")
    async def of_dataclass(it: Line) -> Any:
        return [type(it.ids).__name__, type(it.place).__name__, it]

    @app.endpoint("/struct")
    async def struct(it: Struct) -> Any:
        return [type(it).__name__, it]

    @app.endpoint("/pydantic")
    async def of_pydantic(it: Model) -> Any:
        return [type(it).__name__, it]

    @app.endpoint("/pydantic_data")
    async def pydantic_data(it: PydanticData) -> Any:
        return [type(it).__name__, it]

    @app.endpoint("/mixed")
    async def mixed(it: Mixed) -> Any:
        return [type(it.model).__name__, type(it.struct).__name__]

    @app.endpoint("/typed")
    async def typed(it: Options) -> Any:
        return it

    @app.endpoint("/lists")
    async def lists(it: list[Item]) -> Any:
        return [each.name for each in it]

    @app.endpoint("/models")
    async def models(it: dict[str, Model]) -> Any:
        return {name: each.a for name, each in it.items()}

    @app.endpoint("/either")
    async def either(it: Item | Tree | None = None) -> Any:
        return type(it).__name__

    async with app.runtime():
        client = app.test_client()
        assert await post(client, "/attrs", {"name": "a", "price": 1, "colour": "red", "unknown": 1}) == (
            200,
            ["Item", {"name": "a", "price": 1, "tags": [], "colour": "red"}],
        )
        grown = {"value": 1, "below": [{"value": 2, "below": []}]}
        assert await post(client, "/tree", grown) == (200, grown)
        line = {
            "item": {"name": "a", "price": 1.5},
            "when": "2030-01-02T03:04:05Z",
            "amount": "1.10",
            "ids": [1, 1],
            "place": [1, 2],
            "more": {"x": 1},
            "kind": 1,
            "either": [1],
        }
        status, (ids, place, found) = await post(client, "/dataclass", line)
        assert (status, ids, place) == (200, "set", "tuple")
        assert found == {
            **line,
            "item": {"name": "a", "price": 1.5, "tags": [], "colour": None},
            "when": "2030-01-02T03:04:05+00:00",
            "ids": [1],
        }
        assert await post(client, "/struct", {"a": 1}) == (200, ["Struct", {"a": 1, "b": "b"}])
        assert await post(client, "/pydantic", {"a": "1", "theAlias": "y"}) == (
            200,
            ["Model", {"a": 1, "below": [], "theAlias": "y"}],
        )
        assert await post(client, "/pydantic_data", {"a": 1}) == (200, ["PydanticData", {"a": 1}])
        assert await post(client, "/mixed", {"model": {"a": 1}, "struct": {"a": 2}}) == (200, ["Model", "Struct"])
        assert await post(client, "/typed", {"depth": 1, "words": ["a"]}) == (200, {"depth": 1, "words": ["a"]})
        assert await post(client, "/lists", [{"name": "a", "price": 1}]) == (200, ["a"])
        assert await post(client, "/models", {"x": {"a": 1}}) == (200, {"x": 1})
        assert await post(client, "/either", {"name": "a", "price": 1}) == (200, "Item")
        assert await post(client, "/either", {"value": 1}) == (200, "Tree")
        assert await post(client, "/either", data=b"null") == (200, "NoneType")

        for body, place, message in (
            ({"price": 1}, "$.name", "is required"),
            ({"name": "a", "price": "1"}, "$.price", "must be a number, not a string"),
            ({"name": "a", "price": 1, "tags": ["a", 1]}, "$.tags[1]", "must be a string, not a number"),
            ({"name": "a", "price": 1, "colour": "green"}, "$.colour", "must be one of red, blue"),
            ({"name": "a", "price": 1, "colour": 5}, "$.colour", "must be a string or null, not a number"),
        ):
            assert faults(await post(client, "/attrs", body)) == {place: message}
        for body, place, message in (
            ({"value": 1, "below": [{"value": True}]}, "$.below[0].value", "must be an integer, not a boolean"),
            ({"value": 1, "below": [{"value": 1}, {"below": []}]}, "$.below[1].value", "is required"),
            (
                {"value": 1, "below": [{"value": 1, "below": "x"}]},
                "$.below[0].below",
                "must be a list, not a string",
            ),
        ):
            assert faults(await post(client, "/tree", body)) == {place: message}
        for wrong, place, message in (
            ({"item": []}, "$.item", "must be an object, not a list"),
            ({"when": 5}, "$.when", "must be a date and time (ISO 8601), not a number"),
            ({"when": "now"}, "$.when", "must be a date and time (ISO 8601)"),
            ({"amount": {}}, "$.amount", "must be a number, not an object"),
            ({"amount": "NaN"}, "$.amount", "must be a finite number"),
            ({"amount": "x"}, "$.amount", "must be a number"),
            ({"ids": "12"}, "$.ids", "must be a list, not a string"),
            ({"place": [1]}, "$.place", "must have 2 items, not 1"),
            ({"more": {"a": 1, "x": "y", "b": 2}}, "$.more.x", "must be an integer, not a string"),
            ({"kind": 2}, "$.kind", "must be one of a, 1"),
            ({"either": 1.5}, "$.either", "must be an integer, a string or a list, not a number"),
        ):
            assert faults(await post(client, "/dataclass", {**line, **wrong})) == {place: message}
        assert set(faults(await post(client, "/struct", {"a": "1"}))) == {"$.a"}
        assert set(faults(await post(client, "/pydantic", {"below": [{"a": "x"}]}))) == {"$.a", "$.below[0].a"}
        assert set(faults(await post(client, "/mixed", {"model": {"a": "x"}}))) == {"$.model.a"}
        assert set(faults(await post(client, "/mixed", {"model": {"a": 1}, "struct": {"a": "x"}}))) == {
            "$.struct.a"
        }
        assert faults(await post(client, "/typed", {"words": []})) == {"$.depth": "is required"}
        assert faults(await post(client, "/typed", {"depth": 1, "words": [1]})) == {
            "$.words[0]": "must be a string, not a number"
        }
        assert faults(await post(client, "/lists", {"name": "a"})) == {"$": "must be a list, not an object"}
        assert set(faults(await post(client, "/models", {"x": {}, "y": 1}))) == {"$.x.a", "$.y"}
        assert faults(await post(client, "/lists", [{}] * 500)) == {"$[0].name": "is required"}
        status, problem = await post(client, "/either", {"word": 1})
        assert (status, problem["errors"]) == (
            422,
            [{"loc": "$", "msg": "fits none of the allowed types: $.name is required; $.value is required"}],
        )


async def test_whole_numbers_are_exact_or_refused() -> None:
    app = AgentApp()

    @app.endpoint("/numbers", methods=["GET", "POST"])
    async def numbers(number: int = 0, many: tuple[int, ...] = ()) -> Any:
        return [str(number), *map(str, many)]

    @app.endpoint("/body")
    async def body(it: dict[str, int]) -> Any:
        return it

    async with app.runtime():
        client = app.test_client()
        for digits in (str(2**64), "9007199254740993", "-" + "7" * 30, "1" * 4000):
            answer = await client.get(f"/numbers?number={digits}&many={digits}")
            if answer.status_code == 200:
                assert await answer.get_json() == [digits, digits]
            else:
                assert set(faults((answer.status_code, await answer.get_json()))) == {"query.number", "query.many"}
        for text in ("1e30", "9007199254740993.0", "nan"):
            assert set(faults(await post(client, f"/numbers?number={text}"))) == {"query.number"}
        assert await post(client, "/body", data=b'{"x": 9007199254740993}') == (200, {"x": 9007199254740993})
        assert set(faults(await post(client, "/body", data=b'{"x": 18446744073709551616}'))) == {"$"}


async def test_validators_of_the_users() -> None:
    app = AgentApp()

    @app.endpoint("/positive")
    async def positive(it: Positive) -> Any:
        return it

    found = faults(await ask(app, "/positive", {"number": 1, "word": "bad"}))
    assert found == {"$": "must not be bad"}
    status, problem = await ask(app, "/positive", {"number": 0})
    assert status == 422
    assert "Attribute" not in json.dumps(problem)


@dataclasses.dataclass
class Constrained:
    percents: list[Annotated[int, pydantic.Field(ge=0, le=100)]]
    word: Annotated[str, msgspec.Meta(max_length=3)] = "a"


async def test_constraints_are_obeyed() -> None:
    app = AgentApp()

    @app.endpoint("/constrained")
    async def constrained(
        percent: Annotated[int, pydantic.Field(ge=0, le=100)],
        word: Annotated[str, msgspec.Meta(max_length=3)] = "a",
        told: Annotated[int, "words for people"] = 1,
        least: Annotated[int, msgspec.Meta(ge=0)] | None = None,
        each: list[Annotated[int, msgspec.Meta(lt=3)]] = [],  # noqa: B006
    ) -> list[Any]:
        return [percent, word, told, least, each]

    @app.endpoint("/body")
    async def body(it: dict[str, Annotated[int, msgspec.Meta(ge=0)] | None]) -> Any:
        return it

    @app.endpoint("/fields")
    async def fields(it: Constrained) -> Any:
        return it

    assert await ask(app, "/fields", {"percents": [1], "word": "a"}) == (200, {"percents": [1], "word": "a"})
    assert set(faults(await ask(app, "/fields", {"percents": [1, 101]}))) == {"$.percents[1]"}
    assert set(faults(await ask(app, "/fields", {"percents": [], "word": "abcd"}))) == {"$.word"}
    assert await ask(app, "/constrained?percent=5&word=abc&told=2&least=1&each=1&each=2") == (
        200,
        [5, "abc", 2, 1, [1, 2]],
    )
    found = faults(await ask(app, "/constrained?percent=101&word=abcd&least=-1&each=3"))
    assert set(found) == {"query.percent", "query.word", "query.least", "query.each[0]"}
    assert found["query.word"] == "must be a string of length <= 3"
    assert faults(await ask(app, "/body", {"a": 1, "b": -1})) == {"$.b": "must be an integer >= 0"}


class Mixture(enum.Enum):
    ONE = 1
    WORD = "word"


@attrs.define
class Made:
    word: str = attrs.field(converter=str.upper)
    _private: int = 1
    twice: int = attrs.field()
    owner: str = attrs.field(init=False, default="nobody")

    @twice.default
    def _(self) -> int:
        return 2 * self._private


@dataclasses.dataclass
class Composed:
    message: Message
    content: TextContent
    mixture: Mixture
    wait: datetime.timedelta
    either: list[Item | Tree]
    start: dataclasses.InitVar[int]
    owner: str = dataclasses.field(init=False, default="nobody")
    shared: typing.ClassVar[int] = 1

    def __post_init__(self, start: int) -> None:
        self.started = start


async def test_classes_are_made_by_their_own_init() -> None:
    """So converters run, and no client sets what `__init__` does not take."""
    app = AgentApp()

    @app.endpoint("/made")
    async def made(it: list[Made]) -> Any:
        return it

    @app.endpoint("/composed")
    async def composed(it: Composed, mixture: Mixture = Mixture.ONE) -> Any:
        kinds = [type(each).__name__ for each in (it.message, it.content, it.either[0], it.either[1])]
        return [*kinds, it.mixture, it.wait, it.started, it.owner, Composed.shared, mixture]

    body = {
        "message": {"content": "a"},
        "content": {"type": "text", "text": "b"},
        "mixture": 1,
        "wait": 1.5,
        "either": [{"value": 1}, {"name": "a", "price": 1}],
        "start": 5,
        "owner": "me",
        "shared": 2,
    }
    async with app.runtime():
        client = app.test_client()
        sent = [{"word": "a", "_private": 3, "owner": "me"}]
        assert await post(client, "/made", sent) == (
            200,
            [{"word": "A", "_private": 3, "twice": 6, "owner": "nobody"}],
        )
        assert faults(await post(client, "/made", [{"word": 5}])) == {"$[0].word": "must be a string, not a number"}
        expected = ["Message", "TextContent", "Tree", "Item", 1, 1.5, 5, "nobody", 1]
        assert await post(client, "/composed?mixture=word", body) == (200, [*expected, "word"])
        for wrong, place in (
            ({"message": {"role": "x", "content": ""}}, "$.message.role"),
            ({"content": {"type": "data", "data": 1}}, "$.content.type"),
            ({"mixture": "1"}, "$.mixture"),
            ({"wait": "soon"}, "$.wait"),
            ({"either": [{"value": "x"}]}, "$.either[0]"),
        ):
            assert set(faults(await post(client, "/composed", {**body, **wrong}))) == {place}


async def test_classes_of_the_protocol_within_lists_and_unions() -> None:
    app = AgentApp()

    @app.endpoint("/messages")
    async def messages(them: list[Message]) -> Any:
        return [message.text for message in them]

    @app.endpoint("/either")
    async def either(it: Message | list[Item] | None) -> Any:
        return type(it).__name__

    async with app.runtime():
        client = app.test_client()
        assert await post(
            client, "/messages", [{"content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}]
        ) == (200, ["a", "b"])
        found = faults(
            await post(client, "/messages", [{"content": "a"}, {"role": "x", "content": [{"type": "text"}]}])
        )
        assert set(found) == {"$[1].role", "$[1].content[0].text"}
        assert await post(client, "/either", {"content": "a"}) == (200, "Message")
        assert await post(client, "/either", [{"name": "a", "price": 1}]) == (200, "list")
        assert await post(client, "/either", data=b"null") == (200, "NoneType")


async def test_plain_bodies() -> None:
    app = AgentApp()

    @app.endpoint("/dict")
    async def of_dict(data: dict) -> Any:  # type: ignore[type-arg]
        return data

    @app.endpoint("/list")
    async def of_list(data: list) -> Any:  # type: ignore[type-arg]
        return data

    @app.endpoint("/any")
    async def of_any(data: Any) -> Any:
        return data

    @app.endpoint("/bare")
    async def bare(data):  # type: ignore[no-untyped-def]
        return data

    @app.endpoint("/kwargs")
    async def kwargs(data, *args, **kwargs):  # type: ignore[no-untyped-def]
        return [data, args, kwargs]

    @app.endpoint("/default")
    async def default(data: dict[str, int] | None = None, limit: int = 5) -> Any:
        return [data, limit]

    @app.endpoint("/text", methods=["GET"])
    async def text(word, more="m"):  # type: ignore[no-untyped-def]
        return [word, more]

    async with app.runtime():
        client = app.test_client()
        assert await post(client, "/dict", {"a": 1}) == (200, {"a": 1})
        assert faults(await post(client, "/dict", [1])) == {"$": "must be an object, not a list"}
        assert await post(client, "/list", [1, "a"]) == (200, [1, "a"])
        assert faults(await post(client, "/list", {})) == {"$": "must be a list, not an object"}
        for path in ("/any", "/bare"):
            for value in (None, 1, "x", [1], {"a": None}):
                assert await post(client, path, data=json.dumps(value).encode()) == (200, value)
        assert await post(client, "/kwargs", {"x": 1}) == (200, [{"x": 1}, [], {}])
        assert await post(client, "/default?limit=6", {"a": 1}) == (200, [{"a": 1}, 6])
        empty = await client.post("/default")
        assert await empty.get_json() == [None, 5]
        assert await (await client.get("/text?word=w")).get_json() == ["w", "m"]
        assert (await client.get("/text")).status_code == 422


async def post_raw(client: Any, path: str, data: bytes, content_type: str) -> Any:
    return await client.post(path, data=data, headers={"Content-Type": content_type})


async def test_several_bodies_are_members_of_an_object() -> None:
    app = AgentApp()

    @app.endpoint("/several")
    async def several(item: Item, request: AgentRequest, data, note: dict | None = None) -> Any:  # type: ignore[no-untyped-def, type-arg]
        return [item.name, request.user_id, data, note]

    whole = {"item": {"name": "a", "price": 1}, "request": {"user_id": "u1"}, "data": [1]}
    assert await ask(app, "/several", whole) == (200, ["a", "u1", [1], None])
    found = faults(await ask(app, "/several", {"item": {"price": 1}, "request": {"user_id": 5}, "note": []}))
    assert found == {
        "$.item.name": "is required",
        "$.request.user_id": "must be a string, not a number",
        "$.data": "is required",
        "$.note": "must be an object or null, not a list",
    }
    assert faults(await ask(app, "/several", [])) == {"$": "must be an object, not a list"}


async def test_agent_request_and_quart_request() -> None:
    app = AgentApp()

    @app.endpoint("/agent")
    async def agent(request: AgentRequest) -> Any:
        return [request.user_id, [message.text for message in request.input], request.extra]

    @app.endpoint("/quart/{name}")
    async def quart(request: Request, name: str) -> Any:
        return [request.method, request.path, name, (await request.get_data()).decode()]

    async with app.runtime():
        client = app.test_client()
        assert await post(client, "/agent", {"user_id": "u1", "x": 1}) == (200, ["u1", [], {"x": 1}])
        asked = {"input": [{"role": "user", "content": "hi"}]}
        assert await post(client, "/agent", asked) == (200, [None, ["hi"], {}])
        assert set(faults(await post(client, "/agent", {"user_id": 1, "input": 5}))) == {"$.user_id", "$.input"}
        assert await post(client, "/quart/x", data=b"raw") == (200, ["POST", "/quart/x", "x", "raw"])


async def test_faults_of_a_body() -> None:
    app = AgentApp(max_body_bytes=1000)

    @app.endpoint("/body")
    async def body(data: dict, limit: int = 1) -> Any:  # type: ignore[type-arg]
        return data

    async with app.runtime():
        client = app.test_client()
        for data, content_type, status, code in (
            (b"{", "application/json", 400, "malformed_body"),
            (b'{"a": NaN}', "application/json", 400, "malformed_body"),
            (b"{}", "text/plain", 415, "unsupported_media_type"),
            (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
            (b"", "application/json", 422, "validation_error"),
            (b" ", "application/x-www-form-urlencoded", 422, "validation_error"),
            (b"null", "application/json", 422, "validation_error"),
            (b'{"a": "' + b"x" * 1000 + b'"}', "application/json", 413, "payload_too_large"),
        ):
            answer = await post_raw(client, "/body", data, content_type)
            assert (answer.status_code, (await answer.get_json())["code"]) == (status, code), data
        for content_type in ("application/json; charset=utf-8", "application/merge-patch+json"):
            assert (await post_raw(client, "/body", b"{}", content_type)).status_code == 200
        both = await client.post("/body?limit=x", data=b"[]")
        assert set(faults((both.status_code, await both.get_json()))) == {"$", "query.limit"}


async def test_models_made_inside_of_a_function() -> None:
    """Under `from __future__ import annotations` their names are text; a function has those that it uses."""

    @attrs.define
    class Inner:
        a: int

    @dataclasses.dataclass
    class Outer:
        inner: Inner

    app = AgentApp()

    @app.endpoint("/used")
    async def used(it: Inner) -> Any:
        return isinstance(it, Inner)

    assert await ask(app, "/used", {"a": 1}) == (200, True)

    async def unused(it: Inner) -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"unused: .*'it'.*'Inner' is not defined; define the class at module"
    ):
        app.endpoint("/unused")(unused)

    async def within(it: Outer) -> Any:
        return isinstance(it, Outer)

    with pytest.raises(
        ConfigurationError, match=r"within: .*'it'.*'Inner' is not defined; define the class at module"
    ):
        app.endpoint("/within")(within)


async def test_decorated_functions_keep_their_parameters() -> None:
    app = AgentApp()

    def logged(fn: Any) -> Any:
        @functools.wraps(fn)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            return ["logged", await fn(*args, **kwargs)]

        return inner

    @app.endpoint("/logged")
    @logged
    async def it(item: Item, x: int) -> Any:
        return [item.name, x]

    assert await ask(app, "/logged?x=1", {"name": "a", "price": 1}) == (200, ["logged", ["a", 1]])


# Registration.


class Foreign:
    pass


@dataclasses.dataclass
class WithForeign:
    foreign: Foreign


class Unfinished(pydantic.BaseModel):
    other: NotThere  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Foreign, "Foreign"),
        (WithForeign, "Foreign"),
        (list[Foreign], "Foreign"),
        (dict[str, Foreign], "Foreign"),
        (Foreign | None, "Foreign"),
        (bytes, r"quart\.Request"),
        (complex, "complex"),
        (threading.Event, "Event"),
        ("NotThere", "cannot be resolved: name 'NotThere' is not defined"),
        (typing.Iterable[Foreign], "Foreign"),
        (Unfinished, "NotThere"),
        (Annotated[int, type("Query", (), {"__module__": "fastapi.params"})()], "Query of FastAPI"),
    ],
    # Not the object's address, which no two processes share.
    ids=lambda value: re.sub(r" object at 0x[0-9a-f]+", "", str(value)),
)
def test_what_cannot_be_served_is_told_at_once(annotation: Any, words: str) -> None:
    app = AgentApp()

    def view(good: int, thing: Any) -> None: ...

    view.__annotations__["thing"] = annotation
    with pytest.raises(ConfigurationError, match=words) as caught:
        app.endpoint("/view")(view)
    assert "view" in str(caught.value)
    assert "'thing'" in str(caught.value)
    with pytest.raises(ConfigurationError, match=words):
        app.post("/native")(view)


def test_registration_says_what_is_wrong() -> None:
    app = AgentApp()

    def positional(x: int, /) -> None: ...

    def in_path(item: Item) -> None: ...

    with pytest.raises(ConfigurationError, match="'x' is positional-only"):
        app.endpoint("/x")(positional)
    with pytest.raises(ConfigurationError, match="'item' cannot be served"):
        app.endpoint("/x/{item}")(in_path)
    with pytest.raises(ConfigurationError, match="begins with '/'"):
        app.endpoint("x")(lambda: 1)
    app.endpoint("/y/{z}")(lambda z: z)
    app.endpoint("/y/{z}", methods=["GET"])(lambda z: z)
    with pytest.raises(ConfigurationError, match=r"POST /y/\{z\} has a view already"):
        app.endpoint("/y/{z}", methods=["POST", "PUT"])(lambda z: z)
    with pytest.raises(ConfigurationError, match="begins with '/'"):
        app.endpoint(in_path)  # type: ignore[arg-type]


async def test_the_decorator_gives_the_function_back() -> None:
    app = AgentApp()

    @app.endpoint("/one")
    @app.endpoint("/two", methods="put")
    async def same(x: int = 1) -> int:
        return x

    @app.endpoint("/three")
    async def other() -> int:
        return await same(3)

    other_same = app.endpoint("/four")(lambda: 4)
    assert other_same() == 4
    async with app.runtime():
        client = app.test_client()
        assert await post(client, "/one?x=2") == (200, 2)
        assert await (await client.put("/two")).get_json() == 1
        assert (await client.post("/two")).status_code == 405
        assert await post(client, "/three") == (200, 3)
        assert await post(client, "/four") == (200, 4)


async def test_errors_of_functions(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    app = AgentApp()

    @app.endpoint("/fail")
    async def fail() -> None:
        raise LookupError("secret")

    @app.endpoint("/refuse")
    def refuse(kind: str) -> None:
        raise {"body": MalformedBody("Not like this."), "value": ValidationError([("$.x", "is odd")])}[kind]

    async with served(app) as client:
        status, problem = await post(client, "/fail")
        assert (status, problem["code"]) == (500, "internal")
        assert "secret" not in json.dumps(problem)
        status, problem = await post(client, "/refuse?kind=body")
        assert (status, problem["detail"]) == (400, "Not like this.")
        status, problem = await post(client, "/refuse?kind=value")
        assert problem["errors"] == [{"loc": "$.x", "msg": "is odd"}]
