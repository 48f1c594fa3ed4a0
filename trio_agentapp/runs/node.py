"""The backends, services and settings that all runs of one node share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from ..abc import BaseInterruptBackend, EventStore
from ..protocol.ids import SessionKey
from .end_writer import EndWriter
from .inbox import InboxFetcher
from .instruments import Instruments
from .keeper import Keeper
from .question_poster import QuestionPoster
from .run import Run

__all__ = ["Node", "Remember", "Undo"]

Remember = Callable[[Run], Awaitable[None]]
"""Saves a run's messages. Called with a run that has unwound, before its end is written and its session is free."""

Undo = Callable[[SessionKey, int], Awaitable[None]]
"""Rolls back what a run has saved. Called with its session and token, before the handler of the next run starts."""


@attrs.define(kw_only=True)
class Node:
    """The backends, services and settings of all runs of this process."""

    node_id: str
    backend: BaseInterruptBackend
    store: EventStore | None
    keeper: Keeper
    inbox: InboxFetcher
    questions: QuestionPoster
    end_writer: EndWriter
    cleanup_budget: float
    debug: bool
    remember: Remember | None
    undo: Undo | None
    instruments: Instruments = attrs.field(factory=Instruments)
    nursery: trio.Nursery | None = None
    """Where runs live; None while the registry is closed."""
