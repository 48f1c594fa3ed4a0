"""The API of a service, through one of Alibaba's OpenAPI SDKs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..extras import needed
from .calls import Calls
from .configs import AccessKey, address_of

__all__ = ["Api"]


class Api:
    """The SDK `package`, its client and its requests.

    Raises:
        ConfigurationError: a part of the configuration is missing or cannot be used, or the extra is not installed.
    """

    def __init__(
        self,
        config: AccessKey,
        service: str,
        endpoint: str,
        policy: str,
        package: str,
        extra: str,
        hidden: Sequence[str],
    ) -> None:
        config.ensure_valid()
        protocol, host = address_of(endpoint)
        milliseconds = int(config.request_timeout * 1000)
        self.models = needed(f"{package}.models", extra)
        self._options = needed("darabonba.runtime", extra).RuntimeOptions
        self._client = needed(f"{package}.client", extra).Client(
            needed("alibabacloud_tea_openapi.models", extra).Config(
                access_key_id=config.access_key_id,
                access_key_secret=config.access_key_secret,
                security_token=config.security_token,
                region_id=getattr(config, "region_id", None),
                endpoint=host,
                protocol=protocol,
                connect_timeout=milliseconds,
                read_timeout=milliseconds,
            )
        )
        self.call = Calls(service, endpoint, policy, [*config.secrets, *hidden])

    async def do(self, what: str, method: str, *args: Any, repeatable: bool = True) -> Any:
        """Call a method of the client, and return the body of its answer. Raises as `Calls` does."""
        call = getattr(self._client, f"{method}_with_options")
        done = await self.call(what, lambda: call(*args, {}, self._options()), repeatable=repeatable)
        return getattr(done, "body", None)  # an answer to DELETE has none

    def request(self, kind: str, values: Mapping[str, Any] | None = None, body: str | None = None) -> Any:
        """A request; with `values`, spelt as in JSON, its body is a `body`, by default `KIND` + `Input`."""
        request = getattr(self.models, f"{kind}Request")()
        if values is not None:
            request.body = getattr(self.models, body or f"{kind}Input")().from_map(dict(values))
        return request
