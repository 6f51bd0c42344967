"""What a sink decides, purely: which records of replay.clean count, when to flush, what a commit remembers.

A partition's *mark* is the highest source offset that is done (−1: none). Clean source offsets have no holes, but a worker
that crashed repeats records, and one that slept through a rebalance may leave a late copy behind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from pipeline.errors import PoisonError, RetryableError
from pipeline.model.batches import CleanBatch
from pipeline.storage.blocks import events_of

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


def blocks_at_most(batch: CleanBatch) -> int:
    """How many blocks of an object the batch can add: one for each part its events belong to."""
    return 1 + len(batch.next_parts) if batch.event_count else 0


@dataclass
class Pending:
    """What was taken of one partition since its mark, in source order. The only mutable thing here: a queue."""

    mark: int
    batches: list[Taken] = field(default_factory=list)
    rows: int = 0
    blocks: int = 0
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
        self.blocks += blocks_at_most(taken.batch)
        self.payload_bytes += len(taken.batch.payload)

    def within(self, limits: FlushLimits) -> list[Taken]:
        """The longest beginning that no limit is exceeded by; at least one batch where any waits."""
        rows = blocks = payload_bytes = 0
        for n, each in enumerate(self.batches):
            rows += each.batch.event_count
            blocks += blocks_at_most(each.batch)
            payload_bytes += len(each.batch.payload)
            if n and (
                rows > limits.rows
                or blocks > limits.blocks
                or payload_bytes > limits.payload_bytes
                or n >= limits.records
            ):
                return self.batches[:n]
        return list(self.batches)

    def up_to(self, last: int) -> list[Taken]:
        return [each for each in self.batches if each.batch.source_last_offset <= last]

    def set_aside(self, source_offsets: Iterable[int]) -> None:
        """Empties these batches: they count for the mark, and have nothing to store."""
        gone = set(source_offsets)
        self.batches = [
            Taken(msgspec.structs.replace(each.batch, payload=b"", event_count=0, next_parts=()), each.clean_offset)
            if each.batch.source_offset in gone
            else each
            for each in self.batches
        ]
        self._sum()

    def done(self, last: int, now_s: float) -> int | None:
        """Everything up to `last` is stored: forgets it, returns the clean offset to go on reading from."""
        finished = self.up_to(last)
        self.batches = self.batches[len(finished) :]
        self.mark = last
        self.oldest_s = now_s
        self._sum()
        return finished[-1].clean_offset + 1 if finished else None

    def _sum(self) -> None:
        self.rows = sum(each.batch.event_count for each in self.batches)
        self.blocks = sum(blocks_at_most(each.batch) for each in self.batches)
        self.payload_bytes = sum(len(each.batch.payload) for each in self.batches)


@dataclass(frozen=True)
class FlushLimits:
    """Any of them reached makes a flush due, and none but the age is exceeded by one, unless by a single batch.

    `records` bounds what has no event: a stream of emptied batches is done by it, not by rows or bytes.
    """

    payload_bytes: int
    age_ms: int
    rows: int = sys.maxsize
    blocks: int = sys.maxsize
    records: int = 20_000


def is_due(pending: Pending, limits: FlushLimits, now_s: float) -> bool:
    """Whether what waits must be written now; an empty queue never must."""
    if not pending.batches:
        return False
    return (
        pending.rows >= limits.rows
        or pending.blocks >= limits.blocks
        or len(pending.batches) >= limits.records
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


class MovedOnError(RetryableError):
    """The store is ahead of what this sink knows of a partition: take the partition up anew, from the store's mark."""


class UnstorableError(PoisonError):
    """Some of the batches offered cannot be stored, whatever is tried; all others can."""

    def __init__(self, found: dict[int, PoisonError]) -> None:
        first = next(iter(found.values()))
        super().__init__(first.reason, first.detail)
        self.found = found
        """By source offset."""


def unstorable(batches: Iterable[Taken], poison: PoisonError) -> dict[int, PoisonError]:
    """Which batches a store's error is about, by source offset: those it names, else those whose payload is broken."""
    if isinstance(poison, UnstorableError):
        return poison.found
    found = {}
    for each in batches:
        try:
            events_of(each.batch)
        except PoisonError as error:
            found[each.batch.source_offset] = error
    return found
