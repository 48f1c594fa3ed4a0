"""Packs records of ended runs into bytes, which the garbage collector does not traverse."""

from __future__ import annotations

import math
import struct

import orjson
import trio

from ..protocol.ids import SessionKey
from ..protocol.lifecycle import ENDS, Cause, CleanupResult, RunRecord

__all__ = ["RecordPacker", "moment_of"]

_MOMENT = struct.Struct("<d")

_NUMBERS = struct.Struct("<dddqIBB??")
"""Monotonic end time, start, end, token, index of the node, cause, cleanup, stop requested, cleanup interrupted."""

_CAUSES, _CLEANUPS = list(Cause), list(CleanupResult)


class RecordPacker:
    """Packs the records of ended runs, and unpacks them."""

    def __init__(self) -> None:
        self._nodes: list[str] = []
        """Ids of the nodes of the packed runs; a record has the index of its node. Usually there is one."""

    def pack(self, record: RunRecord) -> bytes:
        """Return the record of a run that ends now, as bytes."""
        assert record.ended_at is not None and record.reason is not None  # noqa: S101, PT018  `record_of_end` has set them
        if record.node_id not in self._nodes:
            self._nodes.append(record.node_id)
        numbers = _NUMBERS.pack(
            trio.current_time(),
            math.nan if record.started_at is None else record.started_at,
            record.ended_at,
            record.token,
            self._nodes.index(record.node_id),
            _CAUSES.index(Cause(record.reason)),
            _CLEANUPS.index(record.cleanup),
            record.stop_requested,
            record.cleanup_interrupted,
        )
        return numbers + orjson.dumps((record.run_id, record.key.user_id, record.key.session_id))

    def unpack(self, packed: bytes) -> RunRecord:
        """Return the record that was packed."""
        _, started_at, ended_at, token, node, cause, cleanup, stopped, interrupted = _NUMBERS.unpack_from(packed)
        run_id, user_id, session_id = orjson.loads(packed[_NUMBERS.size :])
        return RunRecord(
            run_id=run_id,
            key=SessionKey(user_id, session_id),
            state=ENDS[_CAUSES[cause]],
            reason=_CAUSES[cause].value,
            token=token,
            node_id=self._nodes[node],
            started_at=None if math.isnan(started_at) else started_at,
            ended_at=ended_at,
            stop_requested=stopped,
            cleanup=_CLEANUPS[cleanup],
            cleanup_interrupted=interrupted,
        )


def moment_of(packed: bytes) -> float:
    """Return when the run ended, on Trio's clock."""
    moment: float = _MOMENT.unpack_from(packed)[0]
    return moment
