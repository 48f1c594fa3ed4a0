"""The API of a service, through one of Alibaba's OpenAPI SDKs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ..extras import needed
from .calls import Calls
from .configs import AccessKey, address_of

__all__ = ["Api"]


class Api:
    """The SDK of a service, its client and its requests. `hidden`: values that no error message shows.

    Raises:
        ConfigurationError: a part of the configuration is missing or cannot be used, or the extra is not installed.
    """

    service: ClassVar[str]
    policy: ClassVar[str]
    """The RAM policy that an account needs."""
    package: ClassVar[str]
    """The module of the SDK."""
    extra: ClassVar[str]
    """The extra of this package that installs it."""

    def __init__(self, config: AccessKey, endpoint: str, hidden: Iterable[str]) -> None:
        config.ensure_valid()
        protocol, host = address_of(endpoint)
        milliseconds = int(config.request_timeout * 1000)
        self.models = needed(f"{self.package}.models", self.extra)
        self._options = needed("darabonba.runtime", self.extra).RuntimeOptions
        self._client = needed(f"{self.package}.client", self.extra).Client(
            needed("alibabacloud_tea_openapi.models", self.extra).Config(
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
        self.call = Calls(self.service, endpoint, self.policy, [*config.secrets, *hidden])

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
