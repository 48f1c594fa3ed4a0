"""Drives a handler to its end, and says how it ended.

The one place where a body runs. Around it, from the outside in: a shield (only the run's own scope stops the body:
whoever cancels the world stops its runs first, and waits), the run's scope (stop, deadline, lease), the nursery of
its children. The handler is the first of them, in a task of its own: scopes that it leaves open harm nothing else
(see `containment`). After them the exit callbacks. Everything that awaits after a stop is bounded by the cleanup
deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from ..protocol.lifecycle import Cause, CleanupResult, Ending, Phase
from .containment import orderly
from .failures import ctrl_c_in, leaves
from .handler import Handler
from .run import Run, current_run, log_failure

__all__ = ["Driven", "drive"]

logger = logging.getLogger("trio_agentapp.runs")

_warned: set[str] = set()
"""Handlers that were told of a cut cleanup: once each is enough."""


class Driven:
    """What came of a body: its ending, the exception to show where that is wanted, and what must go on up."""

    def __init__(self, ending: Ending, error: BaseException | None, fatal: BaseException | None) -> None:
        self.ending = ending
        self.error = error
        self.fatal = fatal
        """Ctrl-C, in a program without a server: it ends the program, and is raised when the run has been ended."""


async def drive(run: Run, handler: Handler, offered: Mapping[str, object]) -> Driven:
    """Execute `handler` for `run` until nothing of it runs any more. Raises nothing."""
    token = current_run.set(run)
    error: BaseException | None = None
    raised: list[BaseException] = []
    with trio.CancelScope(shield=True):
        try:
            error = await _execute_body(run, handler, offered)
            raised = await run.call_exit_callbacks()
        finally:
            current_run.reset(token)
    fatal, error = _split_fatal(error)
    well = True
    for each in raised:
        worse, failure = _split_fatal(each)
        fatal = fatal or worse
        if failure is not None:
            well = False
            log_failure(run, "an exit callback failed", failure)
    cause = _cause_of(run, error, fatal, well)
    if error is not None and cause not in (Cause.EXCEPTION, Cause.RETURNED):
        logger.warning(
            "run %s (handler %r): raised while it was ended (%s)",
            run.run_id,
            run.handler_name,
            cause.value,
            exc_info=error,
        )
    if cause is Cause.RETURNED and not run.builder.has_output and not handler.warned_of_silence:
        handler.warned_of_silence = True
        logger.warning(
            "run %s: handler %r ended without output, and its client gets an empty answer; yield or return text, "
            "content or messages (said once for each handler)",
            run.run_id,
            run.handler_name,
        )
    ending = Ending(
        cause=cause,
        cleanup=run.cleanup_state.result,
        cleanup_interrupted=run.cleanup_state.interrupted,
        stop_requested=run.stop_requested,
    )
    return Driven(ending, error, fatal)


async def _execute_body(run: Run, handler: Handler, offered: Mapping[str, object]) -> BaseException | None:
    """Body and children, to their end. Returns what they raised, without the cancellation that ended them."""
    try:
        with run.scope:
            try:
                async with trio.open_nursery() as children:
                    run.adopt(children)
                    children.start_soon(_execute_handler, run, handler, offered, children, name=run.handler_name)
            except BaseException as exc:
                run.cleanup_state.inspect(exc, run.handler_name, _warned)
                raise
    except BaseException as exc:
        return exc
    finally:
        run.adopt(None)
        run.note_deadline()
        run.phase = Phase.FINISHING
    if run.cause is None:
        # Trio takes such a Cancelled for the nursery's own. It is one that was kept, as another task's outcome.
        return RuntimeError("the handler raised a trio.Cancelled, and nothing had cancelled it")
    return None


async def _execute_handler(
    run: Run, handler: Handler, offered: Mapping[str, object], children: trio.Nursery
) -> None:
    # A run that was stopped before its body gets none: a generator would run up to its first await.
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        await orderly(handler, run, offered)
    except trio.Cancelled:
        raise
    except BaseException:
        run.body_ended()
        raise
    run.body_ended()
    children.cancel_scope.cancel(reason=f"the handler of run {run.run_id} has returned")


def _cause_of(run: Run, error: BaseException | None, fatal: BaseException | None, well: bool) -> Cause:
    """Section 5 of INTERRUPT-PROTOCOL, "Outcome, as the driver sees the end of the body"."""
    if run.cleanup_state.result is CleanupResult.TIMED_OUT:
        return Cause.CLEANUP_TIMEOUT
    if fatal is not None:
        return Cause.SHUTDOWN
    if run.cause is not None and run.cause is not Cause.RETURNED:
        return run.cause
    if error is not None:
        log_failure(run, "the handler failed", error)
        return Cause.EXCEPTION
    return Cause.RETURNED if well else Cause.EXCEPTION


def _split_fatal(error: BaseException | None) -> tuple[BaseException | None, BaseException | None]:
    """(Ctrl-C, what is the run's own), each None if there is none."""
    if error is None or (ctrl_c := ctrl_c_in(error)) is None:
        return None, _unwrapped(error)
    other = any(not isinstance(leaf, KeyboardInterrupt) for leaf in leaves(error))
    return ctrl_c, error if other else None


def _unwrapped(error: BaseException | None) -> BaseException | None:
    """A group of one says no more than the one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
