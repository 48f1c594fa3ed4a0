"""Types of what crosses the network: ids, content, messages, requests, events, states of runs, and their JSON.

No I/O, no clock.
"""

from .builder import MAX_ANSWER_BYTES, ResponseBuilder
from .codec import decode_json, decode_request, encode_event, request_from
from .content import (
    CONTENT_TYPES,
    AudioContent,
    Content,
    ContentType,
    DataContent,
    FileContent,
    ImageContent,
    RefusalContent,
    TextContent,
    VideoContent,
)
from .events import TERMINAL, ContentEvent, Event, Failure, MessageEvent, ResponseEvent, StateEvent, Status
from .ids import SessionKey, identifier_fault, is_run_id, new_message_id, new_run_id, new_session_id
from .lifecycle import Cause, CleanupResult, Ending, RunRecord, RunState, SessionStatus, StopReceipt
from .message import MESSAGE_TYPES, ROLES, Message, MessageType, Role
from .request import AgentRequest, CancelAfter, OnDisconnect
from .sse import DONE, KEEP_ALIVE, PREAMBLE, field_safe, frame, spell
from .stored_events import decode_event
from .timings import Timings

__all__ = [
    "MAX_ANSWER_BYTES",
    # ids
    "SessionKey",
    "identifier_fault",
    "is_run_id",
    "new_message_id",
    "new_run_id",
    "new_session_id",
    # messages and content
    "AudioContent",
    "CONTENT_TYPES",
    "Content",
    "ContentType",
    "DataContent",
    "FileContent",
    "ImageContent",
    "MESSAGE_TYPES",
    "Message",
    "MessageType",
    "ROLES",
    "RefusalContent",
    "Role",
    "TextContent",
    "VideoContent",
    # requests
    "AgentRequest",
    "CancelAfter",
    "OnDisconnect",
    "decode_json",
    "decode_request",
    "request_from",
    # runs and sessions, for backends
    "Cause",
    "CleanupResult",
    "Ending",
    "RunRecord",
    "RunState",
    "SessionStatus",
    "StopReceipt",
    "Timings",
    # events
    "ContentEvent",
    "Event",
    "Failure",
    "MessageEvent",
    "ResponseBuilder",
    "ResponseEvent",
    "StateEvent",
    "Status",
    "TERMINAL",
    # JSON and frames
    "DONE",
    "KEEP_ALIVE",
    "PREAMBLE",
    "decode_event",
    "encode_event",
    "field_safe",
    "frame",
    "spell",
]
