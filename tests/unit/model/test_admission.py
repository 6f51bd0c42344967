"""What may become a batch: bounds are inclusive, and a refusal names the field that was written."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import MalformedError, RefusedError, TooLargeError
from pipeline.model.admission import Limits, build_batch, metadata
from pipeline.model.batches import Metadata, RecorderBatch

LAST_MS = 4_102_444_800_000  # 2100-01-01T00:00:00Z


def build(**more: Any) -> RecorderBatch:
    given: dict[str, Any] = {
        "tenant": "t",
        "session_id": "s",
        "window_id": None,
        "user_id": None,
        "batch_id": "b",
        "sequence": None,
        "client_version": None,
        "sent_at": 1,
        "received_at": 2,
        "metadata": Metadata(),
        "times": [5, 3, 4],
        "lines": [b"{}"] * 3,
        "limits": Limits(events=3, payload_bytes=8),
        **more,
    }
    return build_batch(**given)


def test_what_is_left_out_has_its_default_and_times_their_bounds() -> None:
    batch = build()
    assert (batch.window_id, batch.user_id, batch.source) == ("s", "anonymous", "portable")
    assert (batch.first_event_at, batch.last_event_at, batch.event_count) == (3, 5, 3)
    assert batch.payload == b"{}\n{}\n{}"
    empty = build(times=[], lines=[])
    assert (empty.first_event_at, empty.last_event_at, empty.event_count, empty.payload) == (0, 0, 0, b"")


@pytest.mark.parametrize(
    "edge",
    [
        {"session_id": "A-z_0.9:" + "x" * 120},
        {"batch_id": "b/999999"},
        {"user_id": "é" * 256},
        {"sequence": 0},
        {"sequence": (1 << 53) - 1},
        {"sent_at": 0},
        {"sent_at": LAST_MS},
        {"times": [0, LAST_MS, 1]},
    ],
)
def test_the_edges_are_within(edge: dict[str, Any]) -> None:
    build(**edge)


@pytest.mark.parametrize(
    ("beyond", "kind", "path"),
    [
        ({"session_id": "x" * 129}, MalformedError, "$[2].sessionId"),
        ({"session_id": "é"}, MalformedError, "$[2].sessionId"),
        ({"session_id": "s/1"}, MalformedError, "$[2].sessionId"),
        ({"window_id": ""}, MalformedError, "$[2].windowId"),
        ({"batch_id": "b/1234567"}, MalformedError, "$[2].batchId"),
        ({"batch_id": "b/"}, MalformedError, "$[2].batchId"),
        ({"user_id": "u" * 257}, MalformedError, "$[2].userId"),
        ({"user_id": "u\n"}, MalformedError, "$[2].userId"),
        ({"sequence": -1}, MalformedError, "$[2].sequence"),
        ({"sequence": 1 << 53}, MalformedError, "$[2].sequence"),
        ({"sent_at": LAST_MS + 1}, MalformedError, "$[2].sentAt"),
        ({"times": [0, -1, 0]}, MalformedError, "$[2].events[1].timestamp"),
        ({"times": [0, 0, LAST_MS + 1]}, MalformedError, "$[2].events[2].timestamp"),
        ({"times": [1] * 4, "lines": [b""] * 4}, TooLargeError, "$[2].events"),
        ({"lines": [b"{}", b"{}", b"{ }"]}, TooLargeError, "$[2].events"),
    ],
)
def test_one_step_beyond_is_refused_at_its_path(beyond: dict[str, Any], kind: type[RefusedError], path: str) -> None:
    with pytest.raises(kind) as refusal:
        build(**beyond, path="$[2]")
    assert refusal.value.path == path


def test_the_page_is_cut_and_a_viewport_fits_31_bits() -> None:
    cut = metadata("a" * 4_097, -1, 1 << 31, "u" * 4_097)
    assert cut == Metadata(user_agent="a" * 4_096, viewport_width=0, viewport_height=2_147_483_647, url="u" * 4_096)
