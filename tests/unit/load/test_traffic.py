"""The demo's plan: what is sent, and what must therefore come out."""

from __future__ import annotations

from collections import Counter

from pipeline.load import traffic
from pipeline.load.arrivals import quantile
from pipeline.load.recordings import bundled

BUNDLE = bundled()
PLAN = traffic.plan(BUNDLE, run_id="run", now_ms=1_800_000_000_000, copies=2)


def test_every_event_of_every_copy_is_sent_once_and_retries_on_top() -> None:
    events = sum(len(each.recording.events) for each in BUNDLE)
    assert sum(len(each.events) for each in PLAN if not each.repeat) == 2 * events
    repeats = [each for each in PLAN if each.repeat]
    assert repeats
    expected = traffic.expected(PLAN)
    assert expected.sent == 2 * events + sum(len(each.events) for each in repeats) + traffic.BROKEN_EVENTS


def test_a_retry_comes_after_its_original() -> None:
    seen = set()
    for each in PLAN:
        assert not each.repeat or (each.session_id, each.batch_id) in seen
        seen.add((each.session_id, each.batch_id))


def test_every_way_in_is_used() -> None:
    assert set(Counter(each.way for each in PLAN)) == {"http", "kafka", "import", "poison"}


def test_times_end_now_and_keep_their_distances() -> None:
    for each in BUNDLE:
        lived = next(step.recording for step in PLAN if step.session_id == f"run-{each.name}-1")
        assert max(event.timestamp for event in lived.events) == 1_800_000_000_000
        shift = {new.timestamp - old.timestamp for new, old in zip(lived.events, each.recording.events, strict=True)}
        assert len(shift) == 1


def test_quantile_is_the_nearest_rank() -> None:
    assert quantile([], 0.5) == 0
    assert quantile([7], 0.99) == 7
    assert quantile(list(range(1, 101)), 0.5) == 50
    assert quantile(list(range(1, 101)), 0.99) == 99
