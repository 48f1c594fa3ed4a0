"""Counts refusals by the limit that was reached, for the metric `agent_limit_refusals_total`.

The counts are those of the process, as metrics are. docs/reference/limits.md lists the names.
"""

from __future__ import annotations

from collections import Counter

__all__ = ["note_refusal", "refusals"]

refusals: Counter[str] = Counter()
"""How often each limit was reached since the start of the process."""


def note_refusal(limit: str) -> None:
    """Count one refusal. `limit` is a name from docs/reference/limits.md, never a text of a client."""
    refusals[limit] += 1
