"""The error for an item of a framework that its adapter cannot translate."""

from __future__ import annotations

from ..errors import ItemError

__all__ = ["untranslated"]


def untranslated(framework: str, what: str, key: str) -> ItemError:
    """Return the error for `what`, such as "a block of type 'x'". `key`: the `type_converters` key, as code."""
    return ItemError(
        f"{framework} streamed {what}, which has no translation; give one by "
        f"query(framework={framework!r}, type_converters={{{key}: function}})"
    )
