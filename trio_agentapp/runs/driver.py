"""Executes a handler, its child tasks and its exit callbacks to their end, and reports how they ended.

This is the only place where handlers run. Around the handler are, from the outside in: the run's cancel scope,
which a stop, the deadline or the lease may cancel, and a nursery for its child tasks. The handler is the first task
of that nursery. Nothing else runs in that task, so scopes that the handler leaves open affect nothing else (see
`containment`). The exit callbacks follow.

The run's scope is shielded: nothing else may cancel a handler. A program that ends stops its runs first, and waits
for them. Everything that awaits after a stop is bounded by the cleanup deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import attrs
import trio

from ..errors import Rejected
from ..protocol.exception_groups import leaves, unwrapped
from ..protocol.lifecycle import Cause, Ending, Phase
from .containment import apart, orderly
from .failures import ctrl_c_in
from .handler import Handler
from .run import Run, current_run

__all__ = ["Driven", "drive"]

logger = logging.getLogger("trio_agentapp.runs")

_warned: set[str] = set()
"""Handlers for which a cancelled await in their cleanup was logged; it is logged once for each."""


@attrs.frozen
class Driven:
    """How a handler ended."""

    ending: Ending
    error: BaseException | None
    """The exception that the handler raised. Clients see its text in debug mode only."""
    fatal: BaseException | None
    """Ctrl-C, in a program without a server. It ends the program: raise it when the end of the run is recorded."""


async def drive(run: Run, handler: Handler, offered: Mapping[str, object]) -> Driven:
    """Execute `handler` for `run`, its child tasks and its exit callbacks. Raises nothing."""
    token = current_run.set(run)
    try:
        error = await _execute_body(run, handler, offered)
        raised = await run.call_exit_callbacks()
    finally:
        current_run.reset(token)
    fatal, error = _split_fatal(error)
    failed = error is not None
    for each in raised:
        also_fatal, failure = _split_fatal(each)
        fatal = fatal or also_fatal
        if failure is not None:
            failed = True
            _log_failure(run, "an exit callback failed", failure)
    cause = run.lifecycle.unwound(
        failed=failed,
        cleanup_timed_out=run.cleanup_state.timed_out,
        interrupted=fatal is not None,
    )
    if error is not None:
        _log_error(run, cause, error)
    if cause is Cause.RETURNED and not run.builder.has_output and not handler.warned_of_silence:
        handler.warned_of_silence = True
        logger.warning(
            "run %s: handler %r ended without output, and its client gets an empty answer; yield or return text, "
            "content or messages (logged once for each handler)",
            run.run_id,
            run.handler_name,
        )
    ending = Ending(
        cause=cause,
        cleanup=run.cleanup_state.result,
        cleanup_interrupted=run.cleanup_state.interrupted,
        stop_requested=run.lifecycle.asked_to_stop,
    )
    return Driven(ending, error, fatal)


async def _execute_body(run: Run, handler: Handler, offered: Mapping[str, object]) -> BaseException | None:
    """Execute handler and child tasks. Returns what they raised, without the cancellation that ended them."""
    error: BaseException | None = None
    run.scope.cancel_scope.shield = True
    try:
        with run.scope.cancel_scope:
            try:
                async with trio.open_nursery() as run.children:
                    # It calls `orderly` itself.
                    with apart():
                        run.children.start_soon(
                            _execute_handler, run, handler, offered, run.children, name=run.handler_name
                        )
            except BaseException as exc:
                run.cleanup_state.inspect(exc, run.handler_name, _warned)
                raise
    except BaseException as exc:
        error = exc
    finally:
        run.children = None
    if run.lifecycle.phase is not Phase.FINISHING:
        run.scope.body_ended(raised=True, rejected=error is not None and _is_rejection(error))
    if error is None and run.lifecycle.cause is Cause.EXCEPTION:
        # The handler raised a Cancelled that it had stored, such as one from the outcome of another task. The
        # nursery has swallowed it like a Cancelled of its own scope.
        return RuntimeError("the handler raised a trio.Cancelled, and nothing had cancelled it")
    return error


async def _execute_handler(
    run: Run, handler: Handler, offered: Mapping[str, object], children: trio.Nursery
) -> None:
    # If the run was stopped before, the handler must not start: a generator would run up to its first await.
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        await orderly(handler, run, offered)
    except trio.Cancelled:
        # The body ends when the child tasks have unwound, too.
        raise
    except BaseException as exc:
        run.scope.body_ended(raised=True, rejected=_is_rejection(exc))
        raise
    run.scope.body_ended()
    if len(children.child_tasks) > 1:
        children.cancel_scope.cancel(reason=f"the handler of run {run.run_id} has returned")
    else:
        # The nursery ends with this task, and no task is started in it any more.
        run.children = None


def _split_fatal(error: BaseException | None) -> tuple[BaseException | None, BaseException | None]:
    """Split an error into the KeyboardInterrupt of Ctrl-C and the run's own exception. Each may be None."""
    if error is None or (ctrl_c := ctrl_c_in(error)) is None:
        return None, None if error is None else unwrapped(error)
    other = any(not isinstance(leaf, KeyboardInterrupt) for leaf in leaves(error))
    return ctrl_c, error if other else None


def _is_rejection(error: BaseException) -> bool:
    return isinstance(unwrapped(error), Rejected)


def _log_error(run: Run, cause: Cause, error: BaseException) -> None:
    if cause is Cause.REJECTED:
        logger.info("run %s (handler %r): it has rejected the request", run.run_id, run.handler_name)
    elif cause is Cause.EXCEPTION:
        _log_failure(run, "the handler failed", error)
    else:
        logger.warning(
            "run %s (handler %r): raised while it was ended (%s)",
            run.run_id,
            run.handler_name,
            cause.value,
            exc_info=error,
        )


def _log_failure(run: Run, what: str, error: BaseException) -> None:
    # `%r`, so that a name cannot break the line.
    logger.error("run %s (handler %r): %s", run.run_id, run.handler_name, what, exc_info=error)
