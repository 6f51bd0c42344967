"""What the front admits can be processed: no client can fill the dead letters with what would pause a worker."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capture.formats.portable import decode_batches
from pipeline.errors import PoisonError, RefusedError
from pipeline.model.admission import Limits
from pipeline.model.batches import RecorderBatch
from pipeline.workers.breaker import COUNTED
from pipeline.workers.chain import Where, step
from pipeline.workers.rules import Rules
from tests.unit.workers.flow import T0

LIMITS = Limits(10_000, 8 << 20)
TYPES = st.sampled_from(
    ["click", "mousemove", "scroll", "input", "submit", "navigation", "console", "error", "promise_error", "initial_state",
     "other", 0, 2, 3, 4, 5, 6]
)  # fmt: skip
TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "ann@example.test",
        "4111 1111 1111 1111",
        "Bearer abcdefgh12345678",
        "http://u:p@h/?token=x",
        "%7B%22a%22",
        "\x00",
    ]
)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = ("x", "y", "target", "value", "text", "inputType", "formData", "url", "href", "args", "message", "source", "id",
         "type", "positions", "texts", "attributes", "adds", "node", "password")  # fmt: skip
DATA = VALUES | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
EVENTS = st.lists(
    st.tuples(TYPES, st.integers(T0, T0 + 10_000_000), DATA, st.integers(0, 1_000)), min_size=1, max_size=4
)


def event(kind: object, at: int, data: object, depth: int) -> str:
    nested = "[" * depth + json.dumps(data) + "]" * depth
    return f'{{"type":{json.dumps(kind)},"timestamp":{at},"data":{nested}}}'


def reason_of(batch: RecorderBatch) -> str | None:
    try:
        step(None, batch, Where("replay.batches", 0, 1, T0), Rules())
    except PoisonError as poison:
        return poison.reason
    return None


@settings(max_examples=400, deadline=None)
@given(EVENTS)
def test_no_admitted_batch_becomes_a_dead_letter_that_counts_for_the_breaker(events: list) -> None:
    body = f'{{"batchId":"b","sessionId":"s","sentAt":{T0},"events":[{",".join(event(*each) for each in events)}]}}'
    try:
        batches = decode_batches(body.encode(), tenant="acme", received_at=T0, limits=LIMITS)
    except RefusedError:
        return
    assert {reason_of(each) for each in batches}.isdisjoint(COUNTED)
