"""The throttle through `step`, every type of event and spelling, against the naive model; restarts and repeats anywhere."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.workers.chain import Outcome, step
from pipeline.workers.kinds import parse_gaps
from pipeline.workers.rules import Rules
from pipeline.workers.state import SessionState, decode_state, encode_state
from tests.property.workers.naive_throttle import Throttle
from tests.unit.workers.flow import T0, batch, place

OTHERS = {"console": 20, "custom": 7, "5": 100, "3.7": 50, "3.2": 10}
RULES = Rules(other_gaps_ms=parse_gaps(",".join(f"{name}={gap}" for name, gap in OTHERS.items())))

OFFSETS = st.one_of(st.integers(-600, 0), st.sampled_from([-500, -450, -100, -99, -50, -49, -1, 0, 50]))
ODD_OFFSETS = st.one_of(
    OFFSETS,
    st.floats(-600, 600, allow_nan=False),
    st.sampled_from([86_400_000, -86_400_001, 10**12, -(10**400), 1e300, -49.5, "-50", None, True, [], {}]),
)
SPOTS = st.fixed_dictionaries({"x": st.integers(0, 9), "y": st.just(1), "id": st.just(7), "timeOffset": OFFSETS})
ODD_SPOTS = st.one_of(
    SPOTS,
    st.fixed_dictionaries({"timeOffset": ODD_OFFSETS}, optional={"x": st.just(1.50), "z": st.just("ü\n")}),
    st.sampled_from([None, 5, "-50", [], {}]),
)
SOURCES = st.sampled_from([1, 1, 1, 6, 12])
MOVES = st.fixed_dictionaries({"source": SOURCES, "positions": st.lists(SPOTS, min_size=1, max_size=8)})
ODD_MOVES = st.fixed_dictionaries(
    {"positions": st.lists(ODD_SPOTS, max_size=6) | st.none() | st.just({"a": 1}), "source": SOURCES},
    optional={"further": st.just([1.50, {"timeOffset": -3}])},
)
OTHER_INCREMENTS = st.fixed_dictionaries(
    {"source": st.sampled_from([0, 2, 3, 3, 5, 7, 8, 99, None, "3", [3]])}, optional={"id": st.integers(1, 9)}
)
INCREMENTS = st.one_of(MOVES, MOVES, ODD_MOVES, OTHER_INCREMENTS, st.sampled_from([None, [1], "x"]))
EVENTS = st.one_of(
    st.tuples(st.just(3), INCREMENTS),
    st.tuples(
        st.sampled_from(["mousemove", "scroll", "console", "custom", "click", "error", "5", 0, 4, 5, 6]),
        st.just({"a": 1}),
    ),
)
STEPS = st.sampled_from([-600, -100, -50, -49, -1, 0, 0, 1, 7, 10, 20, 49, 50, 99, 100, 101, 450, 2_000])
SPELLINGS: list[dict[str, Any]] = [
    {"separators": (",", ":")},
    {"separators": (",", ":")},
    {"separators": (" , ", " : ")},
    {"separators": (",", ":"), "sort_keys": True},
]
BATCHES = st.lists(
    st.tuples(
        st.sampled_from(["b1", "b2", "b3", "b4", "b5", "b6", "b7"]),
        st.sampled_from(["w1", "w1", "w2"]),
        st.lists(st.tuples(EVENTS, STEPS, st.sampled_from(SPELLINGS)), max_size=10),
    ),
    min_size=1,
    max_size=8,
)
Sent = tuple[str, str, list[tuple[dict[str, Any], bytes]]]


def timed(drawn: list[tuple[str, str, list[Any]]]) -> list[Sent]:
    """Each batch as (id, window, events as values and as bytes)."""
    at, found = T0, []
    for name, window, events in drawn:
        made = []
        for (kind, data), step_ms, spelling in events:
            at += step_ms
            raw = json.dumps(data, **spelling)
            line = f'{{"type":{json.dumps(kind)},"timestamp":{at},"data":{raw}}}'.encode()
            made.append(({"type": kind, "timestamp": at, "data": data}, line))
        found.append((name, window, made))
    return found


def run(sent: list[Sent], *, restarts: bool) -> list[Outcome]:
    state: SessionState | None = None
    outcomes = []
    for offset, (name, window, events) in enumerate(sent):
        payload = b"\n".join(line for _, line in events)
        times = [event["timestamp"] for event, _ in events]
        one = batch(
            name, payload=payload, event_count=len(events), window_id=window, last_event_at=max(times, default=T0)
        )
        outcomes.append(step(state, one, place(offset, T0 + offset), RULES))
        state = outcomes[-1].state
        assert state is not None
        if restarts:
            state = decode_state(encode_state(state))
    return outcomes


@settings(deadline=None, max_examples=250)
@given(drawn=BATCHES)
def test_kept_events_and_positions_are_those_of_the_naive_model(drawn: list[tuple[str, str, list[Any]]]) -> None:
    sent, model, seen = timed(drawn), Throttle(OTHERS), set()
    for (name, window, events), outcome in zip(sent, run(sent, restarts=False), strict=True):
        clean = outcome.clean
        if name in seen:
            assert (clean.repeated, clean.event_count, clean.throttled) == (len(events), 0, 0)
            continue
        seen.add(name)
        wanted = model.batch(window, [event for event, _ in events])
        assert [json.loads(each) for each in clean.payload.split(b"\n") if each] == wanted
        assert (clean.received_events, clean.throttled) == (len(events), len(events) - len(wanted))


@settings(deadline=None, max_examples=60)
@given(drawn=BATCHES)
def test_worker_that_restarts_after_every_batch_keeps_the_same(drawn: list[tuple[str, str, list[Any]]]) -> None:
    sent = timed(drawn)
    assert run(sent, restarts=True) == run(sent, restarts=False)
