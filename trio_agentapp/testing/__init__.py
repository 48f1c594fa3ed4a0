"""Test tools, for users and for this package: parts that can be controlled, and no mocks of the runtime.

`check_interrupt_backend`, `check_event_store`, `check_state_store`, `check_session_store` and
`check_agent_registry` ask an implementation the questions of its contract. `UnrulyBackend` is slow, fails or loses
answers on demand. `Script` is an agent that follows a list of steps, `model_server` a server of chat completions
that follows a list of answers.
"""

from .conformance import Question, ask, check_interrupt_backend, interrupt_questions
from .conformance.event_stores import ask_event_store, check_event_store, event_questions
from .conformance.registries import ask_registry, check_agent_registry, registry_questions
from .conformance.stores import (
    ask_store,
    check_session_store,
    check_state_store,
    session_questions,
    state_questions,
)
from .model_server import ModelServer, call, hang_up, model_server, refuse, think
from .script import Script, Step, ask_for_exit, cleanup, fail, say, swallow, wait
from .unruly import UnrulyBackend

__all__ = [
    # contracts
    "Question",
    "ask",
    "ask_event_store",
    "ask_registry",
    "ask_store",
    "check_agent_registry",
    "check_event_store",
    "check_interrupt_backend",
    "check_session_store",
    "check_state_store",
    "event_questions",
    "interrupt_questions",
    "registry_questions",
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
    # models
    "ModelServer",
    "call",
    "hang_up",
    "model_server",
    "refuse",
    "think",
]
