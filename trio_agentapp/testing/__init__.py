"""What users test their own parts with, and we ours: no mocks of the runtime, only parts that do as they are told.

`check_interrupt_backend`, `check_state_store` and `check_session_store` put a part through the questions of its
contract; `UnrulyBackend` is slow, fails or loses answers when asked to; `Script` is an agent that follows its
lines.
"""

from .conformance import Question, ask, check_interrupt_backend, interrupt_questions
from .conformance.stores import (
    ask_store,
    check_session_store,
    check_state_store,
    session_questions,
    state_questions,
)
from .script import Script, Step, ask_for_exit, cleanup, fail, say, swallow, wait
from .unruly import UnrulyBackend

__all__ = [
    # contracts
    "Question",
    "ask",
    "ask_store",
    "check_interrupt_backend",
    "check_session_store",
    "check_state_store",
    "interrupt_questions",
    "session_questions",
    "state_questions",
    # misbehaviour
    "UnrulyBackend",
    # agents
    "Script",
    "Step",
    "ask_for_exit",
    "cleanup",
    "fail",
    "say",
    "swallow",
    "wait",
]
