"""Tools: functions that a model may call, with the JSON schemas of their arguments."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, overload

import msgspec
import trio

from ..errors import ConfigurationError
from ..protocol.exception_groups import leaves
from ..runs import current_run
from .chunks import MALFORMED
from .spans import AgentSpan, tool_span

__all__ = ["Tool", "tool"]

logger = logging.getLogger("trio_agentapp.agents")

MAX_THREADS = 40
"""Limit of concurrent calls of one sync tool; further calls wait. So a slow tool cannot use up all threads."""

RUN = "run"
"""The name of the parameter that gets the `Run`, or None outside of a run. It is not part of the schema."""

_DEFINED = "#/$defs/"
"""The member of a schema that has the schemas of named types."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECTION = re.compile(r"^(?:Args|Arguments|Parameters):[ ]*$", re.MULTILINE)
_ENTRY = re.compile(r"(\w+)(?: \([^)]*\))?: *(.*)")


class Tool:
    """Makes a tool of a function: `async def`, or a sync function, which runs in a thread.

    The model gets its name, its docstring, and a schema made from its annotations. A section `Args:` of the
    docstring, with lines `name: text`, describes the arguments. `timeout`: seconds for one call.

    A stop waits until a sync tool returns. A long one should call `trio.from_thread.check_cancelled()` regularly.

    Raises ConfigurationError if no schema can be made for the function.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self.fn = fn
        self.name = name or str(getattr(fn, "__name__", type(fn).__name__))
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"tool {self.name!r}: a name has 1 to 64 letters, digits, '_' and '-'")
        self.timeout = timeout
        self._is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
        self._threads = trio.CapacityLimiter(MAX_THREADS)
        parameters = self._parameters()
        self._takes_run = parameters.pop(RUN, None) is not None
        documented, arguments = _documented(_doc_of(fn), parameters)
        self.description = documented if description is None else description
        self._names = {f"argument_{number}": name for number, name in enumerate(parameters)}
        """The parameter of each field of `_struct`. A field cannot have every name, so they are numbered."""
        self._struct = self._arguments(parameters.values())
        self.schema = self._schema(parameters, arguments)
        """The description of the tool for a model: a member of `tools` in a request."""

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function directly, with the arguments given."""
        return self.fn(*args, **kwargs)

    async def use(self, arguments: str) -> str:
        """Call the function with arguments in JSON. Return its result, or a description of the error, as text."""
        with tool_span(self.name, arguments) as span:
            result = await self._use(arguments, span)
            span.set_content("gen_ai.tool.call.result", result)
            return result

    async def _use(self, arguments: str, span: AgentSpan) -> str:
        try:
            given = msgspec.json.decode(arguments, type=self._struct)
        except MALFORMED as error:
            span.fail("invalid_arguments")
            return f"Error: the arguments of {self.name} are not valid: {error}"
        fields = msgspec.structs.asdict(given).items()
        values = {self._names[field]: value for field, value in fields if value is not msgspec.UNSET}
        if self._takes_run:
            values[RUN] = current_run.get(None)
        try:
            with trio.move_on_after(math.inf if self.timeout is None else self.timeout):
                return _text(await self._call(functools.partial(self.fn, **values)))
        except Exception as error:
            logger.warning("tool %s failed", self.name, exc_info=error)
            span.fail(type(error).__name__)
            found = "; ".join(f"{type(each).__name__}: {each}" for each in leaves(error))
            return f"Error: {self.name} failed: {found}"
        span.fail("timeout")
        return f"Error: {self.name} took longer than {self.timeout:g} s and was stopped."

    async def _call(self, call: Callable[[], Any]) -> Any:
        if self._is_async:
            return await call()
        return await trio.to_thread.run_sync(call, limiter=self._threads)

    # The schema.

    def _parameters(self) -> dict[str, inspect.Parameter]:
        if inspect.isasyncgenfunction(self.fn) or inspect.isgeneratorfunction(self.fn):
            raise ConfigurationError(f"tool {self.name}: a tool returns its result, and this one is a generator")
        try:
            found = inspect.signature(self.fn, eval_str=True).parameters
        except (NameError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"tool {self.name}: its signature cannot be read: {error}; define its types at module level"
            ) from error
        if any(each.kind is each.POSITIONAL_ONLY for each in found.values()):
            raise ConfigurationError(f"tool {self.name}: arguments are given by name, so none is positional-only")
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return {name: each for name, each in found.items() if each.kind not in variable}

    def _arguments(self, parameters: Iterable[inspect.Parameter]) -> type[msgspec.Struct]:
        fields: list[Any] = []
        for field, each in zip(self._names, parameters, strict=True):
            kind = Any if each.annotation in (each.empty, object) else each.annotation
            if each.default is each.empty:
                fields.append((field, kind))
            else:
                # Left out of the call, so the function uses its own default.
                fields.append((field, kind | msgspec.UnsetType, msgspec.UNSET))
        return msgspec.defstruct("Arguments", fields, rename=self._names, kw_only=True, forbid_unknown_fields=True)

    def _schema(self, parameters: dict[str, inspect.Parameter], texts: dict[str, str]) -> dict[str, Any]:
        try:
            (own,), components = msgspec.json.schema_components([self._struct], ref_template=_DEFINED + "{name}")
        except TypeError as error:
            said = str(error).splitlines()
            raise ConfigurationError(f"tool {self.name}: no JSON can become an argument: {said[-1]}") from error
        schema = components.pop(own["$ref"].removeprefix(_DEFINED))
        del schema["title"]
        for name, parameter in parameters.items():
            if name in texts:
                schema["properties"][name]["description"] = texts[name]
            default = parameter.default
            if isinstance(default, str | int) or (isinstance(default, float) and math.isfinite(default)):
                schema["properties"][name]["default"] = default
        if components:
            schema["$defs"] = components
        function = {"name": self.name, "description": self.description, "parameters": schema}
        try:
            msgspec.json.encode(function)
        except UnicodeError as error:
            raise ConfigurationError(
                f"tool {self.name}: its texts and defaults cannot be sent as JSON: {error}"
            ) from error
        return {"type": "function", "function": function}


@overload
def tool(fn: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *, name: str | None = None, description: str | None = None, timeout: float | None = None
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of the decorated function: `@tool`, or `@tool(timeout=5)` with the options of `Tool`."""
    return functools.partial(Tool, **options) if fn is None else Tool(fn)


def _doc_of(fn: Callable[..., Any]) -> str:
    """Return the docstring of a function. For `functools.partial` it is that of the wrapped function."""
    return inspect.getdoc(fn.func if isinstance(fn, functools.partial) else fn) or ""


def _documented(doc: str, parameters: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Return the docstring before its section `Args:`, and the description of each argument."""
    head, *section = _SECTION.split(doc, maxsplit=1)
    found: dict[str, str] = {}
    name = ""
    for line in "".join(section).strip("\n").splitlines():
        if line and not line.startswith(" "):
            break
        entry = _ENTRY.fullmatch(line.strip())
        if entry is not None and entry[1] in parameters:
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return head.strip(), found


def _text(result: object) -> str:
    if not isinstance(result, str):
        try:
            result = msgspec.json.encode(result).decode()
        except (TypeError, ValueError):
            result = str(result)
    # A text, such as a file name, may have lone surrogates, which JSON in a request cannot have.
    return result.encode(errors="replace").decode()
