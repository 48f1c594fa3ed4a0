"""The user that a reverse proxy names. The addresses are those of real connections, or of the ASGI scope."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.datastructures import Headers

from trio_agentapp.auth import TrustedProxyHeader
from trio_agentapp.errors import ConfigurationError, InvalidCredentials


class Asked:
    """A request from this address, as far as the hook looks at it."""

    def __init__(self, address: str | None, *headers: tuple[str, str]) -> None:
        self.scope = {"type": "http", "client": None if address is None else (address, 1)}
        self.headers = Headers(headers)


async def user(hook: TrustedProxyHeader, *request: Any) -> Any:
    found = await hook(Asked(*request))  # type: ignore[arg-type]
    return None if found is None else (found.user_id, sorted(found.scopes))


PROXY = TrustedProxyHeader(
    "X-User", trusted=["10.0.0.7", "192.168.0.0/16", "2001:db8::/32"], scopes_header="X-Scopes"
)
ANNA = ("X-User", "anna")


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.3.4", "2001:db8::1", "::ffff:10.0.0.7"])
async def test_a_trusted_address(address: str) -> None:
    assert await user(PROXY, address, ANNA) == ("anna", [])
    assert await user(PROXY, address, ANNA, ("X-Scopes", "read write")) == ("anna", ["read", "write"])
    assert await user(PROXY, address) is None


@pytest.mark.parametrize("address", ["10.0.0.8", "127.0.0.1", "::1", "", None, "<local>", "::ffff:10.0.0.8"])
async def test_another_address(address: str | None) -> None:
    with pytest.raises(InvalidCredentials):
        await user(PROXY, address, ANNA)
    assert await user(PROXY, address) is None


@pytest.mark.parametrize("headers", [[ANNA, ("X-User", "ben")], [("X-User", "")], [("X-User", "x" * 300)]])
async def test_a_header_that_names_no_user(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidCredentials):
        await user(PROXY, "10.0.0.7", *headers)


@pytest.mark.parametrize(
    ("trusted", "words"),
    [
        ([], "must name the address"),
        (["0.0.0.0/0"], "trusts every client"),
        (["::/0"], "trusts every client"),
        (["proxy"], "trusted: 'proxy' is no address"),
        (["10.0.0.1/8"], "has host bits set"),
    ],
)
def test_settings_that_cannot_work(trusted: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        TrustedProxyHeader("X-User", trusted=trusted)
