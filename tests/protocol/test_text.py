"""Text of foreign values: always made, always one line where a line is wanted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agentapp.protocol.text import describe_exception, escaped, safe_text


class Raising(Exception):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


class Strange(str):
    def __str__(self) -> str:
        return self

    def encode(self, *_args: object, **_options: object) -> bytes:
        raise ValueError("not today")


@pytest.mark.parametrize(
    "error", [ValueError(), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), RecursionError()]
)
def test_an_exception_whose_text_raises_is_named(error: BaseException) -> None:
    assert describe_exception(Raising(error)) == "Raising: <Raising, which has no text>"


def test_descriptions() -> None:
    assert describe_exception(ValueError("no such city")) == "ValueError: no such city"
    assert describe_exception(ValueError()) == "ValueError"
    assert safe_text(Strange("yes")) == "yes"
    assert safe_text(b"x") == "b'x'"


def test_escapes() -> None:
    assert escaped("a\nb\tc\x1b[2J\x9b\u2028\u202e\ud800") == r"a\nb\tc\u001b[2J\u009b\u2028\u202e\ud800"
    assert escaped("Grüße, 你好 🙂") == "Grüße, 你好 🙂"


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_one_line_of_utf8(text: str) -> None:
    assert len(escaped(text).splitlines()) <= 1
    escaped(text).encode()
    safe_text(text).encode()
