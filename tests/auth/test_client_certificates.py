"""The user that a certificate names. Certificates are as `getpeercert` returns them; real ones are in tests/e2e."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from trio_agentapp import AgentApp
from trio_agentapp.app.serving import check_certificates, serve_app
from trio_agentapp.auth import ClientCertificates
from trio_agentapp.errors import ConfigurationError, CredentialsExpired, InvalidCredentials, Unauthorized
from trio_agentapp.server.extensions import CLIENT_CERTIFICATE, PEER

ANNA = {
    "subject": ((("organizationName", "Example"),), (("commonName", "anna"),)),
    "issuer": ((("commonName", "ca"),),),
    "serialNumber": "0A1B",
    "notBefore": "Jan  1 00:00:00 2020 GMT",
    "notAfter": "Jan  1 00:00:00 2120 GMT",
    "subjectAltName": (
        ("DNS", "anna.example.com"),
        ("email", "anna@example.com"),
        ("URI", "spiffe://example.com/anna"),
        ("DNS", "anna.internal"),
        ("IP Address", "10.0.0.7"),
    ),
}


class Asked:
    """A request of a connection with these extensions, as far as the hook looks at it."""

    def __init__(self, **extensions: Any) -> None:
        names = {"certificate": CLIENT_CERTIFICATE, "peer": PEER}
        self.scope = {"type": "http", "extensions": {names[name]: value for name, value in extensions.items()}}


async def principal(hook: ClientCertificates, certificate: Any, **more: Any) -> Any:
    return await hook(Asked(certificate=certificate, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "user"),
    [("CN", "anna"), ("email", "anna@example.com"), ("URI", "spiffe://example.com/anna")],
)
async def test_the_field_that_names_the_user(field: Any, user: str) -> None:
    found = await principal(ClientCertificates(field), ANNA)
    assert (found.user_id, found.scopes, found.claims["serialNumber"]) == (user, frozenset(), "0A1B")
    assert await principal(ClientCertificates(field), {}) is None


@pytest.mark.parametrize("scopes", [["read", "write"], "read write", ("write", "read")])
async def test_names_with_scopes(scopes: Any) -> None:
    hook = ClientCertificates("DNS", scopes={"anna.internal": scopes, "ben.internal": []})
    found = await principal(hook, ANNA)
    assert (found.user_id, found.scopes) == ("anna.internal", {"read", "write"})
    with pytest.raises(InvalidCredentials):
        await principal(ClientCertificates("DNS", scopes={"ben.internal": []}), ANNA)
    with pytest.raises(InvalidCredentials):
        await principal(ClientCertificates(scopes={}), ANNA)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("DNS", {}),
        ("CN", {"subject": ((("organizationName", "anna"),),)}),
        ("CN", {"subject": ((("commonName", "anna"), ("commonName", "ben")),)}),
        ("CN", {"subject": ((("commonName", "anna\x00ben"),),)}),
        ("CN", {"subject": ((("commonName", ""),),)}),
        ("CN", {"subject": ((("commonName", "anna" * 100),),)}),
        ("URI", {"subjectAltName": (("DNS", "spiffe://example.com/anna"),)}),
        ("email", {"subjectAltName": ()}),
    ],
)
async def test_a_certificate_that_names_no_user_or_two(
    field: Any, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(InvalidCredentials):
        await principal(ClientCertificates(field), {**ANNA, **change})
    [line] = caplog.messages
    assert line.startswith("the client certificate with serial number 0A1B was refused: it")
    assert "anna" not in line
    if field != "CN":
        bare = {name: value for name, value in ANNA.items() if name != "subjectAltName"}
        with pytest.raises(InvalidCredentials):
            await principal(ClientCertificates(field), bare)


async def test_one_that_expires_while_its_connection_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    hook, certificate = ClientCertificates(), {**ANNA, "notAfter": "Jun 10 12:00:00 2030 GMT"}
    for moment, expired in ((1907323199.0, False), (1907323201.0, True)):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        if not expired:
            assert (await principal(hook, certificate)).user_id == "anna"
            continue
        with pytest.raises(CredentialsExpired):
            await principal(hook, certificate)


async def test_what_the_server_cannot_see_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unauthorized, match="cannot see client certificates"):
        await ClientCertificates()(Asked())  # type: ignore[arg-type]
    assert "this server does not ask clients for certificates; serve with TLS" in caplog.text
    with pytest.raises(Unauthorized, match="cannot see client certificates"):
        await principal(ClientCertificates(), ANNA, peer="10.0.0.1")
    assert "the certificate of a connection is the proxy's" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"user_field": "cn"}, "user_field must be one of CN, DNS, email, URI, not 'cn'"),
        ({"scopes": {"": ["read"]}}, "scopes: the name '' must not be empty"),
    ],
)
def test_options_that_cannot_be_used(options: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ClientCertificates(**options)


def test_an_app_behind_a_proxy_does_not_start() -> None:
    app = AgentApp(authenticate=ClientCertificates(), trusted_proxies=["10.0.0.1"])
    with pytest.raises(ConfigurationError, match="use TrustedProxyHeader"):
        check_certificates(app, asked=True)


def test_a_server_that_does_not_ask_does_not_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(ConfigurationError, match="--ca-certs, or"):
        serve_app(AgentApp(authenticate=ClientCertificates()), port=busy.getsockname()[1])
