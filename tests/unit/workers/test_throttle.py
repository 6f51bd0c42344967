"""One gate: what lies nearer than the gap to a kept event is dropped, whatever the order of arrival."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.workers.kinds import parse_gaps
from pipeline.workers.rules import Rules
from pipeline.workers.throttle import STRETCHES_MAX, Gate
from tests.unit.workers.flow import T0, Flow, batch, line


def kept(times: list[int], gap_ms: int = 50) -> list[int]:
    gate = Gate(gap_ms)
    return [at for at in times if gate.admit(at)]


@pytest.mark.parametrize(
    ("times", "left"),
    [
        ([0, 49, 50, 99, 100], [0, 50, 100]),
        ([0, 49], [0]),
        ([0, 50], [0, 50]),
        ([0, 0, 0], [0]),
        ([1000, 951], [1000]),
        ([1000, 950], [1000, 950]),
        ([0, 100, 50], [0, 100, 50]),
        ([0, 99, 50, 49], [0, 99]),
        ([0, 200, 100, 149, 150], [0, 200, 100, 150]),
        ([200, 0, 40, 160, 60], [200, 0, 60]),
    ],
    ids=["in order", "1 ms less than the gap", "exactly the gap", "same time", "1 ms less before", "exactly the gap before",
         "exactly between two", "no room between", "between stretches", "late ones neither open nor lose"],
)  # fmt: skip
def test_event_is_kept_when_kept_ones_lie_the_gap_away_on_either_side(times: list[int], left: list[int]) -> None:
    assert kept(times) == left


def test_run_of_kept_events_is_remembered_by_its_two_ends() -> None:
    gate = Gate(50)
    assert [gate.admit(at) for at in range(0, 5_000, 50)] == [True] * 100
    assert gate.stretches == ((0, 4950),)


def test_gate_remembers_the_latest_stretches_only() -> None:
    gate = Gate(50)
    starts = [1000 * n for n in range(STRETCHES_MAX + 2)]
    assert all(gate.admit(at) for at in starts)
    assert gate.stretches == tuple((at, at) for at in starts[2:])
    assert [gate.admit(at) for at in (starts[2], starts[2] + 49, starts[2] - 49)] == [False] * 3
    assert gate.admit(starts[1]), "what was forgotten holds nothing back"
    assert len(gate.stretches) == STRETCHES_MAX


def test_gate_goes_on_from_what_the_state_remembers() -> None:
    first = Gate(100)
    assert [first.admit(at) for at in (0, 100, 1000)] == [True] * 3
    second = Gate(100, first.stretches)
    assert [second.admit(at) for at in (99, 199, 200, 901, 1099, 1100)] == [False, False, True, False, False, True]


def moved(at_ms: int, *offsets: int, source: int = 1) -> bytes:
    places = [{"x": 1, "y": 2, "id": 3, "timeOffset": offset} for offset in offsets]
    return line(3, at_ms, {"source": source, "positions": places})


def stored(flow: Flow, name: str, *lines: bytes, **changed: Any) -> list[tuple[Any, int, list[int]]]:
    """What is left of a batch: (type, ms after T0, offsets of the positions)."""
    payload = flow.send(batch(name, *lines, **changed)).clean.payload
    events = [json.loads(each) for each in payload.split(b"\n") if each]
    return [
        (each["type"], each["timestamp"] - T0, [place["timeOffset"] for place in each["data"]["positions"]])
        if each["type"] == 3 and "positions" in each["data"]
        else (each["type"], each["timestamp"] - T0, [])
        for each in events
    ]


def test_positions_of_all_sources_and_mousemoves_of_a_window_share_one_gate_over_batches() -> None:
    flow = Flow()
    assert stored(flow, "a", moved(T0 + 500, -500, -460, -450, -410, -400)) == [(3, 500, [-500, -450, -400])]
    assert stored(flow, "b", line("mousemove", T0 + 149), line("mousemove", T0 + 150)) == [("mousemove", 150, [])]
    assert stored(flow, "c", moved(T0 + 600, -401, -400, source=6)) == [(3, 600, [-400])]
    assert stored(flow, "d", moved(T0 + 600, -400, -350, source=12)) == [(3, 600, [-350])]
    assert stored(flow, "e", moved(T0 + 600, -400), window_id="w2") == [(3, 600, [-400])]


def test_move_without_a_position_left_is_throttled_and_one_that_lost_some_is_stored() -> None:
    flow = Flow()
    clean = flow.send(batch("a", moved(T0, 0), moved(T0 + 40, -1, 0), moved(T0 + 80, -50, -30, 0))).clean
    assert (clean.received_events, clean.event_count, clean.throttled) == (3, 2, 1)


def test_late_positions_find_their_place_between_kept_ones() -> None:
    flow = Flow()
    stored(flow, "a", moved(T0 + 1_000, -400, 0))
    assert stored(flow, "late", moved(T0 + 900, -300, -250, -200, -150, 60)) == [(3, 900, [-250, -200, -150])]


def test_scrolls_of_rrweb_go_through_the_gate_of_scrolls_whatever_scrolls() -> None:
    scrolls = [line(3, T0 + at, {"source": 3, "id": node, "x": 0, "y": at}) for at, node in ((0, 1), (99, 2), (100, 2))]
    assert stored(Flow(), "a", *scrolls, line("scroll", T0 + 199)) == [(3, 0, []), (3, 100, [])]


def test_second_source_of_an_increment_saves_it_from_the_gate() -> None:
    hidden = b'{"type":3,"timestamp":%d,"data":{"source":3,"id":1,"source":0,"adds":[]}}' % T0
    assert len(stored(Flow(), "a", line("scroll", T0), hidden)) == 2


def test_types_named_in_the_setting_have_gates_of_their_own_and_others_none() -> None:
    flow = Flow(Rules(other_gaps_ms=parse_gaps("console=20,5=100,3.7=50,custom=0")))
    media = [line(3, T0 + at, {"source": 7, "type": 0}) for at in (0, 49, 50)]
    near = [line(kind, T0 + at, {"a": 1}) for at in (0, 19, 20) for kind in ("console", 5, "5", "custom", "error")]
    assert stored(flow, "a", *media, *near) == [
        (3, 0, []), *((kind, 0, []) for kind in ("console", 5, "5", "custom", "error")),
        *((kind, 19, []) for kind in ("5", "custom", "error")),
        *((kind, 20, []) for kind in ("console", "5", "custom", "error")),
        (3, 50, []),
    ]  # fmt: skip
    assert stored(flow, "b", line("console", T0 + 39), line("console", T0 + 40)) == [("console", 40, [])]
    assert stored(flow, "c", line("console", T0 + 39), window_id="w2") == [("console", 39, [])]
