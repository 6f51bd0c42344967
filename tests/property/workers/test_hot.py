"""The bucket against a plain token count in stream time, restarts and repeats anywhere."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.workers.chain import step
from pipeline.workers.rules import Rules
from pipeline.workers.state import SessionState, decode_state, encode_state
from tests.unit.workers.flow import T0, batch, line, place

BURST_BYTES = 2_000
SENT = st.lists(
    st.tuples(
        st.sampled_from([f"b{n}" for n in range(20)]),
        st.sampled_from([0, 0, 1, 7, 100, 999, 1_000, 60_000]),
        st.lists(st.tuples(st.sampled_from(["custom", "error"]), st.integers(0, 1_500)), max_size=4),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=200)
@given(sent=SENT, bytes_per_s=st.sampled_from([1, 125, 1_000, 50_000]))
def test_batch_is_limited_iff_the_tokens_are_used_up(
    sent: list[tuple[str, int, list[tuple[str, int]]]], bytes_per_s: int
) -> None:
    rules = Rules(session_bytes_per_s=bytes_per_s, session_burst_bytes=BURST_BYTES)
    milli_tokens, at_ms, seen = BURST_BYTES * 1_000, T0, set()
    state: SessionState | None = None
    for offset, (name, later_ms, kinds) in enumerate(sent):
        at_ms += later_ms
        milli_tokens = min(BURST_BYTES * 1_000, milli_tokens + bytes_per_s * later_ms)
        one = batch(name, *(line(kind, T0, "x" * size) for kind, size in kinds))
        outcome = step(state, one, place(offset, at_ms), rules)
        assert outcome.state is not None
        state = decode_state(encode_state(outcome.state))
        if name in seen:
            assert outcome.clean.repeated == len(kinds)
            continue
        seen.add(name)
        stored = [json.loads(each) for each in outcome.clean.payload.split(b"\n") if each]
        customs = [kind for kind, _ in kinds].count("custom")
        if milli_tokens > 0:
            assert outcome.clean.payload == one.payload
            milli_tokens -= len(one.payload) * 1_000
            continue
        assert [each["data"] for each in stored if each["type"] == "limited"] == [{"dropped": customs}] * (customs > 0)
        assert sum(each["type"] == "error" for each in stored) == len(kinds) - customs
        assert outcome.clean.event_count + outcome.clean.throttled == len(kinds)
        milli_tokens -= sum(len(json.dumps(each["data"], separators=(",", ":"))) for each in stored) * 1_000
