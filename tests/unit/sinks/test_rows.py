"""Typed columns by event type, and that no legal value stops the sink. Expectations are written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import FatalError, PoisonError
from pipeline.model.batches import SessionUpdate
from pipeline.sinks.rows import event_rows, minute_rows, session_rows
from tests.unit.sinks.clean import AUGUST_MS, batch, clicks, part_start

EMPTY = {"url": "", "target": "", "text": "", "level": "", "message": "", "x": None, "y": None}


@pytest.mark.parametrize(
    ("kind", "data", "columns"),
    [
        ("click", {"x": 1, "y": 2.5, "target": "b#buy", "text": "Buy"}, {"x": 1.0, "y": 2.5, "target": "b#buy", "text": "Buy"}),
        ("scroll", {"scrollX": 3, "scrollY": 4, "x": 9}, {"x": 3.0, "y": 4.0}),
        ("input", {"target": "i", "value": "v", "text": "no"}, {"target": "i", "text": "v"}),
        ("navigation", {"url": "http://a.test/"}, {"url": "http://a.test/"}),
        ("console", {"type": "warn", "args": ["a", 1]}, {"level": "warn", "message": '["a", 1]'}),
        ("error", {"message": "m" * 2_000}, {"level": "error", "message": "m" * 1_000}),
        ("promise_error", {"reason": "r"}, {"level": "error", "message": "r"}),
        ("click", {"x": True, "y": "2", "target": 5, "text": ["x"]}, {}),
        ("click", {"x": 10**400, "y": 1}, {"y": 1.0}),
        ("click", {"text": "a\x00\U0001f600", "target": "\u2028"}, {"text": "a\x00\U0001f600", "target": "\u2028"}),
        ("click", [1], {}),
        ("click", None, {}),
        ("click", {}, {}),
        (3, {"x": 1}, {}),
        ("", {}, {}),
    ],
)  # fmt: skip
def test_each_type_has_its_columns(kind: Any, data: Any, columns: dict[str, Any]) -> None:
    payload = batch(0, [(kind, 5, data)]).payload.replace(b'["a",1]', b'["a", 1]')
    (row,) = event_rows([batch(0, payload=payload, event_count=1)]).to_pylist()
    assert {name: row[name] for name in EMPTY} == EMPTY | columns
    assert row["type"] == str(kind)


def test_identity_part_and_end_of_a_row() -> None:
    start = clicks(3, [AUGUST_MS] * 3, next_parts=(part_start(1, "1"), part_start(2, "4")), source_partition=2)
    rows = event_rows([start]).to_pylist()
    assert [row["part"] for row in rows] == ["0", "1", "4"]
    assert [row["seq"] for row in rows] == [3_145_728, 3_145_729, 3_145_730]
    assert [row["event_index"] for row in rows] == [0, 1, 2]
    # Taken in on 2026-08-31 and kept 30 days: gone at the end of 2026-09-30.
    assert {row["expires_at"] for row in rows} == {1_790_812_800}


@pytest.mark.parametrize(
    ("at", "stored"),
    [(-(10**30), 0), (-1, 0), (0, 0), (7_258_118_399_999, 7_258_118_399_999), (2**63 - 1, 7_258_118_399_999), (10**30, 7_258_118_399_999)],
)  # fmt: skip
def test_a_timestamp_outside_the_column_is_stored_at_the_nearer_end(at: int, stored: int) -> None:
    assert event_rows([clicks(0, [at])]).column("ts").cast("int64").to_pylist() == [stored]


def test_the_last_offset_that_seq_holds_goes_in_and_the_next_is_told() -> None:
    assert event_rows([clicks(2**44 - 1)]).column("seq").to_pylist() == [2**64 - 2**20]
    with pytest.raises(FatalError, match="REPLAY_EPOCH"):
        event_rows([clicks(2**44)])


@pytest.mark.parametrize(
    "payload",
    [b"{", b'{"type":"\xff","timestamp":1}', b'{"type":"a","timestamp":1}\n{"type":"a","timestamp":1}', b""],
)
def test_a_payload_that_is_not_what_its_envelope_says_names_its_offset(payload: bytes) -> None:
    with pytest.raises(PoisonError, match="partition 0 offset 77"):
        event_rows([batch(77, payload=payload, event_count=1)])


@pytest.mark.parametrize("data", [b'{"url":"\xff"}', b'{"url":' + b"[" * 400 + b"]" * 400 + b"}"])
def test_data_that_cannot_be_looked_into_is_stored_whole(data: bytes) -> None:
    payload = b'{"type":"click","timestamp":1,"data":' + data + b"}"
    assert event_rows([batch(0, payload=payload, event_count=1)]).column("data").to_pylist() == [data]


def test_minutes_count_by_minute_and_type_with_one_row_a_key() -> None:
    minute = 1_788_220_740
    rows = event_rows(
        [
            clicks(0, [AUGUST_MS, AUGUST_MS + 1_000]),
            batch(1, [("scroll", AUGUST_MS, {})]),
            clicks(2, [AUGUST_MS], retention="1y"),
        ]
    )
    found = {
        (row["minute"], row["type"], row["first"], row["events"], row["expires_at"])
        for row in minute_rows(rows, 0).to_pylist()
    }
    assert found == {
        (minute, "click", 0, 2, 1_788_220_800 + 365 * 86_400),
        (minute + 60, "click", 0, 1, 1_790_812_800),
        (minute, "scroll", 0, 1, 1_790_812_800),
    }


def test_a_session_update_with_values_at_both_ends_makes_a_row() -> None:
    numbers = {"duration_ms", "active_ms", "events", "clicks", "rage_clicks", "inputs", "scrolls", "mouse_moves"} | {
        "navigations", "console_errors", "errors", "throttled", "redacted", "late"
    }  # fmt: skip
    update = SessionUpdate(
        tenant="acme", session_id="s", part="0", revision=2**63 - 1, status="open", close_reason=None, source="portable",
        user_id="u\x00\U0001f600", started_at=-(2**63), ended_at=2**63 - 1, first_url="", last_url="", urls=(),
        user_agent="", viewport_width=-(2**31), viewport_height=2**31 - 1, retention="9999y", epoch=1,
        source_partition=0, **dict.fromkeys(numbers, 2**63 - 1),
    )  # fmt: skip
    (row,) = session_rows([(update, -1)]).to_pylist()
    assert (row["viewport_width"], row["viewport_height"], row["expires_at"]) == (0, 2**31 - 1, 2**32 - 1)
    assert (row["revision"], row["user_id"], row["close_reason"]) == (2**63 - 1, "u\x00\U0001f600", "")
