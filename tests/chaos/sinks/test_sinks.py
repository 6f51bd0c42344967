"""The rounds of CI, and what is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.chaos.sinks import log
from tests.chaos.sinks.draw import BLOWS, DECK, EVERYTHING, STRIKES, draw
from tests.chaos.sinks.run import World, run, world

SEEDS = range(DECK)
PARTITIONS = (1, 4)


def test_a_round_is_its_seeds() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert log.draw(7, 4) == log.draw(7, 4)
    assert log.draw(7, 4) != log.draw(8, 4)


@pytest.mark.parametrize("first", [0, DECK, 1000 * DECK])
def test_the_rounds_of_a_deck_strike_every_wire_with_everything(first: int) -> None:
    rounds = [draw(seed) for seed in range(first, first + DECK)]
    assert {(strike.wire, strike.blow) for each in rounds for strike in each.strikes} == set(EVERYTHING)
    assert all(len(each.strikes) == STRIKES for each in rounds)
    assert {strike.blow for each in rounds for strike in each.strikes} == set(BLOWS)


def test_the_rounds_of_ci_have_one_and_four_partitions_and_both_object_stores() -> None:
    rounds = [draw(seed) for seed in SEEDS]
    assert min(Counter(each.partitions for each in rounds)[n] for n in PARTITIONS) >= DECK // 3
    assert {each.in_s3 for each in rounds} == {True, False}


@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_truth_has_no_hole_and_what_is_written_has_all_of_it_and_more(seed: int, partitions: int) -> None:
    passed_over: Counter[str] = Counter()
    for each in log.draw(seed, partitions):
        wanted = 0
        for batch in each.truth:
            assert batch.source_offset == wanted
            wanted = batch.source_last_offset + 1
        taken = -1
        for batch in each.written:
            if batch.epoch != log.EPOCH:
                passed_over["another epoch's"] += 1
            elif batch.source_last_offset <= taken:
                passed_over["a repeat"] += 1
            elif batch.source_offset > taken + 1:
                passed_over["above a hole"] += 1
            else:
                taken = batch.source_last_offset
        assert taken == each.truth[-1].source_last_offset
    assert len(passed_over) == 3


@pytest.mark.parametrize("partitions", PARTITIONS)
def test_what_is_drawn_has_sessions_classes_windows_parts_and_batches_without_events(partitions: int) -> None:
    truth = [batch for each in log.draw(1, partitions) for batch in each.truth]
    assert len({batch.session_id for batch in truth}) == partitions * log.SESSIONS
    assert {batch.retention for batch in truth} == set(log.RETENTIONS)
    assert {batch.window_id for batch in truth} == {"w1", "w2"}
    assert any(batch.next_parts for batch in truth)
    assert {batch.kind for batch in truth if not batch.event_count} == {"batch", "repeat", "dead", "lost"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, broker: Settings) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world"), broker) as found:
        yield found


@pytest.mark.parametrize("seed", SEEDS)
def test_every_event_is_in_both_stores_exactly_once_whatever_is_struck(
    shared: World, seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = run(shared, seed, tmp_path / "round")
    with capfd.disabled():
        print(f"\n{told}", flush=True)
