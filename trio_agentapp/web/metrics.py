"""The view of `/metrics`, and the check of its client."""

from __future__ import annotations

import attrs
import trio
from quart import Response
from quart.wrappers import Request

from ..telemetry.metrics import Metrics
from .admin import has_token
from .identity import Caller, Gate

__all__ = ["MetricsRoute"]


@attrs.frozen
class MetricsRoute:
    """Serves `/metrics`. In an app with hooks, a client needs the admin token or the permission of `authorize`."""

    metrics: Metrics
    gate: Gate
    admin_token: str | None = attrs.field(repr=False)

    async def page(self, request: Request) -> Response:
        """Return the metrics of this process, or of all workers, in the format that the request accepts.

        Raises:
            Unauthorized, Forbidden: the client may not read them.
        """
        if self.admin_token is None or not has_token(request, self.admin_token):
            await self.gate.may_measure(Caller(await self.gate.identify(request, counted=False)))
        self.metrics.refresh()
        body, content_type = await trio.to_thread.run_sync(self.metrics.page, request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)
