"""Looks runs up in Redis, by run id and by user."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.ids import SessionKey
from ..protocol.keys import Layout
from ..protocol.lifecycle import RunRecord
from ..redis import RedisLink
from .answers import record_from, text
from .scripts import Scripts

__all__ = ["list_runs", "read_records"]


async def read_records(
    link: RedisLink, layout: Layout, scripts: Scripts, run_ids: Sequence[str]
) -> list[RunRecord | None]:
    """Return the records of runs, None for unknown ones. It takes two round trips for any number of runs."""
    records: list[RunRecord | None] = [None] * len(run_ids)
    lookups = await link.ask(*[("HMGET", layout.run(run_id), "h", "user", "session") for run_id in run_ids])
    known = [(place, *found) for place, found in enumerate(lookups) if found[0] is not None]
    calls = [scripts.bind("status", text(digest), run_ids[place]) for place, digest, _, _ in known]
    for (place, _, user, session), answer in zip(known, await link.ask(*calls), strict=True):
        if answer[4]:
            records[place] = record_from(run_ids[place], SessionKey(text(user), text(session)), answer[4])
    return records


async def list_runs(
    link: RedisLink, layout: Layout, scripts: Scripts, user_id: str, before: str | None, limit: int
) -> tuple[Sequence[RunRecord], str | None]:
    """Return a page of a user's runs, see `RunListing.list_runs`.

    Expired runs are removed from the user's index.
    """
    index = layout.user(user_id)
    rank = 0
    if before is not None:
        [place] = await link.ask(("ZREVRANK", index, before))
        if place is None:
            return [], None
        rank = int(place) + 1
    [members] = await link.ask(("ZREVRANGE", index, rank, rank + limit))
    run_ids = [text(member) for member in members]
    records = await read_records(link, layout, scripts, run_ids[:limit])
    more = run_ids[limit - 1] if len(run_ids) > limit else None
    # The last run of the page stays in the index, even if it has expired: the next page begins after it.
    gone = [
        run_id for run_id, record in zip(run_ids[:limit], records, strict=True) if record is None and run_id != more
    ]
    if gone:
        await link.ask(("ZREM", index, *gone))
    return [record for record in records if record is not None and record.started_at is not None], more
