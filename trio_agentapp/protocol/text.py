"""Makes text of foreign values safe.

Their `__str__` may raise, and some characters break log lines or terminals.
"""

from __future__ import annotations

import re

__all__ = ["describe_exception", "escaped", "masked_url", "safe_text", "type_name", "visible"]

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, marks that reorder what a terminal shows, and lone surrogates."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_SECRET_OPTION = re.compile("(password=)[^&]*", re.IGNORECASE)


_name_of_type = type.__dict__["__name__"].__get__


def type_name(value: object) -> str:
    """Return the name of the value's type, even if a metaclass overrides `__name__`."""
    return str(_name_of_type(type(value)))


def safe_text(value: object) -> str:
    """Return `str(value)` with lone surrogates escaped.

    If `str` raises, return the type's name in angle brackets.
    """
    try:
        text = value if type(value) is str else str.__str__(str(value))
    except BaseException:  # __str__ may be a user's code
        return f"<{type_name(value)}, which has no text>"
    return text.encode(errors="backslashreplace").decode()


def describe_exception(error: BaseException) -> str:
    """Return type and text, as in `ValueError: its text`; only the type if there is no text."""
    text = safe_text(error)
    return f"{type_name(error)}: {text}" if text else type_name(error)


def escaped(text: str) -> str:
    r"""Return the text on one line, with escapes as in JSON: `\n`, `\t`, `\r`, else `\u001b`."""
    return _UNSAFE.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text)


def visible(text: str) -> str:
    """Return the text as `escaped` does, but keep line ends and tabs. It is safe to write to a terminal."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))


def masked_url(url: str) -> str:
    """Return the URL with `***` in place of what may be a password, also if the URL is invalid."""
    before, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = f"{user if colon else ''}{colon}***@{place}" if at else rest
    return before + slashes + _SECRET_OPTION.sub(r"\1***", shown)
