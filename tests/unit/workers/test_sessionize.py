"""Where parts begin and end, what late ones do to them, and what is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.workers.rules import Rules
from pipeline.workers.sessionize import URL_CHARS_MAX, close_by_clock, may_be_released
from tests.unit.workers.flow import HOUR_MS, MINUTE_MS, PAGE, T0, Flow, batch, line

GAP_MS = 30 * MINUTE_MS
LENGTH_MS = GRACE_MS = 24 * HOUR_MS


def spans(flow: Flow) -> dict[str, tuple[int, int, int, str | None]]:
    """part → (first, last, events, why closed), times since T0."""
    return {
        name: (each.started_at - T0, each.ended_at - T0, each.events, each.close_reason)
        for name, each in flow.parts.items()
    }


@pytest.mark.parametrize("split", [False, True], ids=["inside a batch", "between batches"])
def test_gap_of_exactly_thirty_minutes_still_belongs(split: bool) -> None:
    flow = Flow()
    for n, times in enumerate([[T0], [T0 + GAP_MS]] if split else [[T0, T0 + GAP_MS]]):
        clean = flow.clicks(f"b{n}", *times).clean
        assert (clean.part, clean.next_parts) == ("1", ())
    assert spans(flow) == {"1": (0, GAP_MS, 2, None)}


@pytest.mark.parametrize("batches", [1, 2], ids=["inside a batch", "between batches"])
def test_gap_above_thirty_minutes_begins_part_two(batches: int) -> None:
    flow, times = Flow(), [T0, T0 + GAP_MS + 1]
    if batches == 1:
        clean = flow.clicks("b", *times).clean
        assert (clean.part, [(each.index, each.part) for each in clean.next_parts]) == ("1", [(1, "2")])
    else:
        assert [flow.clicks(f"b{n}", at).clean.part for n, at in enumerate(times)] == ["1", "2"]
    assert spans(flow) == {"1": (0, 0, 1, "idle"), "2": (GAP_MS + 1, GAP_MS + 1, 1, None)}


def test_dropped_moves_are_activity_too() -> None:
    flow = Flow(Rules(mousemove_gap_ms=2 * GAP_MS))
    flow.send(batch("b", *(line("mousemove", T0 + n * GAP_MS) for n in range(4))))
    assert flow.parts["1"].events == 2
    assert flow.parts["1"].throttled == 2
    assert list(flow.parts) == ["1"]


@pytest.mark.parametrize("split", [False, True], ids=["inside a batch", "between batches"])
def test_part_of_exactly_a_day_goes_on_and_a_longer_one_is_cut(split: bool) -> None:
    flow = Flow()
    day, over = list(range(T0, T0 + LENGTH_MS + 1, GAP_MS)), T0 + LENGTH_MS + 1
    for n, times in enumerate([day, [over]] if split else [[*day, over]]):
        flow.send(batch(f"b{n}", *(line("click", at) for at in times)), over)
    assert spans(flow) == {
        "1": (0, LENGTH_MS, 49, "max_duration"),
        "2": (LENGTH_MS + 1, LENGTH_MS + 1, 1, None),
    }


def test_parts_count_on_within_one_batch() -> None:
    flow = Flow()
    clean = flow.clicks("b", *(T0 + n * HOUR_MS for n in range(6))).clean
    assert [clean.part, *(each.part for each in clean.next_parts)] == ["1", "2", "3", "4", "5", "6"]
    assert [each.index for each in clean.next_parts] == [1, 2, 3, 4, 5]
    assert [each.close_reason for each in flow.parts.values()] == ["idle"] * 5 + [None]


def test_part_whose_first_events_were_all_throttled_begins_at_its_first_kept_one() -> None:
    flow = Flow(Rules(scroll_gap_ms=2 * HOUR_MS))
    lines = [line("scroll", T0), line("scroll", T0 + HOUR_MS), line("click", T0 + HOUR_MS + 5)]
    clean = flow.send(batch("b", *lines)).clean
    assert (clean.part, [(each.index, each.part) for each in clean.next_parts]) == ("1", [(1, "2")])
    assert spans(flow)["2"] == (HOUR_MS, HOUR_MS + 5, 1, None)


def test_late_batch_updates_the_closed_part_and_parts_never_merge() -> None:
    flow = Flow()
    flow.clicks("b", T0, T0 + HOUR_MS)
    bridge = [T0 + 20 * MINUTE_MS, T0 + 40 * MINUTE_MS]
    outcome = flow.clicks("late", *bridge)
    assert spans(flow) == {"1": (0, 40 * MINUTE_MS, 3, "idle"), "2": (HOUR_MS, HOUR_MS, 1, None)}
    assert flow.parts["1"].late == 2
    assert outcome.clean.late
    assert [(each.part, each.revision) for each in outcome.sessions] == [("1", 2)]
    flow.clicks("on", T0 + HOUR_MS + 1)
    assert list(flow.parts) == ["1", "2"]


def test_event_before_every_part_belongs_to_the_oldest() -> None:
    flow = Flow()
    flow.clicks("b", T0, T0 + HOUR_MS)
    flow.clicks("late", T0 - 5 * HOUR_MS)
    assert spans(flow) == {"1": (-5 * HOUR_MS, 0, 2, "idle"), "2": (HOUR_MS, HOUR_MS, 1, None)}


def test_final_batch_ends_the_part_and_what_follows_is_late_in_it() -> None:
    flow = Flow()
    assert flow.clicks("b", T0, final=True).sessions[0].status == "closed"
    assert flow.parts["1"].close_reason == "ended"
    outcome = flow.clicks("after", T0 + 10)
    assert outcome.clean.late
    assert spans(flow) == {"1": (0, 10, 2, "ended")}
    flow.clicks("later", T0 + HOUR_MS)
    assert spans(flow)["1"] == (0, 10, 2, "ended")
    assert spans(flow)["2"] == (HOUR_MS, HOUR_MS, 1, None)


def test_final_batch_without_events_ends_the_session() -> None:
    flow = Flow()
    flow.clicks("b", T0)
    flow.send(batch("bye", final=True))
    assert spans(flow) == {"1": (0, 0, 1, "ended")}


@pytest.mark.parametrize(("older_by_ms", "name"), [(GRACE_MS, "1"), (GRACE_MS + 1, "L7")])
def test_events_older_than_the_grace_without_state_open_a_part_of_their_own(older_by_ms: int, name: str) -> None:
    flow = Flow(offset=7)
    assert flow.send(batch("b", line("click", T0)), T0 + older_by_ms).clean.part == name


def test_parts_after_one_without_state_count_on_under_its_name() -> None:
    flow = Flow(offset=40)
    old = T0 - 5 * GRACE_MS
    clean = flow.clicks("b", old, old + HOUR_MS, old + 2 * HOUR_MS).clean
    assert [clean.part, *(each.part for each in clean.next_parts)] == ["L40", "L40.2", "L40.3"]


def test_imported_recording_of_any_age_opens_part_one() -> None:
    flow = Flow(offset=7)
    assert flow.clicks("b", T0 - 400 * GRACE_MS, imported=True).clean.part == "1"


@pytest.mark.parametrize(("silent_ms", "repeated"), [(GRACE_MS, 1), (GRACE_MS + 1, 0)])
def test_state_counts_within_its_grace_only(silent_ms: int, repeated: int) -> None:
    flow = Flow()
    flow.send(batch("b", line("click", T0)), T0)
    assert flow.send(batch("b", line("click", T0)), T0 + silent_ms).clean.repeated == repeated


def test_released_state_could_have_counted_no_more() -> None:
    flow = Flow()
    flow.clicks("b", T0)
    assert flow.state is not None
    assert not may_be_released(flow.state, Rules(), T0 + GRACE_MS)
    assert may_be_released(flow.state, Rules(), T0 + GRACE_MS + HOUR_MS)


def test_clock_closes_an_idle_session_after_its_gap_by_the_state_alone() -> None:
    flow = Flow(offset=5)
    flow.clicks("b", T0)
    assert flow.state is not None
    assert close_by_clock(flow.state, Rules(), 3, T0 + GAP_MS) is None
    first = close_by_clock(flow.state, Rules(), 3, T0 + GAP_MS + 1)
    assert first is not None
    assert (first.status, first.close_reason, first.revision) == ("closed", "idle", 2 * 5 + 1)
    assert close_by_clock(flow.state, Rules(), 3, T0 + 9 * GAP_MS) == first
    flow.clicks("bye", T0, final=True)
    assert close_by_clock(flow.state, Rules(), 3, T0 + GAP_MS + 1) is None


def test_every_kind_is_counted_and_time_is_active_up_to_five_seconds_of_silence() -> None:
    kinds: list[tuple[str, Any]] = [
        ("initial_state", {"url": "http://shop.example.test/a"}), ("mousemove", {}), ("scroll", {}), ("click", {}),
        ("input", {"inputType": "password", "value": "x"}), ("submit", {"formData": {"cvv": "1", "pin": "2"}}),
        ("navigation", {"url": "http://shop.example.test/b"}), ("console", {"type": "error"}),
        ("console", {"type": "log"}), ("error", {}), ("promise_error", None), ("other", [])]  # fmt: skip
    flow = Flow()
    flow.send(batch("b", *(line(kind, T0 + 5_000 * n, data) for n, (kind, data) in enumerate(kinds))))
    flow.send(batch("c", line("other", T0 + 55_000 + 5_001)))
    told = flow.parts["1"]
    assert (told.events, told.clicks, told.inputs, told.scrolls, told.mouse_moves) == (13, 1, 1, 1, 1)
    assert (told.navigations, told.console_errors, told.errors, told.redacted, told.late) == (1, 1, 2, 3, 0)
    assert (told.duration_ms, told.active_ms) == (60_001, 55_000)
    assert (told.first_url, told.last_url) == (PAGE.url, "http://shop.example.test/b")
    assert told.urls == (PAGE.url, "http://shop.example.test/a", "http://shop.example.test/b")


def test_at_most_fifty_distinct_urls_are_told_each_within_its_length() -> None:
    flow = Flow()
    long = "http://shop.example.test/" + "é" * 9_000
    urls = [f"http://shop.example.test/{n % 60}" for n in range(200)]
    flow.send(batch("b", *(line("navigation", T0 + n, {"url": url}) for n, url in enumerate([*urls, long]))))
    told = flow.parts["1"]
    assert told.urls == (PAGE.url, *urls[:49])
    assert told.last_url == long[:URL_CHARS_MAX]


@pytest.mark.parametrize(
    ("clicks", "bursts"),
    [([(0, 10, 10), (500, 12, 11), (1000, 40, 40)], 1), ([(0, 10, 10), (500, 10, 10), (1001, 10, 10)], 0),
     ([(0, 10, 10), (10, 10, 10), (20, 41, 10)], 0), ([(n * 100, 5, 5) for n in range(9)], 1),
     ([(n * 100 + 5_000 * (n // 3), 5, 5) for n in range(6)], 2), ([(n, "5", None) for n in range(3)], 0),
     ([(n, 10**400, 1e308) for n in range(3)], 0)],
    ids=["three within a second", "too slow", "too far", "one burst however long", "two bursts", "no pixels", "no screen"],
)  # fmt: skip
def test_three_clicks_within_a_second_and_thirty_pixels_are_rage(clicks: list[Any], bursts: int) -> None:
    flow = Flow()
    for n, (at, x, y) in enumerate(clicks):
        flow.send(batch(f"b{n}", line("click", T0 + at, {"x": x, "y": y})))
    assert flow.parts["1"].rage_clicks == bursts
    assert flow.parts["1"].clicks == len(clicks)


@pytest.mark.parametrize("data", [None, 7, "x", [], {"url": 5}, {"type": ["error"], "x": {}, "y": True}])
@pytest.mark.parametrize("kind", ["click", "navigation", "initial_state", "console", "error", "input", "submit"])
def test_data_of_any_shape_counts_by_its_type(kind: str, data: Any) -> None:
    flow = Flow()
    outcome = flow.send(batch("b", line(kind, T0, data)))
    assert flow.parts["1"].events == 1
    assert json.loads(outcome.clean.payload) == {"type": kind, "timestamp": T0, "data": data}
