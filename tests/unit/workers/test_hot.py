"""A hot session: a token bucket in stream time, limited whole, marked, and never what a page is made of."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pipeline.model.batches import CleanBatch, RecorderBatch
from pipeline.workers.rules import Rules
from tests.unit.workers.flow import T0, Flow, batch, line

RULES = Rules(session_bytes_per_s=1_000, session_burst_bytes=5_000)
COLD = Rules(session_bytes_per_s=0)


def of_size(batch_id: str, size: int, **changed: Any) -> RecorderBatch:
    """One custom event, a payload of exactly this many bytes."""
    empty = len(line("custom", T0, ""))
    return batch(batch_id, line("custom", T0, "x" * (size - empty)), **changed)


def events(clean: CleanBatch) -> list[dict[str, Any]]:
    return [json.loads(each) for each in clean.payload.split(b"\n") if each]


def is_marked(clean: CleanBatch) -> bool:
    return bool(clean.payload) and events(clean)[0]["type"] == "limited"


def hot_flow(rules: Rules = RULES) -> Flow:
    """A session that has just sent its whole burst."""
    flow = Flow(rules)
    flow.send(of_size("burst", 5_000))
    return flow


def test_batch_that_finds_bytes_left_passes_whole_and_may_overdraw() -> None:
    flow = Flow(RULES)
    found = [is_marked(flow.send(of_size(f"b{n}", size)).clean) for n, size in enumerate((4_999, 3_000, 100))]
    assert found == [False, False, True]


@pytest.mark.parametrize(
    ("sent", "wait_ms", "hot"),
    [(5_000, 0, True), (4_999, 0, False), (5_000, 1, False), (5_500, 500, True), (5_500, 501, False),
     (8_000, 3_000, True), (8_000, 3_001, False)],
)  # fmt: skip
def test_bytes_come_back_with_stream_time(sent: int, wait_ms: int, hot: bool) -> None:
    flow = Flow(RULES)
    flow.send(of_size("burst", sent), T0)
    assert is_marked(flow.send(of_size("next", 100), T0 + wait_ms).clean) is hot


def test_quiet_time_saves_up_no_more_than_the_burst() -> None:
    flow = Flow(RULES)
    flow.send(of_size("a", 100), T0)
    flow.send(of_size("b", 5_000), T0 + 3_600_000)
    assert is_marked(flow.send(of_size("c", 100)).clean)


def test_hot_batch_loses_all_that_may_be_dropped_and_nothing_else() -> None:
    lines = [
        line("mousemove", T0 + 1, {"x": 1}),
        line("input", T0 + 2, {"value": "", "target": "#city"}),
        line("click", T0 + 3, {"x": 1, "y": 1}),
        line("error", T0 + 4, {"message": "m"}),
        line(2, T0 + 5, {"node": {}}),
        line(3, T0 + 6, {"source": 0, "texts": []}),
        line(3, T0 + 7, {"source": 1, "positions": [{"timeOffset": 0}]}),
        line("submit", T0 + 8, {"formData": {}}),
        line("custom", T0 + 9, 1),
    ]
    clean = hot_flow().send(batch("hot", *lines)).clean
    assert events(clean) == [
        {"type": "limited", "timestamp": T0 + 1, "data": {"dropped": 4}},
        *(json.loads(lines[n]) for n in (1, 3, 4, 5, 7)),
    ]
    assert (clean.received_events, clean.event_count, clean.throttled) == (9, 6, 3)


@pytest.mark.parametrize("source", ["rrweb", "posthog"])
def test_marker_of_an_rrweb_session_is_a_custom_event_that_players_take(source: str) -> None:
    lines = [line(4, T0, {"href": "http://shop.example.test/"}), *(line(6, T0 + n, {"plugin": "p"}) for n in (1, 2))]
    clean = hot_flow().send(batch("hot", *lines, source=source)).clean
    assert events(clean)[1:] == [
        {"type": 5, "timestamp": T0 + 1, "data": {"tag": "limited", "payload": {"dropped": 2}}}
    ]


def test_hot_batch_that_loses_nothing_is_not_marked() -> None:
    lines = [line("error", T0), line(3, T0 + 1, {"source": 0})]
    clean = hot_flow().send(batch("hot", *lines)).clean
    assert clean.payload == b"\n".join(lines)


def test_each_part_that_lost_something_is_marked() -> None:
    far = T0 + 1 + RULES.session_gap_ms + 1
    clean = hot_flow().send(batch("hot", *(line("click", at) for at in (T0, T0 + 1, far, far + 1)))).clean
    assert events(clean) == [{"type": "limited", "timestamp": at, "data": {"dropped": 2}} for at in (T0, far)]
    assert [(each.index, each.part) for each in clean.next_parts] == [(1, "2")]
    assert (clean.received_events, clean.event_count, clean.throttled) == (4, 2, 2)


def test_dropped_moves_do_not_shut_the_gate() -> None:
    flow = hot_flow()
    flow.send(batch("hot", line("mousemove", T0), line("mousemove", T0 + 60)))
    assert flow.send(batch("calm", line("mousemove", T0 + 61)), T0 + 60_000).clean.event_count == 1


@pytest.mark.parametrize(("wait_ms", "hot"), [(2_000, True), (2_001, False)])
def test_what_is_never_dropped_is_charged_and_paid_back(wait_ms: int, hot: bool) -> None:
    flow = hot_flow()
    flow.send(batch("errors", line("error", T0, "x" * 1_998)))  # with its quotes 2,000 bytes
    assert is_marked(flow.send(of_size("next", 100), T0 + wait_ms).clean) is hot


def test_what_was_dropped_is_not_charged() -> None:
    flow = hot_flow()
    for n in range(10):
        flow.send(of_size(f"n{n}", 3_000))
    assert not is_marked(flow.send(of_size("calm", 100), T0 + 200).clean)


def test_repeat_neither_costs_nor_saves_bytes() -> None:
    flow, other = Flow(RULES), Flow(RULES)
    for each in (flow, other):
        each.send(of_size("a", 5_400), T0)
    for n in range(5):
        flow.send(of_size("a", 5_400), T0 + 80 * n)
    for each in (flow, other):
        assert is_marked(each.send(of_size("b", 100), T0 + 400).clean)
        assert not is_marked(each.send(of_size("c", 100), T0 + 440).clean)


def test_stream_time_that_goes_back_gives_no_bytes() -> None:
    flow = hot_flow()
    assert is_marked(flow.send(of_size("b", 100), T0 - 60_000).clean)


@pytest.mark.parametrize(
    "rules",
    [COLD, Rules(session_burst_bytes=0), Rules(session_bytes_per_s=1_000_000)],
    ids=["no rate", "no burst", "default"],
)
def test_limit_is_off_at_0_and_generous_by_default(rules: Rules) -> None:
    flow = Flow(rules)
    cleans = [flow.send(of_size(f"b{n}", 1_000_000)).clean for n in range(67)]
    assert not any(is_marked(clean) for clean in cleans)
    assert flow.state is not None
    assert (flow.state.full_at_us == 0) == (rules.session_bytes_per_s == 0 or rules.session_burst_bytes == 0)


def test_recording_handed_in_whole_is_never_hot() -> None:
    flow = Flow(RULES)
    cleans = [flow.send(of_size(f"b{n}", 6_000, imported=True)).clean for n in range(3)]
    assert not any(is_marked(clean) for clean in cleans)


def test_other_windows_of_the_session_share_its_bucket_and_other_sessions_do_not() -> None:
    flow = hot_flow()
    assert is_marked(flow.send(of_size("b", 100, window_id="w2")).clean)
    other = Flow(RULES)
    assert not is_marked(other.send(msgspec.structs.replace(of_size("b", 100), session_id="s2")).clean)
