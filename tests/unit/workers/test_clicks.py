"""Dead clicks: the page did nothing for two seconds. Of rrweb's clients, who tell what the page does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.workers.flow import HOUR_MS, T0, Flow, batch, line

CLICK = (3, {"source": 2, "type": 2, "id": 1, "x": 5, "y": 5})
MOVE = (3, {"source": 1, "positions": [{"x": 1, "y": 1, "id": 1, "timeOffset": 0}]})
MUTATION = (3, {"source": 0, "texts": [], "attributes": [], "removes": [], "adds": []})
FOCUS = (3, {"source": 2, "type": 5, "id": 1})
ANSWERS = {
    "mutation": MUTATION,
    "snapshot": (2, {}),
    "scroll": (3, {"source": 3, "id": 1, "x": 0, "y": 5}),
    "navigation": (4, {"href": "http://shop.example.test/b"}),
    "input": (3, {"source": 5, "text": "a", "id": 1}),
}
Timed = tuple[int, tuple[int, Any]]


def sent(flow: Flow, batch_id: str, *events: Timed, **changed: Any) -> int:
    """The dead clicks of part 1 after this batch; times since T0."""
    lines = [line(kind, T0 + at, data) for at, (kind, data) in events]
    flow.send(batch(batch_id, *lines, **{"source": "rrweb"} | changed))
    return flow.parts["1"].dead_clicks


@pytest.mark.parametrize("split", [False, True], ids=["one batch", "a batch each"])
@pytest.mark.parametrize("what", [MOVE, FOCUS, CLICK, (5, {"tag": "x"}), (0, {}), (3, None)], ids=str)
def test_click_that_nothing_answers_within_two_seconds_is_dead_once_something_comes_later(
    what: Any, split: bool
) -> None:
    flow = Flow()
    batches = [[(0, CLICK)], [(2_000, what)], [(2_001, MOVE)], [(4_000, MOVE)]]
    batches = batches if split else [[each for events in batches for each in events]]
    assert [sent(flow, f"b{n}", *events) for n, events in enumerate(batches)][-1] == 1


def test_click_after_which_nothing_has_come_yet_is_not_judged() -> None:
    flow = Flow()
    assert sent(flow, "b", (0, CLICK), (2_000, MOVE), final=True) == 0
    assert flow.parts["1"].close_reason == "ended"


@pytest.mark.parametrize("split", [False, True], ids=["one batch", "a batch each"])
@pytest.mark.parametrize(("after_ms", "dead"), [(0, 0), (2_000, 0), (2_001, 1)])
@pytest.mark.parametrize("answer", ANSWERS)
def test_change_scroll_navigation_or_input_within_two_seconds_is_an_answer(
    answer: str, after_ms: int, dead: int, split: bool
) -> None:
    flow = Flow()
    batches = [[(0, CLICK)], [(after_ms, ANSWERS[answer])], [(9_000, MOVE)]]
    batches = batches if split else [[each for events in batches for each in events]]
    assert [sent(flow, f"b{n}", *events) for n, events in enumerate(batches)][-1] == dead


def test_answer_before_the_click_is_none() -> None:
    assert sent(Flow(), "b", (0, MUTATION), (1, CLICK), (3_000, MOVE)) == 1


def test_one_answer_answers_every_click_that_waits() -> None:
    assert sent(Flow(), "b", (0, CLICK), (900, CLICK), (1_900, MUTATION), (2_000, CLICK), (5_000, MOVE)) == 1


def test_tabs_answer_for_themselves() -> None:
    flow = Flow()
    sent(flow, "b", (0, CLICK), window_id="w1")
    sent(flow, "c", (10, MUTATION), (5_000, MOVE), window_id="w2")
    assert sent(flow, "d", (2_001, MOVE), window_id="w1") == 1


def test_click_that_comes_after_what_the_window_has_shown_already_is_not_judged() -> None:
    flow = Flow()
    sent(flow, "later", (100, MUTATION), (500, MOVE))
    sent(flow, "retried", (0, CLICK))
    assert sent(flow, "on", (9_000, MOVE)) == 0


def test_late_answer_within_its_time_counts_while_the_click_waits() -> None:
    flow = Flow()
    sent(flow, "b", (0, CLICK), (1_500, MOVE))
    sent(flow, "late", (1_000, MUTATION))
    assert sent(flow, "on", (9_000, MOVE)) == 0


def test_next_part_does_not_judge_the_last_clicks_of_the_one_before() -> None:
    flow = Flow()
    sent(flow, "b", (0, CLICK))
    assert sent(flow, "c", (HOUR_MS, MOVE)) == 0
    assert flow.parts["2"].dead_clicks == 0


def test_portable_clients_cannot_tell() -> None:
    flow = Flow()
    flow.send(batch("b", line("click", T0, {"x": 1, "y": 1}), line("mousemove", T0 + 5_000)))
    assert (flow.parts["1"].clicks, flow.parts["1"].dead_clicks) == (1, 0)


def test_no_more_than_sixteen_clicks_of_a_window_and_sixteen_windows_wait() -> None:
    flow = Flow()
    assert sent(flow, "b", *((n, CLICK) for n in range(20)), (5_000, MOVE)) == 16
    for n in range(17):
        sent(flow, f"w{n}", (6_000, CLICK), window_id=f"w{n}")
    for n in reversed(range(17)):
        sent(flow, f"v{n}", (9_000, MOVE), window_id=f"w{n}")
    assert flow.parts["1"].dead_clicks == 16 + 16


def test_clicks_are_judged_each_by_its_own_two_seconds() -> None:
    assert sent(Flow(), "b", (0, CLICK), (1, CLICK), (2_001, MUTATION), (9_000, MOVE)) == 1
