"""Identifiers and session keys."""

import hashlib

import pytest

from trio_agentapp.protocol import SessionKey, identifier_fault, is_run_id, new_run_id, new_session_id


def test_keys_whose_plain_joining_would_meet_do_not_meet() -> None:
    assert SessionKey("a:b", "c").digest != SessionKey("a", "b:c").digest
    assert SessionKey("1:a", "b").digest != SessionKey("1", ":ab").digest


def test_digest_is_the_one_other_nodes_compute() -> None:
    assert SessionKey("ü", "s").digest == hashlib.sha256("1:üs".encode()).hexdigest()[:32]


def test_fresh_ids_are_valid_and_differ() -> None:
    ids = {new_run_id() for _ in range(100)} | {new_session_id() for _ in range(100)}
    assert len(ids) == 200
    assert all(is_run_id(text) for text in ids)


@pytest.mark.parametrize("text", ["abcdefgh", "A_-0" * 16])
def test_run_ids(text: str) -> None:
    assert is_run_id(text)


@pytest.mark.parametrize(
    "text", ["", "abcdefg", "a" * 65, "abcdefg\n", "abcdefgh\n", "abc defgh", "äbcdefgh", "abcdefg/"]
)
def test_no_run_ids(text: str) -> None:
    assert not is_run_id(text)


@pytest.mark.parametrize("text", ["a", "x" * 256, "Ünïcode 你好", "a:b/c?d", "\u2028"])
def test_identifiers(text: str) -> None:
    assert identifier_fault(text) is None


@pytest.mark.parametrize(
    "text", ["", "x" * 257, "a\nb", "a\rb", "a\0", "\x1b[2J", "\x7f", "\x85", "\x9b", "\ud800"]
)
def test_no_identifiers(text: str) -> None:
    assert identifier_fault(text)
