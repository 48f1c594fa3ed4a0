"""Text of values that are not ours: it may raise while it is made, and may hold what no line and no UTF-8 can."""

from __future__ import annotations

import re

__all__ = ["describe_exception", "escaped", "masked_url", "safe_text", "type_name", "visible"]

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, marks that reorder what a terminal shows, and lone surrogates."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_SECRET_OPTION = re.compile("(password=)[^&]*", re.IGNORECASE)


_name_of_type = type.__dict__["__name__"].__get__


def type_name(value: object) -> str:
    """The name of its type, whatever the type's own class makes of `__name__`."""
    return str(_name_of_type(type(value)))


def safe_text(value: object) -> str:
    """`str(value)`, without lone surrogates; the name of its type in angle brackets where that raises."""
    try:
        text = value if type(value) is str else str.__str__(str(value))
    except BaseException:  # the value is a user's, and so is its __str__
        return f"<{type_name(value)}, which has no text>"
    return text.encode(errors="backslashreplace").decode()


def describe_exception(error: BaseException) -> str:
    """`ValueError: its text`; the type alone where there is no text."""
    text = safe_text(error)
    return f"{type_name(error)}: {text}" if text else type_name(error)


def escaped(text: str) -> str:
    r"""The text on one line, with escapes as in JSON: `\n`, `\t`, `\r`, else `\u001b`."""
    return _UNSAFE.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text)


def visible(text: str) -> str:
    """As `escaped`, but line ends and tabs stay: what a terminal would obey is shown instead."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))


def masked_url(url: str) -> str:
    """The URL for people to read, with `***` for what may be a password, also in a URL that cannot be read."""
    before, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = f"{user if colon else ''}{colon}***@{place}" if at else rest
    return before + slashes + _SECRET_OPTION.sub(r"\1***", shown)
