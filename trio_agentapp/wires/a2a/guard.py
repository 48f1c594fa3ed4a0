"""Turns the errors of a request into the answers of a binding."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from quart import Response
from werkzeug.exceptions import HTTPException

from ...errors import RequestError
from .faults import A2AError, error_of, kinds

__all__ = ["guarded"]

logger = logging.getLogger("trio_agentapp.wires.a2a")


async def guarded(
    answer: Callable[[], Awaitable[Response]],
    refuse: Callable[[A2AError], Response],
    *,
    task_id: object = None,
) -> Response:
    """Return the answer, or the refusal of the protocol. `task_id`: the task that the request names, if it does."""
    try:
        return await answer()
    except A2AError as error:
        return refuse(error)
    except (RequestError, HTTPException) as error:
        return refuse(error_of(error, task_id=task_id[:64] if isinstance(task_id, str) else None))
    except Exception:
        logger.exception("a request failed")
        return refuse(A2AError(kinds.INTERNAL, "Something went wrong on this server.", transport=500))
