"""Stream a chat model from any server with the OpenAI chat-completions protocol.

`OPENAI_API_KEY=... python examples/openai_compatible/app.py` starts it. OPENAI_BASE_URL and OPENAI_MODEL choose
another server and model.
"""

import os
import sys
from contextlib import aclosing

from trio_agentapp import AgentApp, AgentRequest, Message
from trio_agentapp.agents import ChatModel, ModelError, chat_messages

API_KEY = os.environ.get("OPENAI_API_KEY")

if not API_KEY:
    sys.exit(
        "OPENAI_API_KEY is not set, so the model's server would refuse every request.\n"
        "Set it to your key; for a local server that wants none, any word will do."
    )

model = ChatModel(
    os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
    base_url=os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
    api_key=API_KEY,
)
app = AgentApp(app_name="Chat", app_description=f"Talks to {model.model}", lifespan=model.lifespan)


@app.query()
async def chat(msgs: list[Message], request: AgentRequest):
    memory = await app.state.state_service.load(request.user_id, request.session_id) or {"history": []}
    history = memory["history"] + chat_messages(msgs)
    wanted = {name: getattr(request, name) for name in ("model", "temperature", "top_p", "max_tokens", "seed")}
    options = {name: value for name, value in wanted.items() if value is not None}
    answer = thought = ""
    try:
        # `aclosing` ends the upstream request together with this run, also when the run is stopped.
        async with aclosing(model.stream(history, **options)) as chunks:
            async for chunk in chunks:
                if chunk.reasoning:
                    thought += chunk.reasoning
                    # A pair (message, last): the message so far. Only the new content is sent.
                    yield Message.reasoning(thought), False
                if chunk.text:
                    thought = ""
                    answer += chunk.text
                    yield chunk.text
    except ModelError as error:
        # The text of an exception is never sent to clients, but that of a message is.
        yield Message(type="error", code=error.code, message=error.summary)
        raise
    finally:
        # The part of the answer that was sent belongs to the conversation, also after a stop.
        if answer:
            history.append({"role": "assistant", "content": answer})
            await app.state.state_service.save(request.user_id, request.session_id, {"history": history})


if __name__ == "__main__":
    app.run()
