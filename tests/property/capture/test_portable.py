"""Whatever is sent to the front is admitted whole, as so many JSON lines, or refused by an error of the tree."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capture.formats.portable import decode_batches, decode_recording
from pipeline.errors import RefusedError
from pipeline.model.admission import Limits
from pipeline.model.batches import RecorderBatch

Decode = Callable[..., list[RecorderBatch]]
LIMITS = Limits(events=20, payload_bytes=4_000)
EXAMPLES = 150

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)  # surrogates among them
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner), max_leaves=12
)
times = st.integers(0, 4_102_444_800_000)
ids = st.from_regex(r"[A-Za-z0-9_.:-]{1,20}", fullmatch=True)
events = st.fixed_dictionaries(
    {"type": st.text(min_size=1, max_size=10) | st.integers(0, 1_000), "timestamp": times}, optional={"data": values}
)
wholes = st.fixed_dictionaries(
    {
        "batchId": ids,
        "sessionId": ids,
        "sentAt": times,
        "startTime": times,
        "events": st.lists(events, max_size=25),
    },
    optional={"userId": values, "endTime": values, "windowId": values, "metadata": values, "sequence": values},
)
almost = st.tuples(wholes, st.sampled_from(["batchId", "sessionId", "sentAt", "startTime", "events"]), values).map(
    lambda parts: {**parts[0], parts[1]: parts[2]}
)
bodies = st.one_of(
    st.binary(max_size=200),
    values.map(lambda value: json.dumps(value).encode()),
    wholes.map(lambda whole: json.dumps(whole).encode()),
    almost.map(lambda whole: json.dumps(whole).encode()),
    st.lists(wholes, max_size=3).map(lambda wholes: json.dumps(wholes).encode()),
    st.lists(wholes, max_size=3).map(lambda wholes: "\n".join(json.dumps(each) for each in wholes).encode()),
    st.tuples(wholes, st.integers(0, 400)).map(lambda parts: json.dumps(parts[0]).encode()[: parts[1]]),
)


def outcome(decode: Decode, body: bytes) -> list[RecorderBatch] | None:
    try:
        return decode(body, tenant="t", received_at=0, limits=LIMITS)
    except RefusedError:
        return None


@pytest.mark.parametrize("decode", [decode_batches, decode_recording])
@settings(max_examples=EXAMPLES, deadline=None)
@given(body=bodies)
def test_it_is_refused_by_the_tree_or_has_one_json_object_a_line(decode: Decode, body: bytes) -> None:
    for batch in outcome(decode, body) or []:
        lines = batch.payload.decode("utf-8").split("\n") if batch.event_count else []
        assert len(lines) == batch.event_count <= max(LIMITS.events, 5_000)
        assert batch.event_count or batch.payload == b""
        assert all(set(json.loads(line)) == {"type", "timestamp", "data"} for line in lines)
        found = [json.loads(line)["timestamp"] for line in lines]
        assert (batch.first_event_at, batch.last_event_at) == (min(found, default=0), max(found, default=0))
        assert len(batch.payload) <= LIMITS.payload_bytes


def replaced(value: Any) -> Any:
    """What a browser's own TextEncoder would send: each lone surrogate as U+FFFD; numbers as every JSON reader has them."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [replaced(each) for each in value]
    if isinstance(value, dict):
        return {key: replaced(each) for key, each in value.items()}
    return value


texts = st.text(st.characters(exclude_categories=()), max_size=30)
told = st.recursive(
    texts | st.integers(-(1 << 53), 1 << 53) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(sent=st.lists(st.tuples(times, told), min_size=1, max_size=12), named=st.text(max_size=5))
def test_a_conforming_recording_comes_back_event_for_event(sent: list[tuple[int, Any]], named: str) -> None:
    """Whole, in order, over its batches, each lone surrogate as the replacement character."""
    written = [{"type": "x" + named, "timestamp": at, "data": data} for at, data in sent]
    body = json.dumps({"sessionId": "s", "startTime": 0, "events": written}).encode()
    batches = decode_recording(body, tenant="t", received_at=0, limits=Limits(20, 100_000))
    found = [json.loads(line) for batch in batches for line in batch.payload.split(b"\n")]
    assert found == replaced(written)
    again = decode_recording(body, tenant="t", received_at=9, limits=Limits(20, 100_000))
    assert [each.batch_id for each in again] == [each.batch_id for each in batches]
    assert [each.final for each in batches] == [False] * (len(batches) - 1) + [True]
