"""What a reader makes of a record, when it must flush and how much."""

from __future__ import annotations

import pytest

from pipeline.errors import PoisonError
from pipeline.sinks.delivery import (
    FlushLimits,
    Pending,
    Taken,
    UnstorableError,
    Verdict,
    is_due,
    judge,
    unstorable,
)
from tests.unit.sinks.clean import batch, clicks, lost, part_start

LIMITS = FlushLimits(rows=10, blocks=5, payload_bytes=10_000, age_ms=1_000, records=8)


@pytest.mark.parametrize(
    ("mark", "first", "last", "verdict"),
    [
        (-1, 0, 0, Verdict.TAKE),
        (-1, 1, 1, Verdict.HOLE),
        (7, 7, 7, Verdict.SKIP),
        (7, 3, 3, Verdict.SKIP),
        (7, 8, 8, Verdict.TAKE),
        (7, 9, 9, Verdict.HOLE),
        (7, 3, 7, Verdict.SKIP),
        (7, 3, 8, Verdict.TAKE),
        (7, 8, 20, Verdict.TAKE),
        (7, 9, 20, Verdict.HOLE),
    ],
)
def test_a_record_counts_if_it_holds_the_next_offset(mark: int, first: int, last: int, verdict: Verdict) -> None:
    assert judge(mark, lost(first, last)) is verdict


def test_a_hole_is_ignored_until_its_offset_comes() -> None:
    pending = Pending(mark=4)
    taken = []
    for offset in (5, 7, 6, 7, 6, 8):
        if judge(pending.last, clicks(offset)) is Verdict.TAKE:
            pending.add(Taken(clicks(offset), clean_offset=100 + offset), now_s=0)
            taken.append(offset)
    assert taken == [5, 6, 7, 8]


def filled(*batches, at_s: float = 0.0) -> Pending:
    pending = Pending(mark=batches[0].source_offset - 1 if batches else -1)
    for each in batches:
        pending.add(Taken(each, 1_000 + each.source_offset), at_s)
    return pending


@pytest.mark.parametrize(
    ("pending", "now_s", "due"),
    [
        pytest.param(filled(), 1e9, False, id="nothing waits"),
        pytest.param(filled(clicks(0)), 0.999, False, id="young"),
        pytest.param(filled(clicks(0)), 1.0, True, id="old"),
        pytest.param(filled(clicks(0, range(9))), 0, False, id="nine rows"),
        pytest.param(filled(clicks(0, range(10))), 0, True, id="ten rows"),
        pytest.param(filled(*(clicks(n) for n in range(4))), 0, False, id="four blocks"),
        pytest.param(filled(*(clicks(n) for n in range(5))), 0, True, id="five blocks"),
        pytest.param(filled(*(batch(n) for n in range(7))), 0, False, id="seven empty records"),
        pytest.param(filled(*(batch(n) for n in range(8))), 0, True, id="eight empty records"),
        pytest.param(filled(batch(0, [("click", 0, "x" * 10_000)])), 0, True, id="bytes"),
    ],
)
def test_a_flush_is_due_at_any_limit(pending: Pending, now_s: float, due: bool) -> None:
    assert is_due(pending, LIMITS, now_s) is due


@pytest.mark.parametrize(
    ("batches", "flushed"),
    [
        pytest.param([clicks(0, range(6)), clicks(1, range(4)), clicks(2)], [0, 1], id="rows"),
        pytest.param([clicks(0, range(50)), clicks(1)], [0], id="one batch above the limit goes alone"),
        pytest.param([clicks(n) for n in range(7)], [0, 1, 2, 3, 4], id="blocks"),
        pytest.param(
            [clicks(0, range(3), next_parts=(part_start(1, "1"), part_start(2, "2"))), clicks(1), clicks(2), clicks(3)],
            [0, 1, 2],
            id="a batch has a block a part",
        ),
        pytest.param([batch(n) for n in range(12)], list(range(8)), id="empty records"),
        pytest.param([batch(n, [("click", 0, "x" * 4_000)]) for n in range(4)], [0, 1], id="bytes"),
    ],
)
def test_a_flush_takes_no_more_than_its_limits_allow(batches, flushed: list[int]) -> None:
    assert [each.batch.source_offset for each in filled(*batches).within(LIMITS)] == flushed


def test_what_is_done_is_forgotten_and_the_rest_keeps_its_sums() -> None:
    pending = filled(clicks(5, range(3)), batch(6), clicks(7, range(2)))
    rest = len(clicks(7, range(2)).payload)
    assert pending.done(6, now_s=2.0) == 1_007
    assert (pending.mark, pending.last, pending.rows, pending.blocks, pending.payload_bytes) == (6, 7, 2, 1, rest)


def test_what_is_set_aside_has_nothing_to_store_and_still_counts_for_the_mark() -> None:
    pending = filled(clicks(5, [1, 2]), clicks(6, [1, 2, 3], next_parts=(part_start(1, "1"),)), clicks(7))
    pending.set_aside([6])
    assert (pending.rows, pending.blocks, pending.last) == (3, 2, 7)
    assert pending.payload_bytes == len(clicks(5, [1, 2]).payload) + len(clicks(7).payload)
    assert [each.batch.source_offset for each in pending.within(LIMITS)] == [5, 6, 7]
    assert pending.done(7, now_s=0) == 1_008


def test_a_stores_error_is_about_the_batches_it_names_or_about_those_that_are_broken() -> None:
    broken = batch(6, payload=b"{", event_count=1)
    offered = [Taken(each, 1) for each in (clicks(5), broken, clicks(7))]
    assert set(unstorable(offered, PoisonError("bad_payload", "one of them"))) == {6}
    refused = {7: PoisonError("rejected_row", "code 469")}
    assert unstorable(offered, UnstorableError(refused)) == refused
    assert unstorable(offered[:1], PoisonError("bad_payload", "none of them")) == {}
