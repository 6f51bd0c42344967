"""What becomes of the records of a generation's partitions: repeats, lost ranges, what the clock closes and releases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline import settings
from pipeline.errors import FatalError
from pipeline.model.batches import CleanBatch, DeadLetter, ErasureRequest, SessionUpdate
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds
from pipeline.workers.assigned import Assigned, Touched
from pipeline.workers.breaker import Breaker
from pipeline.workers.keeping import Sessions
from pipeline.workers.rules import Rules
from pipeline.workers.store import Folding, Partition
from tests.unit.workers.flow import HOUR_MS, MINUTE_MS, T0, batch, line

CODEC = Codecs(catalogue(settings.load({})), PinnedIds("replay.")).batches
PARTITION = 3
DAY_MS = 24 * HOUR_MS


@dataclass
class Outputs:
    """Everything written, in order; the state topic can be read back."""

    cleans: list[CleanBatch] = field(default_factory=list)
    sessions: list[SessionUpdate] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    states: list[tuple[bytes, bytes | None]] = field(default_factory=list)

    def clean(self, batch: CleanBatch, key: bytes | None) -> None:
        self.cleans.append(batch)

    def session(self, update: SessionUpdate, at_ms: int) -> None:
        self.sessions.append(update)

    def dead_letter(self, dead: DeadLetter) -> None:
        self.dead.append(dead)

    def state(self, key: bytes, value: bytes | None, partition: int) -> None:
        self.states.append((key, value))


@dataclass
class Message:
    offset: int
    value: bytes
    timestamp: float
    topic: str = "replay.batches"
    partition: int = PARTITION
    key: bytes = b"acme:s1"


@dataclass
class Run:
    """A worker's lives over one partition: `restart` is a new generation that reads the state topic anew."""

    outputs: Outputs = field(default_factory=Outputs)
    generation: int = 0
    log_begins: int = 0
    assigned: Assigned | None = None

    def restart(self, next_offset: int) -> None:
        folding = Folding()
        for key, value in self.outputs.states:
            folding.take(key, value)
        self._begin(folding.end().sessions, next_offset)

    def _begin(self, sessions: Sessions, next_offset: int) -> None:
        self.generation += 1
        partitions = {PARTITION: Partition(next_offset, sessions)}
        breaker = Breaker(consecutive_max=0, percent_max=0)
        self.assigned = Assigned(
            self.generation, partitions, self.outputs, CODEC, Rules(), breaker, lambda _: self.log_begins
        )

    def send(self, offset: int, at_ms: int, *times: int, batch_id: str | None = None, **changed: Any) -> None:
        one = batch(
            batch_id or f"b{offset}",
            *(line("click", at) for at in times),
            **{"sent_at": at_ms, "received_at": at_ms} | changed,
        )
        self.take(offset, at_ms, CODEC.encode(one))

    def erase(self, offset: int, at_ms: int) -> None:
        self.take(
            offset,
            at_ms,
            CODEC.encode(ErasureRequest(tenant="acme", session_id="s1", erasure_id="er_1", asked_at=at_ms)),
        )

    def take(self, offset: int, at_ms: int, value: bytes) -> None:
        if self.assigned is None:
            self._begin(Sessions(), 0)
        assert self.assigned is not None
        touched: Touched = {}
        self.assigned.record(Message(offset, value, at_ms / 1000), touched)
        self.assigned.write_states(touched)

    def tidy(self, now_ms: int, read_up: bool = True) -> None:
        assert self.assigned is not None
        self.assigned.tidy(now_ms, lambda _: read_up)

    @property
    def live(self) -> int:
        assert self.assigned is not None
        return len(self.assigned.partitions[PARTITION].sessions)

    @property
    def parts(self) -> list[str]:
        return [each.part for each in self.outputs.cleans]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(
    ("away_ms", "part"), [(DAY_MS, "2"), (DAY_MS + 1, "L1"), (30 * DAY_MS, "L1"), (30 * DAY_MS + 1, "1")]
)
def test_session_that_comes_back_replaces_no_part_while_it_is_known_that_it_was_there(
    away_ms: int, part: str, released: bool, restarted: bool
) -> None:
    run, back = Run(), T0 + away_ms
    run.send(0, T0, T0)
    if released and away_ms > DAY_MS:
        run.tidy(back + HOUR_MS)
        assert run.live == 0
    if restarted:
        run.restart(1)
    run.send(1, back, back)
    assert run.parts == ["1", part]
    run.send(2, back + 1, back + 1)
    assert run.parts == ["1", part, part]


@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_erased_session_is_refused_by_every_later_generation_and_nothing_else_is_left_of_its_state(
    restarts: int,
) -> None:
    run = Run()
    run.send(0, T0, T0, user_id="alice")
    for _ in range(restarts):
        run.restart(1)
    run.erase(1, T0 + 1)
    for _ in range(restarts):
        run.restart(2)
    run.tidy(T0 + 29 * DAY_MS)
    run.send(2, T0 + 29 * DAY_MS, T0, user_id="alice")
    assert [each.kind for each in run.outputs.cleans] == ["batch", "erased", "erased"]
    compacted = dict(run.outputs.states)
    assert not any(b"alice" in value for value in compacted.values() if value is not None)
    assert run.live == 0


def test_new_session_begins_with_part_one() -> None:
    run = Run()
    run.send(0, T0, T0)
    run.tidy(T0 + 2 * DAY_MS)
    run.send(1, T0 + 2 * DAY_MS, T0 + 2 * DAY_MS, session_id="s2")
    assert run.parts == ["1", "1"]


@pytest.mark.parametrize("restarts", [1, 2])
def test_session_released_and_back_again_and_again_has_a_part_of_its_own_each_time(restarts: int) -> None:
    run = Run()
    for n in range(4):
        at = T0 + n * 2 * DAY_MS
        run.send(n, at, at)
        run.tidy(at + DAY_MS + HOUR_MS)
        assert run.live == 0
        for _ in range(restarts):
            run.restart(n + 1)
    assert run.parts == ["1", "L1", "L2", "L3"]


def test_state_is_not_released_while_records_wait_that_may_need_it() -> None:
    run = Run()
    run.send(0, T0, T0)
    run.tidy(T0 + 3 * DAY_MS, read_up=False)
    assert (run.live, len(run.outputs.sessions)) == (1, 1)
    run.send(1, T0 + MINUTE_MS, T0 + MINUTE_MS, batch_id="b0")
    assert run.outputs.cleans[1].repeated == 1


def test_record_whose_outputs_exist_is_skipped_also_where_its_session_was_released() -> None:
    run = Run()
    run.send(0, T0, T0)
    run.tidy(T0 + 3 * DAY_MS)
    run.restart(0)
    run.send(0, T0, T0)
    assert len(run.outputs.cleans) == 1
    run.restart(1)
    run.send(1, T0 + 2 * DAY_MS, T0 + 2 * DAY_MS)
    assert run.parts == ["1", "L1"], "what the commit relies on was written again under the new generation"
    assert run.outputs.states[-1] == (b"acme:s1\x002", None)


def test_clock_tells_once_that_an_idle_session_is_closed() -> None:
    run = Run()
    run.send(0, T0, T0)
    for hours in (1, 2, 3):
        run.tidy(T0 + hours * HOUR_MS)
    assert [(each.status, each.close_reason, each.revision) for each in run.outputs.sessions] == [
        ("open", None, 0),
        ("closed", "idle", 1),
    ]
    run.send(1, T0 + 4 * HOUR_MS, T0 + MINUTE_MS)
    run.tidy(T0 + 5 * HOUR_MS)
    assert [(each.status, each.revision) for each in run.outputs.sessions[2:]] == [("open", 2), ("closed", 3)]


def test_events_too_old_beside_others_go_to_the_dead_letters_as_a_batch_that_can_be_retried() -> None:
    run = Run()
    run.send(0, T0, T0, T0 - 8 * DAY_MS)
    (dead,) = run.outputs.dead
    assert (dead.reason, dead.event_count, dead.key, dead.source_offset) == ("too_old", 1, b"acme:s1", 0)
    retried = CODEC.decode(dead.value)
    assert (retried.event_count, retried.first_event_at, retried.session_id) == (1, T0 - 8 * DAY_MS, "s1")
    clean = run.outputs.cleans[0]
    assert (clean.kind, clean.event_count, clean.dead_lettered) == ("batch", 1, 1)


def test_batch_of_which_all_is_too_old_is_a_dead_letter_as_it_stood() -> None:
    run = Run()
    run.send(0, T0, T0 - 8 * DAY_MS, T0 - 9 * DAY_MS)
    (dead,), (clean,) = run.outputs.dead, run.outputs.cleans
    assert (dead.reason, dead.event_count, CODEC.decode(dead.value).batch_id) == ("too_old", 2, "b0")
    assert (clean.kind, clean.received_events, clean.dead_lettered, run.outputs.states) == ("dead", 2, 2, [])


def test_range_that_retention_took_is_told_and_any_other_jump_is_fatal() -> None:
    run = Run()
    run.send(0, T0, T0)
    with pytest.raises(FatalError, match="jumps from offset 1 to 5"):
        run.send(5, T0, T0)
    run.log_begins = 5
    run.restart(1)
    run.send(5, T0, T0)
    assert [(each.kind, each.source_offset, each.source_last_offset) for each in run.outputs.cleans[1:]] == [
        ("lost", 1, 4),
        ("batch", 5, 5),
    ]
