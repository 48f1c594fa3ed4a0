"""The error for what a framework streams and its adapter does not know."""

from __future__ import annotations

from ..errors import ItemError

__all__ = ["untranslated"]


def untranslated(framework: str, what: str, key: str) -> ItemError:
    """Return the error for `what`, such as "a block of type 'x'". `key`: its key in `type_converters`, as code."""
    return ItemError(
        f"{framework} streamed {what}, which has no translation; give one by "
        f"query(framework={framework!r}, type_converters={{{key}: function}})"
    )
