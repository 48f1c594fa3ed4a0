"""The response of `/metrics`."""

from __future__ import annotations

import trio
from quart import Response
from quart.wrappers import Request

from ..telemetry.metrics import Metrics

__all__ = ["metrics_page"]


async def metrics_page(metrics: Metrics, request: Request) -> Response:
    """The metrics of this process, or of all workers, in the format that the request accepts."""
    metrics.refresh()
    body, content_type = await trio.to_thread.run_sync(metrics.page, request.headers.get("Accept", ""))
    return Response(body, content_type=content_type)
