"""A client for models. It streams an answer of an OpenAI-compatible server, `POST {base_url}/chat/completions`."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from ..errors import ConfigurationError, ModelError
from .chunks import BROKEN_OFF, MALFORMED, AnswerReader, Chunk, text_of_error
from .spans import chat_span

__all__ = ["ChatModel"]

logger = logging.getLogger("trio_agentapp.agents")

CONNECT_WITHIN = 10.0
"""Seconds to open a connection, or to send a piece of the request."""

FIRST_DELAY = 0.5
"""Seconds before the second attempt; doubled for each further one, and jittered."""

MAX_DELAY = 30.0
"""Limit of a pause in seconds. If a server asks for a longer one, the request fails, since a user is waiting."""

MAX_LINE = 8 * 1024 * 1024
"""Limit of one line of a stream, in bytes. A server that sends a longer line is faulty."""

MAX_REFUSAL = 64 * 1024
"""Limit of bytes that are read from the body of a refusal."""

LINGER = 0.5
"""Seconds that a server has to end its response after the last event."""

DONE = b"[DONE]"


class ChatModel:
    """A model behind an OpenAI-compatible server. Open it with `async with`, and share it between agents and runs.

    `base_url`: the server, with the path before `/chat/completions`. `api_key`: sent as a bearer token. `headers`:
    further headers. `options`: further members of each request, such as `{"temperature": 0}`; None removes a
    member that the server refuses: `{"stream_options": None}`. `timeout`: seconds to wait for the next bytes.
    `attempts`: how often a request is sent in total if it fails before its first token.

    Raises ConfigurationError if the URL is not an HTTP URL, or `attempts` is below 1.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        timeout: float = 120.0,
        attempts: int = 3,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigurationError(f"base_url must begin with http:// or https://, not {base_url!r}")
        if attempts < 1:
            raise ConfigurationError(f"attempts must be at least 1, not {attempts}")
        self.model = model
        self.base_url = base_url
        self.options = dict(options or {})
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        if api_key is not None:
            # A key that was read from a file may end with a line break.
            self._headers["Authorization"] = f"Bearer {api_key.strip()}"
        self._timeout = timeout
        self._attempts = attempts
        self._client: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"<ChatModel {self.model} at {self.base_url}>"

    async def __aenter__(self) -> Self:
        if self._client is not None:
            raise RuntimeError(f"{self!r} is open already; open it once, for instance in the lifespan of the app")
        # Each run uses a connection while its model answers. The number of runs is their limit.
        self._client = httpx.AsyncClient(
            base_url=self.base_url,
            headers=self._headers,
            timeout=httpx.Timeout(CONNECT_WITHIN, read=self._timeout),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(*error)

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """Keep the model open while the app runs: `AgentApp(agent=Agent(model), lifespan=model.lifespan)`."""
        async with self:
            yield

    async def stream(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), **options: Any
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the answer to a conversation in chunks. `options` take precedence over those of the model.

        A request that fails before the first token is sent again, up to `attempts` times, if the server is
        overloaded (429, 5xx) or the connection breaks. `Retry-After` is honoured up to `MAX_DELAY`.

        Raises:
            ModelError: the server refused, failed, ended the stream early, or did not send an answer.
        """
        known = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}}
        body = {**known, **self.options, **options, "messages": messages, "tools": tools or None}
        encoded = msgspec.json.encode({name: value for name, value in body.items() if value is not None})
        with chat_span(self.model, str(urlsplit(self.base_url).hostname), messages) as span:
            async with aclosing(self._attempt(encoded, span.headers())) as chunks:
                async for chunk in chunks:
                    if chunk.usage:
                        span.set_usage(chunk.usage)
                    yield chunk

    async def _attempt(self, encoded: bytes, headers: Mapping[str, str]) -> AsyncGenerator[Chunk, None]:
        delay = FIRST_DELAY
        for attempts_left in reversed(range(self._attempts)):
            started = False
            try:
                async with aclosing(self._answer(encoded, headers)) as chunks:
                    async for chunk in chunks:
                        started = True
                        yield chunk
            except ModelError as error:
                jittered = delay * random.uniform(0.5, 1)  # noqa: S311  spreads load, protects nothing
                pause = jittered if error.retry_after is None else error.retry_after
                if started or not error.retryable or not attempts_left or pause > MAX_DELAY:
                    raise
                logger.warning("%r: %s; trying again in %.1f s", self, error, pause)
            else:
                return
            await trio.sleep(pause)
            delay *= 2

    async def _answer(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[Chunk, None]:
        if self._client is None:
            raise RuntimeError(f"{self!r} is not open; use `async with`, for instance in the lifespan of the app")
        reader = AnswerReader()
        begun = False
        try:
            async with self._client.stream("POST", "chat/completions", content=body, headers=headers) as response:
                if not response.is_success:
                    raise await _refusal(response)
                begun = True
                async with aclosing(_events(response)) as events:
                    async for data in events:
                        if data == DONE:
                            reader.finished = True
                        elif (chunk := reader.read(data)).text or chunk.reasoning:
                            yield chunk
        except httpx.TimeoutException as error:
            raise ModelError("The model's server took too long.") from error
        except httpx.HTTPError as error:
            summary = BROKEN_OFF if begun else "The model's server cannot be reached, or hung up."
            raise ModelError(summary, retryable=True) from error
        yield reader.end()


async def _events(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the data of each event. A server that does not stream sends a single JSON object."""
    if response.headers.get("Content-Type", "").startswith("application/json"):
        yield await response.aread()
        return
    async with aclosing(_lines(response)) as lines:
        async for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                yield data
                if data == DONE:
                    break
        # A connection can be used again only if its response was read completely.
        with trio.move_on_after(LINGER), suppress(httpx.HTTPError):
            async for _ in lines:
                pass


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a stream. httpx also splits at characters that JSON may contain, such as U+2028."""
    rest = b""
    async with aclosing(_pieces(response)) as pieces:
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line
            if len(rest) > MAX_LINE:
                raise ModelError(f"The model's server sent a line of more than {MAX_LINE} bytes.")
    yield rest


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    pieces = response.aiter_bytes()
    try:
        async for piece in pieces:
            yield piece
    finally:
        # httpx nests generators, and closing the outer one leaves the inner ones to the garbage collector. A
        # cancelled read ends all of them.
        with trio.CancelScope(shield=True) as scope, suppress(httpx.HTTPError):
            scope.cancel()
            async for _ in pieces:
                pass


async def _refusal(response: httpx.Response) -> ModelError:
    body = b""
    async with aclosing(_pieces(response)) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > MAX_REFUSAL:
                break
    try:
        detail = text_of_error(msgspec.json.decode(body))
    except MALFORMED:
        detail = text_of_error(body.decode(errors="replace"))
    status = response.status_code
    return ModelError(
        f"The model's server answered {status} {httpx.codes.get_reason_phrase(status)}".rstrip() + ".",
        detail=detail,
        status=status,
        retryable=status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error,
        retry_after=_seconds(response.headers.get("Retry-After", "")),
    )


def _seconds(retry_after: str) -> float | None:
    try:
        if retry_after.replace(".", "", 1).isdigit():
            return float(retry_after)
        wanted = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    now = datetime.now(UTC if wanted.tzinfo else None)
    return max((wanted - now).total_seconds(), 0.0)
