"""An agent whose users prove who they are by the certificates of their connections."""

from __future__ import annotations

import os
from typing import Any

from trio_agentapp import AgentApp, AgentRequest, Timings
from trio_agentapp.auth import ClientCertificates

app = AgentApp(
    authenticate=ClientCertificates("URI"),
    require_auth=True,
    interrupt_redis_url=os.environ.get("REDIS_URL"),
    timings=Timings(
        lease=2, heartbeat=0.3, cutoff=1, offline_cleanup=0.5, margin=0.5, call_timeout=0.5, reaper=0.5
    ),
)


@app.query()
async def chat(request: AgentRequest) -> Any:
    yield f"{os.getpid()} {request.user_id}"


if __name__ == "__main__":
    app.run(host="127.0.0.1", workers=2)
