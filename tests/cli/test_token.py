"""`trio-agentapp token`: a key for a client, and the line for the file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from trio_agentapp.auth.keys import parse_keys
from trio_agentapp.errors import CredentialsExpired

from .conftest import Shell


def test_the_line_goes_into_the_file_and_the_key_is_shown_once(shell: Shell) -> None:
    lines, keys = [], []
    for words in (
        ("anna",),
        ("anna", "--name", "laptop", "--scope", "read", "--scope", "list", "--expires", "90d"),
    ):
        done = shell.call("token", *words)
        lines.append(done.stdout)
        keys.append(done.stderr.strip().rpartition(" ")[2])
        assert keys[-1].startswith("agk_")
        assert keys[-1] not in done.stdout
    assert json.loads(lines[0]).keys() == {"name", "user", "sha256"}
    ring = parse_keys("".join(lines).encode())
    now = datetime.now(UTC)
    assert ring.check(keys[0], now).name == "anna"
    found = ring.check(keys[1], now)
    assert (found.user, found.name, found.scopes) == ("anna", "laptop", ("read", "list"))
    with pytest.raises(CredentialsExpired):
        ring.check(keys[1], now + timedelta(days=91))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("", "--name", "n"), "the key has a user that cannot be used"),
        (("anna", "--name", "a\nb"), "the key has a name that cannot be used"),
        (("anna", "--expires", "soon"), "--expires soon: give a date such as 2030-01-31, or days such as 90d"),
        (("anna", "--expires", "2020-01-01"), "--expires 2020-01-01 is in the past"),
        (("anna", "--expires", "9" * 12 + "d"), "give a date"),
    ],
)
def test_a_key_that_cannot_be_made(shell: Shell, words: tuple[str, ...], message: str) -> None:
    done = shell.call("token", *words, code=2)
    assert message in done.stderr
    assert not done.stdout
    assert "agk_" not in done.stderr
