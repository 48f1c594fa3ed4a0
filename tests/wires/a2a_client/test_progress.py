"""A stream that is cut anywhere gives its reader the same as one that is not, however the agent stores the task."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_agentapp.protocol.content import Content, DataContent, TextContent
from trio_agentapp.wires.a2a_client.progress import Progress
from trio_agentapp.wires.a2a_client.task import (
    A2AEvent,
    A2ATask,
    Artifact,
    ArtifactUpdate,
    TaskSnapshot,
    TaskState,
    TaskStatus,
)

WORKING = TaskStatus(TaskState.WORKING)
# Few letters: pieces that look alike are the hard ones.
PART = st.one_of(st.text("ab", min_size=1, max_size=3).map(TextContent), st.integers(0, 1).map(DataContent))
PIECES = st.lists(st.tuples(st.sampled_from(["x", "y"]), PART), max_size=12)


def task_of(pieces: list[tuple[str, Content]], *, joined: bool) -> A2ATask:
    stored: dict[str, list[Content]] = {}
    for name, part in pieces:
        parts = stored.setdefault(name, [])
        if joined and parts and isinstance(part, TextContent) and isinstance(parts[-1], TextContent):
            parts[-1] = TextContent(parts[-1].text + part.text)
        else:
            parts.append(part)
    return A2ATask("t", "c", WORKING, tuple(Artifact(name, tuple(parts)) for name, parts in stored.items()))


def update(pieces: list[tuple[str, Content]], place: int) -> ArtifactUpdate:
    name, part = pieces[place]
    known = any(other == name for other, _ in pieces[:place])
    return ArtifactUpdate("t", "c", Artifact(name, (part,)), append=known)


class Reader:
    """Puts together what it is given, as a user does."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Content]] = {}

    def take(self, events: list[A2AEvent]) -> None:
        for event in events:
            if isinstance(event, TaskSnapshot):
                self.parts = {each.id: list(each.parts) for each in event.task.artifacts}
            elif isinstance(event, ArtifactUpdate):
                assert event.append or event.artifact.id not in self.parts, "the artifact is sent again"
                self.parts.setdefault(event.artifact.id, []).extend(event.artifact.parts)

    def merged(self) -> dict[str, list[Content]]:
        return {
            each.id: list(each.parts)
            for name, parts in self.parts.items()
            for each in task_of([(name, part) for part in parts], joined=True).artifacts
        }


@given(
    pieces=PIECES,
    cut=st.integers(0, 12),
    stored=st.integers(0, 12),
    resumed=st.integers(0, 12),
    joined=st.booleans(),
)
def test_a_cut_anywhere(
    pieces: list[tuple[str, Content]], cut: int, stored: int, resumed: int, joined: bool
) -> None:
    """The reader has `cut` pieces, the task has `stored`; the subscription goes on at `resumed` or before."""
    size = len(pieces)
    cut, stored = min(cut, size), min(stored, size)
    resumed = min(resumed, stored)
    progress, reader = Progress(), Reader()

    def give(event: A2AEvent, younger: A2ATask) -> None:
        if progress.may_repeat(event):
            assert isinstance(event, ArtifactUpdate)
            if progress.repeats(event, younger):
                return
        new = progress.received(event)
        reader.take([] if new is None else [new])

    give(TaskSnapshot(task_of([], joined=joined)), task_of([], joined=joined))
    for place in range(cut):
        give(update(pieces, place), task_of(pieces[: place + 1], joined=joined))
    reader.take(progress.renewed(task_of(pieces[:stored], joined=joined)))
    for place in range(resumed if stored >= cut else stored, size):
        give(update(pieces, place), task_of(pieces[: max(place + 1, stored)], joined=joined))
    expected = {each.id: list(each.parts) for each in task_of(pieces, joined=True).artifacts}
    assert reader.merged() == expected
    whole = progress.whole()
    assert whole is not None
    assert {each.id: list(each.parts) for each in whole.artifacts} == expected


def test_an_artifact_that_was_replaced_comes_as_a_whole() -> None:
    progress = Progress()
    progress.received(TaskSnapshot(task_of([("x", TextContent("old"))], joined=True)))
    (event,) = progress.renewed(task_of([("x", TextContent("new"))], joined=True))
    assert isinstance(event, ArtifactUpdate)
    assert (event.append, event.artifact.text) == (False, "new")
