"""Server-sent events: the frames of an event stream. See docs/reference/wire.md."""

from __future__ import annotations

import re

from .codec import encode_event
from .events import Event
from .payload import clean_text

__all__ = ["DONE", "KEEP_ALIVE", "PREAMBLE", "field_safe", "frame", "spell"]

PREAMBLE = b": stream\nretry: 3000\n\n"
"""The beginning of every stream: a comment, and the delay in milliseconds before a browser reconnects."""

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: it keeps proxies from closing a quiet stream, and no client sees it."""

DONE = b"data: [DONE]\n\n"
"""The end mark some OpenAI clients wait for; only with `sse_done=True`."""

# The line ends of the format. `splitlines` also splits at U+2028, form feeds and others.
_LINE_END = re.compile(rb"\r\n|\r|\n")
_UNSAFE = re.compile(r"[\r\n\0]")


def frame(event: Event) -> bytes:
    """Return the frame of one event of a run: its sequence number as id, its JSON as data, no name.

    JSON is one line: it escapes line ends in its strings.
    """
    return b"id: %d\ndata: %b\n\n" % (event.sequence_number, encode_event(event))


def field_safe(text: str) -> bool:
    """Whether a text can be the value of a field: it has no CR, LF or NUL."""
    return _UNSAFE.search(text) is None


def spell(data: str | bytes, *, event: str | None = None, id: str | int | None = None) -> bytes:
    """Return one frame of any data, with a name and an id if given.

    Several lines become several `data:` lines, which a reader joins with LF. Lone surrogates become U+FFFD.
    Raises ValueError for CR, LF or NUL in `event` or `id`, and for NUL in `data`, so data cannot inject a frame.
    """
    lines: list[bytes] = []
    for name, value in (("id", id), ("event", event)):
        if value is not None:
            text = clean_text(str(value))
            if not field_safe(text):
                raise ValueError(f"the {name} of a server-sent event must not contain CR, LF or NUL")
            lines.append(f"{name}: {text}\n".encode())
    raw = clean_text(data).encode() if isinstance(data, str) else data
    if b"\0" in raw:
        raise ValueError("the data of a server-sent event must not contain NUL")
    lines.extend(b"data: %b\n" % line for line in _LINE_END.split(raw))
    lines.append(b"\n")
    return b"".join(lines)
