"""JWT: what counts, what does not, and keys that change. The provider is a server of this test."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from trio_agentapp import AgentApp
from trio_agentapp.auth import JWT
from trio_agentapp.auth import key_set as key_set_module
from trio_agentapp.errors import (
    BackendUnavailable,
    ConfigurationError,
    CredentialsExpired,
    InvalidCredentials,
)

RSA = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
EC = ec.generate_private_key(ec.SECP256R1())
ISSUER, AUDIENCE = "https://id.example.com/", "friday"


def public(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.ECAlgorithm if key is EC else jwt.algorithms.RSAAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", **more}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def token(key: Any = RSA[0], kid: str | None = "one", algorithm: str = "RS256", **claims: Any) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "iat": now, "exp": now + 600, **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={} if kid is None else {"kid": kid})


class Asked:
    """A request with this token, as far as a hook looks at it."""

    def __init__(self, text: str) -> None:
        from werkzeug.datastructures import Headers

        self.headers = Headers({"Authorization": f"Bearer {text}"})


async def principal(hook: JWT, text: str) -> Any:
    return await hook(Asked(text))  # type: ignore[arg-type]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "kid": "secret", "alg": "HS256"}
    path.write_bytes(key_set(public(RSA[0], "one"), public(EC, "ec"), secret, {"kty": "new"}))
    return path


def hook_of(jwks: Path | str, **options: Any) -> JWT:
    return JWT(issuer=ISSUER, audience=AUDIENCE, jwks=jwks, **options)


async def test_a_token_that_counts(keys: Path) -> None:
    found = await principal(hook_of(keys), token(scope="read  write", scp=["admin"], mail="a@example.com"))
    assert found.user_id == "anna"
    assert found.scopes == {"read", "write", "admin"}
    assert found.claims["mail"] == "a@example.com"
    both = hook_of(keys, algorithms=["RS256", "ES256"], user_claim="mail")
    assert (await principal(both, token(EC, "ec", "ES256", mail="a@example.com"))).user_id == "a@example.com"


def _unsigned() -> str:
    return jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": time.time() + 60}, "", "none")


def _by_secret() -> str:
    """Signed with what everybody knows, the public key, as if it were a shared secret."""
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "anna"}).encode()).decode().rstrip("=")
    return jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": claims, "exp": time.time() + 60}, "s" * 32, "HS256",
                      headers={"kid": "secret"})  # fmt: skip


WRONG = {
    "another key": lambda: token(RSA[1]),
    "an unknown key": lambda: token(kid="two"),
    "no key id, of several": lambda: token(kid=None),
    "a key of another kind": lambda: token(kid="ec"),
    "another algorithm": lambda: token(algorithm="RS512"),
    "an algorithm that is not asked for": lambda: token(EC, "ec", "ES256"),
    "no signature": _unsigned,
    "a shared secret": _by_secret,
    "another issuer": lambda: token(iss="https://id.example.org/"),
    "another audience": lambda: token(aud="saturday"),
    "no audience": lambda: token(aud=None),
    "no issuer": lambda: token(iss=None),
    "no expiry": lambda: token(exp=None),
    "not yet": lambda: token(nbf=int(time.time()) + 600),
    "no user": lambda: token(sub=None),
    "an empty user": lambda: token(sub=""),
    "a changed claim": lambda: _changed(token()),
    "no token": lambda: "x",
    "no base64": lambda: "a.b.c",
    "nesting": lambda: base64.urlsafe_b64encode(b'{"alg":' + b"[" * 9000).decode().rstrip("=") + ".e30.e30",
    "no texts": lambda: base64.urlsafe_b64encode(b'{"alg":"RS256","kid":{}}').decode() + ".e30.e30",
}


def _changed(text: str) -> str:
    header, claims, signature = text.split(".")
    body = json.loads(base64.urlsafe_b64decode(claims + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**body, "sub": "ben"}).encode()).decode().rstrip("=")
    return f"{header}.{changed}.{signature}"


@pytest.mark.parametrize("name", WRONG)
async def test_a_token_that_does_not_count(keys: Path, name: str) -> None:
    with pytest.raises(InvalidCredentials):
        await principal(hook_of(keys), WRONG[name]())


@pytest.mark.filterwarnings("ignore:The RSA key is 1024")
async def test_keys_that_cannot_be_trusted_are_left_out(keys: Path) -> None:
    short = rsa.generate_private_key(65537, 1024)
    private = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA[1])), "kid": "private"}
    private.pop("key_ops")
    await trio.Path(keys).write_bytes(
        key_set(public(short, "short"), private, {**public(RSA[1], "x"), "kid": ["list"]}, public(RSA[0], "one"))
    )
    hook = hook_of(keys)
    assert (await principal(hook, token())).user_id == "anna"
    for key, kid in ((RSA[1], "private"), (short, "short")):
        with pytest.raises(InvalidCredentials):
            await principal(hook, token(key, kid))
    await trio.Path(keys).write_bytes(key_set(private))
    with pytest.raises(ConfigurationError, match="no public key"):
        hook_of(keys)


async def test_an_expired_token(keys: Path) -> None:
    now = int(time.time())
    with pytest.raises(CredentialsExpired):
        await principal(hook_of(keys), token(exp=now - 60))
    # Within the leeway, and one with another key is wrong, not expired.
    assert (await principal(hook_of(keys, leeway=300), token(exp=now - 60))).user_id == "anna"
    with pytest.raises(InvalidCredentials):
        await principal(hook_of(keys), token(RSA[1], exp=now - 60))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algorithms": ["HS256"]}, "algorithms must be a list of RS256"),
        ({"algorithms": ["none"]}, "algorithms must be a list of RS256"),
        ({"algorithms": "RS256"}, "algorithms must be a list of RS256"),
        ({"algorithms": []}, "algorithms must be a list of RS256"),
        ({"issuer": ""}, "issuer and audience must not be empty"),
        ({"audience": []}, "issuer and audience must not be empty"),
        ({"jwks": "http://id.example.com/keys"}, "must be https"),
        ({"jwks": "ftp://localhost/keys"}, "must be https"),
        ({"jwks": "/does/not/exist"}, "cannot be read"),
    ],
)
def test_settings_that_cannot_work(keys: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        JWT(**{"issuer": ISSUER, "audience": AUDIENCE, "jwks": keys, **options})


class Provider:
    """An identity provider: `answer` is what it sends."""

    def __init__(self) -> None:
        self.answer: bytes | None = key_set(public(RSA[0], "one"))
        self.status = "200 OK"
        self.asked = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            self.asked += 1
            if self.answer is None:
                await trio.sleep_forever()
            head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.answer)}\r\nConnection: close\r\n\r\n"
            await stream.send_all(head.encode() + self.answer)


@asynccontextmanager
async def providing() -> AsyncIterator[tuple[Provider, str]]:
    provider = Provider()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, provider.serve, listeners)
        yield provider, f"http://127.0.0.1:{port}/keys"
        nursery.cancel_scope.cancel()


async def test_keys_from_a_url_are_fetched_once_and_again_for_a_new_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async with providing() as (provider, url):
        hook = hook_of(url)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(principal, hook, token())
        assert provider.asked == 1
        # Made-up key ids do not make it fetch again at once.
        for n in range(5):
            with pytest.raises(InvalidCredentials):
                await principal(hook, token(RSA[1], f"k{n}"))
        assert provider.asked == 1
        monkeypatch.setattr(key_set_module, "RETRY_INTERVAL", 0.0)
        provider.answer = key_set(public(RSA[1], "two"))
        assert (await principal(hook, token(RSA[1], "two"))).user_id == "anna"
        assert provider.asked == 2
        # The old key is withdrawn.
        with pytest.raises(InvalidCredentials):
            await principal(hook, token())


async def test_a_provider_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(key_set_module, "RETRY_INTERVAL", 0.0)
    monkeypatch.setattr(key_set_module, "FETCH_TIMEOUT", 0.2)
    async with providing() as (provider, url):
        hook = hook_of(url.replace("://", "://app:geheim@"))
        good = provider.answer
        for answer, status in (
            (None, ""),
            (good, "500 Broken"),
            (good, "302 Found"),
            (b"[]", "200 OK"),
            (b'{"keys": []}', "200 OK"),
            (b" " * (key_set_module.MAX_ANSWER + 1), "200 OK"),
        ):
            provider.answer, provider.status = answer, status
            with pytest.raises(BackendUnavailable):
                await principal(hook, token())
        assert caplog.text.count("cannot be fetched") == 6
        assert "geheim" not in caplog.text
        provider.answer, provider.status = good, "200 OK"
        assert (await principal(hook, token())).user_id == "anna"
        # What it has is used while the provider is away, but not for ever.
        monkeypatch.setattr(key_set_module, "REFRESH_INTERVAL", 0.0)
        provider.answer = None
        assert (await principal(hook, token())).user_id == "anna"
        monkeypatch.setattr(key_set_module, "MAX_STALE", 0.0)
        with pytest.raises(BackendUnavailable):
            await principal(hook, token())


async def test_a_client_that_hangs_up_does_not_cost_the_others_the_keys() -> None:
    async with providing() as (provider, url):
        hook = hook_of(url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(principal, hook, token())
            while not provider.asked:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert (await principal(hook, token())).user_id == "anna"
        assert provider.asked == 1


async def test_the_answers_of_an_app(keys: Path) -> None:
    app = AgentApp(authenticate=hook_of(keys))

    @app.query()
    async def chat(request: Any) -> Any:
        yield request.user_id

    async with app.runtime():
        client = app.test_client()
        for text, status, code in (
            (token(), 200, None),
            (token(exp=1), 401, "credentials_expired"),
            (token(RSA[1]), 401, "invalid_credentials"),
        ):
            answer = await client.get("/runs", headers={"Authorization": f"Bearer {text}"})
            assert answer.status_code == status
            assert (await answer.get_json()).get("code") == code
