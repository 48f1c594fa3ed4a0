"""An app with a protocol of its own: counted lines of text, which end at a question."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import trio
from quart import Response
from quart.wrappers import Request

from trio_agentapp import AgentApp, AgentRequest, ProtocolAdapter, Rejected, Run
from trio_agentapp.protocol.events import ContentEvent, Event, MessageEvent, ResponseEvent
from trio_agentapp.protocol.sse import PREAMBLE
from trio_agentapp.runs import Gap

FIFO_SIZE = 200_000


class Lines:
    preamble = PREAMBLE

    def __init__(self) -> None:
        self.ended = False
        self.count = 0

    def spell(self, event: Event | Gap) -> bytes:
        if isinstance(event, ContentEvent) and event.delta:
            self.count += 1
            return f"data: {self.count} {event.text.upper()}\n\n".encode()
        if isinstance(event, MessageEvent) and event.type == "mcp_approval_request" and event.content is not None:
            self.ended = True
            return b"data: ASKS %b\n\n" % event.content[-1].data["id"].encode()
        if isinstance(event, ResponseEvent) and event.terminal:
            return f"data: {event.status.upper()}\n\n".encode()
        return b""

    def trailer(self) -> bytes:
        return b"data: BYE\n\n"


class Shout(ProtocolAdapter):
    name = "shout"

    def routes(self) -> Any:
        return [("POST", "/shout", self.shout), ("GET", "/shout/<run_id>", self.again), ("GET", "/", self.root)]

    async def shout(self, request: Request) -> Response:
        fields = json.loads(await request.get_data())
        asked = AgentRequest(input=fields["text"], id=fields.get("id"), on_disconnect="continue")
        watched = await self.app.access.start(await self.caller(request), asked)
        return self.stream(request, watched, Lines(), {"X-Loud": "yes"})

    async def again(self, request: Request, run_id: str) -> Response:
        watched = await self.app.access.attach(await self.caller(request), run_id)
        assert watched is not None
        return self.stream(request, watched, Lines())

    async def root(self, request: Request) -> Response:
        return Response(f"{self.app.name} shouts")

    async def before_drain(self) -> None:
        sys.stderr.write("before the drain\n")
        sys.stderr.flush()


app = AgentApp(app_name="Loud", protocol_adapters=[Shout()])


@app.query()
async def chat(msgs: Any, request: AgentRequest, run: Run) -> AsyncIterator[str]:
    match msgs[-1].text:
        case "slow":
            for _ in range(20):
                yield "word "
                await trio.sleep(0.02)
        case "big":
            for letter in "abcdefgh":
                yield letter * FIFO_SIZE
                await trio.sleep(0.01)
        case "ask":
            yield "hm "
            answer = await run.ask("really?")
            yield f"so {answer}"
        case "no":
            yield "well, "
            raise Rejected("I do not answer this.")
        case "no, from a child":
            run.start_soon(refuse)
            await trio.sleep_forever()


async def refuse() -> None:
    raise Rejected("Nor this.")


if __name__ == "__main__":
    app.run(port=0)
