"""Warns of `except asyncio.CancelledError` in handlers that run on Trio. Trio never raises it."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .handler import HandlerKind, kind_of

__all__ = ["warn_of_cancelled_error"]


def warn_of_cancelled_error(fn: Callable[..., Any], name: str) -> None:
    """Search the source of `fn`, and issue a RuntimeWarning for each `except` with asyncio.CancelledError.

    The warning has the file and line of the `except`. Only coroutine functions and async generators are searched.
    Functions and classes defined inside `fn` are left out, because they may run in an asyncio loop. A function
    whose source cannot be read is skipped.

    Args:
        name: of the handler, for the text of the warning.
    """
    fn = inspect.unwrap(fn)
    if not isinstance(fn, types.FunctionType | types.MethodType) or kind_of(fn) not in (
        HandlerKind.COROUTINE,
        HandlerKind.ASYNC_GENERATOR,
    ):
        return
    try:
        lines, first = inspect.getsourcelines(fn)
        (tree,) = ast.parse(textwrap.dedent("".join(lines))).body
        file = inspect.getsourcefile(fn) or fn.__code__.co_filename
    except (OSError, TypeError, SyntaxError, ValueError):
        return
    # `inspect.getmodule` may return None, and a callable need not have `__globals__`.
    names = getattr(inspect.getmodule(fn), "__dict__", {}) | getattr(fn, "__globals__", {})
    for node in _handlers(tree):
        named = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if any(each is not None and _is_cancelled_error(ast.unparse(each), names) for each in named):
            line = first + node.lineno - 1
            warnings.warn_explicit(
                f"{name}: asyncio.CancelledError is never raised here, as the code runs on Trio "
                f"({file}, line {line}). Write `except trio.Cancelled:`; to await in it, use "
                "`async with run.cleanup():`; end it with `raise`",
                RuntimeWarning,
                file,
                line,
            )


def _handlers(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    """All `except` clauses below a node, without those of nested functions and classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ExceptHandler):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _handlers(node)


def _is_cancelled_error(spelled: str, names: dict[str, Any]) -> bool:
    """Whether a dotted name, such as `asyncio.CancelledError`, refers to asyncio's class.

    It is looked up in `names`, the globals of the function. A name that is imported inside the function is not
    there; then its spelling decides.
    """
    first, *rest = spelled.split(".")
    if first not in names:
        return spelled in ("CancelledError", "asyncio.CancelledError", "asyncio.exceptions.CancelledError")
    value = names[first]
    for attribute in rest:
        value = getattr(value, attribute, None)
    return inspect.isclass(value) and (value.__module__, value.__name__) == ("asyncio.exceptions", "CancelledError")
