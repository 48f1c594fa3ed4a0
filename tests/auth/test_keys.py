"""Keys in a file, and the file that is read again."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trio_agentapp import AgentApp
from trio_agentapp.auth import BearerTokens, watched_file
from trio_agentapp.auth.keys import KeyRecord, hash_of, line_of, new_key, parse_keys
from trio_agentapp.errors import ConfigurationError, CredentialsExpired, InvalidCredentials

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def record(name: str, key: str, **options: Any) -> KeyRecord:
    return KeyRecord(name=name, user=options.pop("user", "anna"), sha256=hash_of(key), **options)


def test_a_key_is_found_and_its_file_does_not_have_it() -> None:
    keys = [new_key() for _ in range(3)]
    text = "\n".join(line_of(record(f"k{n}", key, user=f"u{n}", scopes=("a", "b"))) for n, key in enumerate(keys))
    assert not any(key in text for key in keys)
    ring = parse_keys(text.encode())
    for n, key in enumerate(keys):
        found = ring.check(key, NOW)
        assert (found.name, found.user, found.scopes) == (f"k{n}", f"u{n}", ("a", "b"))
    for wrong in ("", new_key(), keys[0][:-1], keys[0] + "x", hash_of(keys[0]), "\udcff"):
        with pytest.raises(InvalidCredentials):
            ring.check(wrong, NOW)


def test_a_key_with_the_same_index_but_another_hash_does_not_count() -> None:
    key = new_key()
    digest = hash_of(key)
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    line = line_of(KeyRecord(name="n", user="u", sha256=other))
    with pytest.raises(InvalidCredentials):
        parse_keys(line.encode()).check(key, NOW)


def test_a_key_expires() -> None:
    key = new_key()
    ring = parse_keys(line_of(record("k", key, expires=NOW)).encode())
    assert ring.check(key, NOW - timedelta(seconds=1)).name == "k"
    with pytest.raises(CredentialsExpired):
        ring.check(key, NOW)
    day = line_of(record("k", key)).replace("}", ',"expires":"2030-01-01"}')
    with pytest.raises(CredentialsExpired):
        parse_keys(day.encode()).check(key, NOW)


GOOD = line_of(record("a", "k"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# fine\nkey", "line 2 is not a JSON object; `trio-agentapp token`"),
        ("[]", "line 1 is not a JSON object"),
        ("{}", "line 1 has a name that cannot be used"),
        (GOOD.replace("anna", ""), "line 1 has a user that cannot be used: it must not be empty"),
        (GOOD.replace(hash_of("k"), "k"), "line 1 has no hash"),
        (GOOD.replace(hash_of("k"), hash_of("k").upper()), "line 1 has no hash"),
        (GOOD.replace("}", ',"scopes":"read"}'), "line 1 has scopes that are not a list"),
        (GOOD.replace("}", ',"expires":"soon"}'), "line 1 has the expiry 'soon'"),
        (GOOD.replace("}", ',"expire":"2030-01-01"}'), "line 1 has the field 'expire'"),
        (GOOD + "\n" + GOOD.replace(hash_of("k"), hash_of("l")), "line 2 has the name 'a' again"),
        (GOOD + "\n" + GOOD.replace('"a"', '"b"'), "line 2 has the key of another line"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="keys: line") as caught:
        BearerTokens(path)
    assert words in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        BearerTokens(tmp_path / "none")


def app_with(keys: Path) -> AgentApp:
    app = AgentApp(authenticate=BearerTokens(keys, header="X-API-Key"))

    @app.query()
    async def chat(request: Any) -> Any:
        yield request.user_id

    return app


async def test_the_file_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watched_file, "LOOK_INTERVAL", 0.0)
    first, second = new_key(), new_key()
    path = tmp_path / "keys"
    path.write_text(line_of(record("first", first)))
    app = app_with(path)
    async with app.runtime():
        client = app.test_client()

        async def status(key: str) -> int:
            answer = await client.get("/runs", headers={"Authorization": f"bearer {key}"})
            return answer.status_code

        assert [await status(first), await status(second)] == [200, 401]
        path.write_text(line_of(record("second", second)))
        assert [await status(first), await status(second)] == [401, 200]
        # One that was written by another process, and moved here with an old time.
        (tmp_path / "new").write_text(line_of(record("first", first)))
        os.utime(tmp_path / "new", (1, 1))
        os.replace(tmp_path / "new", path)
        assert [await status(first), await status(second)] == [200, 401]
        path.write_text("broken")
        assert [await status(first), await status(second)] == [200, 401]
        assert (
            "line 1 is not a JSON object; `trio-agentapp token` prints lines of this file; what it had"
            in caplog.text
        )
        path.unlink()
        assert await status(first) == 401
        assert "is gone" in caplog.text
        path.write_text(line_of(record("first", first)))
        assert await status(first) == 200


async def test_where_the_key_may_be(tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "keys").write_text(line_of(record("k", key)))
    app = app_with(tmp_path / "keys")
    async with app.runtime():
        client = app.test_client()
        cases: list[tuple[list[tuple[str, str]], int, str | None]] = [
            ([("Authorization", f"Bearer {key}")], 200, None),
            ([("X-API-Key", key)], 200, None),
            ([("Authorization", f"Basic {key}")], 401, "unauthorized"),
            ([("Authorization", "Bearer")], 401, "unauthorized"),
            ([("Authorization", f"Bearer {key}"), ("Authorization", "Bearer x")], 401, "invalid_credentials"),
            ([("X-API-Key", key), ("X-API-Key", key)], 401, "invalid_credentials"),
            ([("Authorization", "Bearer " + "x" * 20_000)], 401, "invalid_credentials"),
            ([("Authorization", "Bearer wrong"), ("X-API-Key", key)], 401, "invalid_credentials"),
        ]
        for headers, status, code in cases:
            answer = await client.get("/runs", headers=headers)
            assert answer.status_code == status, headers
            if code is not None:
                assert (await answer.get_json())["code"] == code
                challenge = answer.headers["WWW-Authenticate"]
                assert challenge.startswith("Bearer")
                assert ("invalid_token" in challenge) == (code != "unauthorized")
