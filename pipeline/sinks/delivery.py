"""What a sink decides, purely: which records of replay.clean count, when to flush, what a commit remembers.

A partition's *mark* is the highest source offset that is done (−1: none). Clean source offsets have no holes, but a worker
that crashed repeats records, and one that slept through a rebalance may leave a late copy behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from pipeline.model.batches import CleanBatch

NOTHING_DONE = -1


class Verdict(Enum):
    """What a clean record means to a reader whose next wanted source offset is `mark + 1`."""

    TAKE = "take"
    SKIP = "skip"
    """At or below the mark: a worker's repeat."""
    HOLE = "hole"
    """Above mark + 1: its predecessor was lost in a zombie's time-out and comes again, and so does this one."""


def judge(mark: int, batch: CleanBatch) -> Verdict:
    """The reading rule. A lost range that overlaps mark + 1 is taken for what remains of it."""
    if batch.source_last_offset <= mark:
        return Verdict.SKIP
    return Verdict.TAKE if batch.source_offset <= mark + 1 else Verdict.HOLE


@dataclass(frozen=True)
class Taken:
    """A clean record that counts, and the offset in replay.clean it stood at."""

    batch: CleanBatch
    clean_offset: int


@dataclass
class Pending:
    """What was taken of one partition since its mark, in source order. The only mutable thing here: a queue."""

    mark: int
    batches: list[Taken] = field(default_factory=list)
    rows: int = 0
    payload_bytes: int = 0
    oldest_s: float = 0.0

    @property
    def last(self) -> int:
        """The source offset up to which everything was taken."""
        return self.batches[-1].batch.source_last_offset if self.batches else self.mark

    def add(self, taken: Taken, now_s: float) -> None:
        if not self.batches:
            self.oldest_s = now_s
        self.batches.append(taken)
        self.rows += taken.batch.event_count
        self.payload_bytes += len(taken.batch.payload)

    def up_to(self, last: int) -> list[Taken]:
        return [each for each in self.batches if each.batch.source_last_offset <= last]

    def done(self, last: int, now_s: float) -> int | None:
        """Everything up to `last` is stored: forgets it, returns the clean offset to go on reading from."""
        finished = self.up_to(last)
        self.batches = self.batches[len(finished) :]
        self.mark = last
        self.oldest_s = now_s
        self.rows = sum(each.batch.event_count for each in self.batches)
        self.payload_bytes = sum(len(each.batch.payload) for each in self.batches)
        return finished[-1].clean_offset + 1 if finished else None


@dataclass(frozen=True)
class FlushLimits:
    """Any of them reached makes a flush due."""

    rows: int
    payload_bytes: int
    age_ms: int


def is_due(pending: Pending, limits: FlushLimits, now_s: float) -> bool:
    """Whether what waits must be written now; an empty queue never must."""
    if not pending.batches:
        return False
    return (
        pending.rows >= limits.rows
        or pending.payload_bytes >= limits.payload_bytes
        or (now_s - pending.oldest_s) * 1000 >= limits.age_ms
    )


@dataclass(frozen=True)
class Done:
    """A flush came to its end: all up to source offset `mark` is stored for good."""

    mark: int


@dataclass(frozen=True)
class NeedMore:
    """Somebody before us claimed a range that reaches to `last`: read on to exactly there, then flush again."""

    last: int


Flushed = Done | NeedMore


@dataclass(frozen=True)
class Committed:
    """What a commit remembers: where to go on reading replay.clean, and the mark at that place."""

    clean_offset: int
    mark: int


def commit_metadata(epoch: int, mark: int) -> str:
    """The text kept with a committed offset. The epoch guards against another life of the raw topic."""
    return f"v1 epoch={epoch} mark={mark}"


def read_commit(clean_offset: int, metadata: str | None, epoch: int) -> Committed | None:
    """The inverse; None where nothing (of this epoch) was committed."""
    words = dict(each.split("=") for each in (metadata or "").split() if "=" in each)
    if clean_offset < 0 or words.get("epoch") != str(epoch) or "mark" not in words:
        return None
    return Committed(clean_offset, int(words["mark"]))
