"""Stream a chat model from any server with the OpenAI chat-completions protocol.

`OPENAI_API_KEY=... python examples/openai_compatible/app.py` starts it. OPENAI_BASE_URL and OPENAI_MODEL choose
another server and model.
"""

import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import orjson

from trio_agentapp import AgentApp, AgentRequest, Message

BASE_URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
API_KEY = os.environ.get("OPENAI_API_KEY")

if not API_KEY:
    sys.exit(
        "OPENAI_API_KEY is not set, so the model's server would refuse every request.\n"
        "Set it to your key; for a local server that wants none, any word will do."
    )


class ModelError(Exception):
    """The server of the model refused, failed, or closed the connection."""


@asynccontextmanager
async def lifespan(app: AgentApp) -> AsyncIterator[None]:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    timeout = httpx.Timeout(10, read=120)  # some models think for a while before their first word
    async with httpx.AsyncClient(base_url=BASE_URL, headers=headers, timeout=timeout) as client:
        app.state.client = client
        yield


app = AgentApp(app_name="Chat", app_description=f"Talks to {MODEL}", lifespan=lifespan)


@app.query()
async def chat(msgs: list[Message], request: AgentRequest):
    memory = await app.state.state_service.load(request.user_id, request.session_id) or {"history": []}
    history = memory["history"] + [{"role": message.role, "content": message.text} for message in msgs]
    answer = thought = ""
    try:
        # `aclosing` ends the upstream request together with this run, also when the run is stopped.
        async with aclosing(complete(history, request)) as deltas:
            async for delta in deltas:
                if more := delta.get("reasoning_content") or delta.get("reasoning"):
                    thought += more
                    # A pair (message, last): the message so far. Only the new content is sent.
                    yield Message.reasoning(thought), False
                if more := delta.get("content"):
                    thought = ""
                    answer += more
                    yield more
    except ModelError as error:
        # The text of an exception is never sent to clients, but that of a message is.
        yield Message(type="error", code="model_error", message=str(error))
        raise
    finally:
        # The part of the answer that was sent belongs to the conversation, also after a stop.
        if answer:
            history.append({"role": "assistant", "content": answer})
            await app.state.state_service.save(request.user_id, request.session_id, {"history": history})


async def complete(history: list[dict[str, str]], request: AgentRequest) -> AsyncGenerator[dict[str, Any], None]:
    """The deltas of one completion.

    Raises:
        ModelError: in words that may be shown to the client.
    """
    body = {"model": request.model or MODEL, "messages": history, "stream": True}
    for name in ("temperature", "top_p", "max_tokens", "seed"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    try:
        async with app.state.client.stream("POST", "chat/completions", json=body) as response:
            if response.is_error:
                raise ModelError(f"The model's server answered {response.status_code} {response.reason_phrase}.")
            async for line in response.aiter_lines():
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                if line.startswith("data:"):
                    chunk = orjson.loads(data)
                    if "error" in chunk:
                        raise ModelError("The model's server reported an error in the middle of its answer.")
                    for choice in chunk.get("choices", ()):
                        yield choice.get("delta") or {}
            raise ModelError("The model's server broke off before the end of its answer.")
    except httpx.TimeoutException as error:
        raise ModelError("The model's server took too long.") from error
    except httpx.HTTPError as error:
        raise ModelError("The model's server cannot be reached, or hung up.") from error
    except orjson.JSONDecodeError as error:
        raise ModelError("The model's server sent something that is not JSON.") from error


if __name__ == "__main__":
    app.run()
