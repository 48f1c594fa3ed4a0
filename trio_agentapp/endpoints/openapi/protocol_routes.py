"""Describes the routes of other protocols. Only the fields that every request needs are described here; the
specifications of the protocols have the rest.
"""

from __future__ import annotations

from typing import Any

from .components import Schema
from .operations import IDENTIFIER, JSON, RUN_HEADERS, SSE, USER, Operation, frame_of, query, response

__all__ = ["PROTOCOL_ROUTES"]

TEXT: Schema = {"type": "string"}


def _object(properties: Schema, **more: Any) -> Schema:
    """Return the schema of an object that has all of these members."""
    return {"type": "object", "properties": properties, "required": [*properties], **more}


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _of_openai(summary: str, body: Schema | None = None, *, streamed: bool = False) -> Operation:
    """Describe a route of OpenAI's API, with the fields that all requests need. OpenAI's reference has the rest."""
    content: Schema = {JSON: {"schema": {"type": "object"}}}
    if streamed:
        content[SSE] = {"schema": TEXT}
    responses: dict[str, str | Schema] = {"200": {"description": "As OpenAI's reference says.", "content": content}}
    if summary.startswith("Is refused"):
        responses = {"405": response({"type": "object"}, "The sentence says what to use.")}
    return Operation("OpenAI", summary, responses, body=body, own_errors=True)


A2A = "application/a2a+json"
A2A_VERSION: Schema = {
    "name": "A2A-Version",
    "in": "header",
    "required": True,
    "schema": {"enum": ["1.0"]},
    "description": "The version of the protocol.",
}
A2A_PART = _object({"text": TEXT}, additionalProperties=False)
A2A_MESSAGE = _object(
    {
        "message": _object(
            {"messageId": IDENTIFIER, "role": {"const": "ROLE_USER"}, "parts": _list(A2A_PART)},
            additionalProperties=False,
        )
    }
)


def _of_a2a(
    summary: str, body: Schema | None = None, *parameters: Schema, media: str = A2A, body_required: bool = True
) -> Operation:
    """Describe a route of A2A 1.0, with the fields that every request needs. The specification has the rest."""
    schema = frame_of({"type": "object"}) if media == SSE else {"type": "object"}
    return Operation(
        "A2A",
        summary,
        {"200": response(schema, "As the specification says.", media)},
        parameters=(A2A_VERSION, *parameters),
        body=body,
        body_required=body_required,
        own_errors=True,
    )


_A2A_CARD = Operation(
    "A2A",
    "The agent card",
    {"200": response({"type": "object"}, "What this agent does, and where."), "304": {"description": "No change."}},
    own_errors=True,
)
_A2A_CALL = Operation(
    "A2A",
    "Call a method of A2A 1.0 or 0.3 by JSON-RPC 2.0",
    {
        "200": {
            "description": "The response object, or a stream of them.",
            "content": {JSON: {"schema": {"type": "object"}}, SSE: {"schema": frame_of({"type": "object"})}},
        }
    },
    parameters=({**A2A_VERSION, "required": False, "schema": {"enum": ["1.0", "0.3"]}},),
    body=_object(
        {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer", "null"]},
            "method": TEXT,
            "params": {"type": "object"},
        },
        required=["jsonrpc", "method"],
    ),
    own_errors=True,
)

TEXT_ERROR = {"default": response(TEXT, "Why the request was refused.", "text/plain")}

UI_FRAME = _object({"data": {**TEXT, "description": "A chunk as JSON; at the end `[DONE]`."}})

TEXT_PART = _object({"type": {"const": "text"}, "text": TEXT})


def _said(content: Schema) -> Schema:
    """Describe messages of a user. The specifications of the protocols have other messages."""
    return _list(_object({"id": IDENTIFIER, "role": {"const": "user"}, **content}))


PROTOCOL_ROUTES: dict[str, Operation] = {
    "POST /v1/responses": _of_openai("Create a response", _object({"input": TEXT}), streamed=True),
    "GET /v1/responses/{response_id}": _of_openai("Read a response, or its events", streamed=True),
    "POST /v1/responses/{response_id}/cancel": _of_openai("Stop the run of a response"),
    "DELETE /v1/responses/{response_id}": _of_openai("Is refused: responses are forgotten by themselves"),
    "GET /v1/responses/{response_id}/input_items": _of_openai("Is refused: the input is not kept as items"),
    "POST /v1/chat/completions": _of_openai(
        "Create a chat completion",
        _object({"messages": _list(_object({"role": {"const": "user"}, "content": TEXT}))}),
        streamed=True,
    ),
    "POST /v1/conversations": _of_openai(
        "Get an id for a new conversation, which is a session",
        {"type": "object", "properties": {"metadata": {"type": "object", "additionalProperties": TEXT}}},
    ),
    "GET /v1/models": _of_openai("List this app as a model"),
    "GET /v1/models/{model}": _of_openai("Read this app as a model"),
    "GET /.well-known/agent-card.json": _A2A_CARD,
    "GET /.well-known/agent.json": _A2A_CARD,
    "POST /a2a": _A2A_CALL,
    "POST /a2a/": _A2A_CALL,
    "POST /message:send": _of_a2a("Send a message, and wait for the end of its task", A2A_MESSAGE),
    "POST /message:stream": _of_a2a("Send a message, and stream its task", A2A_MESSAGE, media=SSE),
    "GET /tasks": _of_a2a(
        "List tasks",
        None,
        query("contextId", TEXT, "Tasks of this context only."),
        query("pageSize", {"type": "integer", "minimum": 1, "maximum": 100}, "How many at most."),
    ),
    "GET /tasks/{task_id}": _of_a2a("Read a task"),
    "POST /tasks/{task_id}:cancel": _of_a2a("Cancel a task", {"type": "object"}, body_required=False),
    "GET /tasks/{task_id}:subscribe": _of_a2a("Stream a task from its present state on", media=SSE),
    "POST /tasks/{task_id}:subscribe": _of_a2a(
        "Stream a task from its present state on", {"type": "object"}, media=SSE, body_required=False
    ),
    "GET /tasks/{task_id}/pushNotificationConfigs": _of_a2a("List the push notification configs of a task"),
    "POST /tasks/{task_id}/pushNotificationConfigs": _of_a2a(
        "Have the updates of a task sent to a URL",
        _object({"url": {**TEXT, "format": "uri"}}),
    ),
    "GET /tasks/{task_id}/pushNotificationConfigs/{config_id}": _of_a2a("Read such a config"),
    "DELETE /tasks/{task_id}/pushNotificationConfigs/{config_id}": _of_a2a("Delete such a config"),
    "GET /extendedAgentCard": _of_a2a("The agent card for authenticated clients"),
    "POST /ag-ui": Operation(
        "Front ends",
        "Run the agent for an AG-UI client",
        {"200": response(frame_of({"type": "object"}), "The events of AG-UI.", SSE, headers=RUN_HEADERS)},
        body=_object(
            {"threadId": IDENTIFIER, "runId": TEXT, "messages": _said({"content": TEXT})},
            description="`RunAgentInput` of AG-UI 1.0.",
        ),
        own_errors=True,
    ),
    "POST /ai-sdk/chat": Operation(
        "Front ends",
        "Run the agent for a `useChat` of the AI SDK",
        {"200": response(UI_FRAME, "A UI message stream, version v1.", SSE, headers=RUN_HEADERS), **TEXT_ERROR},
        body=_object(
            {"id": IDENTIFIER, "messages": _said({"parts": {"type": "array", "items": TEXT_PART}})},
            description="What `DefaultChatTransport` of `ai` 7 sends.",
        ),
        own_errors=True,
    ),
    "GET /ai-sdk/chat/{chat_id}/stream": Operation(
        "Front ends",
        "Resume the stream of a chat",
        {
            "200": response(UI_FRAME, "The stream of the live run, from its beginning.", SSE),
            "204": {"description": "The chat has no live run."},
            **TEXT_ERROR,
        },
        (),
        (USER,),
        own_errors=True,
    ),
}
