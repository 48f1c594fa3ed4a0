"""Hypercorn's HTTP/1.1 protocol with cheaper heads of responses. It counts requests whose head is too large."""

from __future__ import annotations

from typing import Any

import h11
from h11._headers import Headers
from hypercorn.protocol.h11 import H11Protocol

from ..refusals import note_refusal

__all__ = ["HTTP11"]

HEAD_TOO_LARGE = 431
"""Request Header Fields Too Large: RFC 6585, section 5."""

FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})

CHUNKED = (b"Transfer-Encoding", b"transfer-encoding", b"chunked")
CLOSE = (b"Connection", b"connection", b"close")
"""Headers as h11 keeps them: the name as it is sent, the name in lower case, the value."""


class _Connection(h11.Connection):
    """Adds the framing headers of most responses in one step.

    h11 checks all headers again for each header that it adds, which was 3 % of the CPU of a short chat.
    """

    def _clean_up_response_headers_for_sending(self, response: h11.Response) -> h11.Response:
        if (
            self._request_method not in (b"GET", b"POST")
            or self.their_http_version != b"1.1"
            or response.status_code in (204, 304)
            or any(name in FRAMING for name, _ in response.headers)
        ):
            return super()._clean_up_response_headers_for_sending(response)
        # The length of the body is not known, and the client supports chunked encoding.
        added = [CHUNKED] if self._cstate.keep_alive else [CHUNKED, CLOSE]
        return h11.Response(
            headers=Headers([*response.headers._full_items, *added]),
            status_code=response.status_code,
            http_version=response.http_version,
            reason=response.reason,
        )


class HTTP11(H11Protocol):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Hypercorn has made the connection, so its class is replaced. `_Connection` has no state of its own.
        self.connection.__class__ = _Connection

    async def _send_error_response(self, status_code: int) -> None:
        if status_code == HEAD_TOO_LARGE:
            note_refusal("head")
        await super()._send_error_response(status_code)
