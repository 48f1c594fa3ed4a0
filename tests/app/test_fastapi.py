"""What only FastAPI would fill is refused where a function is registered: nothing of it is ignored."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, NewType, Optional, TypedDict, TypeVar

import attrs
import fastapi
import msgspec
import pydantic
import pytest
import starlette.requests
import starlette.responses
from quart import Blueprint
from quart.views import MethodView

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError

if TYPE_CHECKING:
    from somewhere import User  # type: ignore[import-not-found]


def guard() -> str:
    raise fastapi.HTTPException(401)


T = TypeVar("T")
Guarded = Annotated[str, fastapi.Depends(guard)]
Generic = Annotated[T, fastapi.Depends(guard)]


def _shown(value: object) -> str:
    """A name for a test that is the same in every process: without the addresses of objects."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


REGISTER: dict[str, Callable[[Any], Any]] = {
    "query": lambda fn: AgentApp().query()(fn),
    "query, bare": lambda fn: AgentApp().query(fn),
    "agent": lambda fn: AgentApp(agent=fn),
    "task": lambda fn: AgentApp().task("/t")(fn),
    "endpoint": lambda fn: AgentApp().endpoint("/e")(fn),
    "get": lambda fn: AgentApp().get("/g")(fn),
    "post": lambda fn: AgentApp().post("/p")(fn),
    "route": lambda fn: AgentApp().route("/r", methods=["PUT"])(fn),
    "websocket": lambda fn: AgentApp().websocket("/w")(fn),
    "add_url_rule": lambda fn: AgentApp().add_url_rule("/u", view_func=fn),
    "before_start": lambda fn: AgentApp(before_start=fn),
    "after_finish": lambda fn: AgentApp(after_finish=fn),
    "lifespan": lambda fn: AgentApp(lifespan=asynccontextmanager(fn)),
    "authenticate": lambda fn: AgentApp(authenticate=fn),
    "authorize": lambda fn: AgentApp(authorize=fn),
    "middleware": lambda fn: AgentApp().middleware("http")(fn),
}


@pytest.mark.parametrize("register", REGISTER.values(), ids=REGISTER)
def test_every_way_in_refuses_a_guard(register: Callable[[Any], Any]) -> None:
    async def guarded(request: Any = None, user: str = fastapi.Depends(guard)) -> None: ...

    with pytest.raises(ConfigurationError, match=r"parameter 'user' uses Depends of FastAPI.*call the function"):
        register(guarded)


@pytest.mark.parametrize("hook", ["before_request", "before_websocket", "before_serving", "before_app_request"])
async def test_an_app_whose_hooks_have_a_guard_does_not_start(hook: str) -> None:
    async def guarded(user: str = fastapi.Depends(guard)) -> None: ...

    app = AgentApp()
    blueprint = Blueprint("part", __name__)
    getattr(blueprint if hook == "before_app_request" else app, hook)(guarded)
    app.register_blueprint(blueprint)
    with pytest.raises(ConfigurationError, match="guarded: parameter 'user' uses Depends of FastAPI"):
        async with app.runtime():
            pass


@dataclasses.dataclass
class Data:
    user: Annotated[str, fastapi.Depends(guard)]


@dataclasses.dataclass
class Defaulted:
    user: str = fastapi.Depends(guard)


@attrs.define
class Fielded:
    user: list[Annotated[str, fastapi.Depends(guard)]]


class Typed(TypedDict):
    user: Annotated[str, fastapi.Depends(guard)]


class Model(pydantic.BaseModel):
    user: Annotated[str, fastapi.Depends(guard)]
    parent: Model | None = None


class Struct(msgspec.Struct):
    user: Annotated[str, fastapi.Depends(guard)]


class Mine(fastapi.Request):
    pass


Name = NewType("Name", Annotated[str, fastapi.Depends(guard)])  # type: ignore[valid-newtype]


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (Annotated[str, fastapi.Depends(guard)], "Depends"),
        ("Annotated[str, fastapi.Depends(guard)]", "Depends"),
        ("Annotated[User, Depends(guard)]", "Depends"),
        ("Annotated[User, fastapi.Security (guard)]", "Security"),
        (Annotated[str, fastapi.Security(guard)], "Security"),
        (Annotated[Annotated[str, fastapi.Depends(guard)], "note"], "Depends"),
        (Annotated[str, fastapi.Query(max_length=3)] | None, "Query"),
        (list[Annotated[str, fastapi.Header()]], "Header"),
        (dict[str, Annotated[int, fastapi.Body()]], "Body"),
        (Name, "Depends"),
        (fastapi.Request, "Request"),
        (Mine, "Request"),
        (fastapi.Response, "Response"),
        (fastapi.Response | None, "Response"),
        (fastapi.BackgroundTasks, "BackgroundTasks"),
        (fastapi.WebSocket, "WebSocket"),
        (fastapi.UploadFile, "UploadFile"),
        (starlette.requests.HTTPConnection, "HTTPConnection"),
        (starlette.responses.StreamingResponse, "StreamingResponse"),
        (list["Guarded"], "Depends"),
        (Optional["Guarded"], "Depends"),
        ("list['Guarded']", "Depends"),
        ("Generic[User]", "Depends"),
        ("dict[User, Guarded]", "Depends"),
        ("fastapi.Request | User", "Request"),
        (Callable[[fastapi.Request], None], "Request"),
        *((each, "Depends") for each in (Data, Defaulted, Fielded, Typed, Model, Struct, list[Model])),
    ],
    ids=_shown,
)
@pytest.mark.parametrize("way", ["query", "task", "endpoint", "get", "websocket"])
def test_it_is_found_wherever_an_annotation_has_it(annotation: Any, found: str, way: str) -> None:
    async def view(request: Any = None) -> None: ...

    view.__annotations__["request"] = annotation
    with pytest.raises(ConfigurationError, match=f"parameter 'request' uses {found} of FastAPI"):
        REGISTER[way](view)


@pytest.mark.parametrize(
    "mark", ["Depends", "Security", "Query", "Body", "Header", "Cookie", "Path", "Form", "File"]
)
@pytest.mark.parametrize("way", ["query", "task", "endpoint", "get", "websocket"])
def test_each_default_of_fastapi_is_refused_with_what_to_use(mark: str, way: str) -> None:
    def view(request: Any = None) -> None: ...

    view.__defaults__ = (getattr(fastapi, mark)(),)

    with pytest.raises(
        ConfigurationError, match=f"'request' uses {mark} of FastAPI, which has no effect here; \\w"
    ):
        REGISTER[way](view)


def test_what_decorators_and_classes_hide_is_found() -> None:
    async def guarded(user: str = fastapi.Depends(guard)) -> None: ...

    @functools.wraps(guarded)
    async def around() -> None:
        await guarded()

    class Callable_:
        async def __call__(self, user: str = fastapi.Depends(guard)) -> None: ...

    class View(MethodView):
        async def get(self, user: str = fastapi.Depends(guard)) -> str:
            return user

    async def bare(user: str) -> None: ...

    for fn in (around, Callable_(), View.as_view("v"), functools.partial(bare, user=fastapi.Depends(guard))):
        with pytest.raises(ConfigurationError, match="'user' uses Depends of FastAPI"):
            AgentApp().get("/x")(fn)


DECORATORS: list[Callable[..., Any]] = [
    lambda **options: AgentApp().query(**options),
    lambda **options: AgentApp().endpoint("/x", **options),
    lambda **options: AgentApp().task("/x", **options),
    lambda **options: AgentApp().get("/x", **options),
    lambda **options: AgentApp().websocket("/x", **options),
    lambda **options: lambda _fn: AgentApp(**options),
]


@pytest.mark.parametrize("option", ["dependencies", "response_model", "status_code", "response_class", "tags"])
def test_arguments_of_fastapis_decorators_are_refused(option: str) -> None:
    for decorate in DECORATORS:
        with pytest.raises(ConfigurationError, match=f"{option}= is an argument of FastAPI's; here "):
            decorate(**{option: [fastapi.Depends(guard)]})(guard)


def test_an_argument_that_no_decorator_has_is_named() -> None:
    for decorate in DECORATORS[:3]:
        with pytest.raises(TypeError, match="no argument 'time_out'"):
            decorate(time_out=3)(guard)


def test_a_field_of_pydantic_as_a_default_is_refused() -> None:
    """It would check nothing, as `Query("x", max_length=3)` did."""

    async def short(x: str = pydantic.Field("x", max_length=3)) -> None: ...

    for way in ("query", "task", "endpoint", "get"):
        with pytest.raises(ConfigurationError, match=r"parameter 'x' has pydantic's Field.*write Annotated"):
            REGISTER[way](short)


@pytest.mark.parametrize("hook", ["after_request", "teardown_request", "after_serving", "context_processor", 404])
async def test_all_hooks_are_looked_at(hook: Any) -> None:
    async def guarded(user: str = fastapi.Depends(guard)) -> None: ...

    app = AgentApp()
    (app.errorhandler(hook) if hook == 404 else getattr(app, hook))(guarded)
    with pytest.raises(ConfigurationError, match="guarded: parameter 'user' uses Depends of FastAPI"):
        async with app.runtime():
            pass


def test_what_an_app_of_fastapis_has_is_named_with_the_replacement() -> None:
    app: Any = AgentApp()
    with pytest.raises(AttributeError, match=r"'on_event', which FastAPI has; use AgentApp\(lifespan="):
        app.on_event("startup")
    with pytest.raises(AttributeError, match=r"'include_router', which FastAPI has; use a quart.Blueprint"):
        app.include_router(fastapi.APIRouter())
    with pytest.raises(ConfigurationError, match=r"must be a quart.Blueprint, not APIRouter"):
        app.register_blueprint(fastapi.APIRouter())
    with pytest.raises(AttributeError, match=r"AgentApp has no attribute 'other'$"):
        app.other()
    assert not hasattr(app, "mount")


def test_a_handler_that_calls_itself_is_taken() -> None:
    """Its own name has no value yet when it is registered."""

    @AgentApp().query()
    async def chat(msgs: "list[User]", request: Annotated[Any, "Query of Depends"] = None) -> Any:  # noqa: UP037
        yield chat.__name__


def test_what_is_not_of_fastapi_is_left_alone() -> None:
    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> Any:
        yield

    app = AgentApp(lifespan=lifespan)

    @app.query()
    async def handler(self: Any, msgs: Any, user: User = None, **kwargs: Any) -> None: ...

    @app.get("/x")
    async def view(limit: Annotated[int, pydantic.Field(le=3)] = 1, plain: pydantic.BaseModel | None = None) -> str:
        return str(limit)
