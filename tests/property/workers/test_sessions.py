"""Sessions against the naive model: any interleaving of batches, repeats and late arrivals, restarts anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.workers.chain import Outcome, step
from pipeline.workers.rules import Rules
from pipeline.workers.state import SessionState, decode_state, encode_state
from tests.property.workers import naive
from tests.unit.workers.flow import T0, batch, line, place

GAP_MS, LENGTH_MS, GRACE_MS = 20_000, 100_000, 400_000
RULES = Rules(session_gap_ms=GAP_MS, session_length_ms=LENGTH_MS, session_grace_ms=GRACE_MS)
GAPS = {"mousemove": 50, "scroll": 100}

DATA: dict[str, list[Any]] = {
    "mousemove": [{}],
    "scroll": [{}],
    "click": [{"x": 1, "y": 1}, None],
    "input": [{"inputType": "password", "value": "x"}, {"inputType": "text", "value": "", "target": "input#city"}],
    "navigation": [{"url": "http://shop.example.test/a"}, {}],
    "console": [{"type": "error"}, {"type": "log"}],
    "error": [{}],
    "promise_error": [None],
    "custom": [[1]],
}
AHEAD = [0, 1, 49, 50, 99, 100, 4_999, 5_000, 5_001, GAP_MS, GAP_MS + 1, LENGTH_MS, LENGTH_MS + 1]
STEPS = st.sampled_from([*AHEAD, *(-each for each in AHEAD)])


@dataclass(frozen=True)
class Sent:
    """One batch as drawn: its events' steps are from one to the next, its own from the batch before."""

    batch_id: str
    window: str
    user: str
    final: bool
    from_last_ms: int
    stream_ms: int
    events: list[tuple[str, int, int]]


KINDS = st.one_of(st.sampled_from(["mousemove", "scroll"]), st.sampled_from(sorted(DATA)))
SENT = st.builds(
    Sent,
    batch_id=st.sampled_from([f"b{n}" for n in range(12)]),
    window=st.sampled_from(["w1", "w2"]),
    user=st.sampled_from(["anonymous", "anonymous", "u1", "u2"]),
    final=st.sampled_from([False] * 7 + [True]),
    from_last_ms=STEPS,
    stream_ms=st.sampled_from([0, 0, 10, 1_000, GAP_MS, GRACE_MS, GRACE_MS + 1]),
    events=st.lists(st.tuples(KINDS, STEPS, st.integers(0, 1)), max_size=12),
)


def timed(sent: list[Sent]) -> list[tuple[int, list[tuple[str, int, Any]]]]:
    """(stream time, events with their times) of each batch."""
    stream, at, found = T0, T0, []
    for each in sent:
        stream, at = stream + each.stream_ms, at + each.from_last_ms
        events = []
        for kind, step_ms, which in each.events:
            at += step_ms
            events.append((kind, at, DATA[kind][which % len(DATA[kind])]))
        found.append((stream, events))
    return found


def run(sent: list[Sent], *, restarts: bool) -> list[Outcome]:
    state: SessionState | None = None
    outcomes = []
    for offset, (one, (stream, events)) in enumerate(zip(sent, timed(sent), strict=True)):
        made = batch(
            one.batch_id,
            *(line(*each) for each in events),
            window_id=one.window,
            user_id=one.user,
            final=one.final,
        )
        outcomes.append(step(state, made, place(offset, stream), RULES))
        state = outcomes[-1].state
        if restarts and state is not None:
            state = decode_state(encode_state(state))
    return outcomes


@settings(deadline=None, max_examples=300)
@given(sent=st.lists(SENT, min_size=1, max_size=12))
def test_parts_equal_the_naive_model_after_every_batch(sent: list[Sent]) -> None:
    model = naive.Session(gap_ms=GAP_MS, length_ms=LENGTH_MS, grace_ms=GRACE_MS, gaps=GAPS)
    for offset, (one, (stream, events), outcome) in enumerate(
        zip(sent, timed(sent), run(sent, restarts=False), strict=True)
    ):
        account = model.batch(
            offset, stream, one.batch_id, one.window, one.user, one.final,
            [{"type": kind, "timestamp": at, "data": data} for kind, at, data in events],
        )  # fmt: skip
        clean = outcome.clean
        assert {"stored": clean.event_count, "throttled": clean.throttled, "repeated": clean.repeated} == account
        assert clean.received_events == len(events) == sum(account.values())
        wanted = {part.name: part.told() for part in model.parts}
        for told in outcome.sessions:
            assert {name: getattr(told, name) for name in wanted[told.part]} == wanted[told.part]
            assert (told.user_id, told.revision) == (model.user, 2 * offset)
        assert outcome.state is not None
        names = [part.name for part in model.parts]
        assert [part.name for part in outcome.state.parts] == names[-naive.REMEMBERED_PARTS :]
        remembered = {part.name: (part.events, part.started_at, part.ended_at) for part in outcome.state.parts}
        assert remembered == {
            part.name: (len(part.kept), part.started_at, part.ended_at)
            for part in model.parts[-naive.REMEMBERED_PARTS :]
        }


@settings(deadline=None, max_examples=100)
@given(sent=st.lists(SENT, min_size=1, max_size=12))
def test_what_each_kept_event_belongs_to_equals_the_naive_model(sent: list[Sent]) -> None:
    model = naive.Session(gap_ms=GAP_MS, length_ms=LENGTH_MS, grace_ms=GRACE_MS, gaps=GAPS)
    for offset, (one, (stream, events), outcome) in enumerate(
        zip(sent, timed(sent), run(sent, restarts=False), strict=True)
    ):
        before = {part.name: len(part.kept) for part in model.parts} if model.seen_at is not None else {}
        if model.seen_at is not None and stream - model.seen_at > GRACE_MS:
            before = {}
        model.batch(
            offset, stream, one.batch_id, one.window, one.user, one.final,
            [{"type": kind, "timestamp": at, "data": data} for kind, at, data in events],
        )  # fmt: skip
        clean = outcome.clean
        edges = [(0, clean.part), *((each.index, each.part) for each in clean.next_parts)]
        payload = naive.events_of(clean.payload)
        found: dict[str, list[int]] = {}
        for index, event in enumerate(payload):
            name = next(part for first, part in reversed(edges) if first <= index)
            found.setdefault(name, []).append(event["timestamp"])
        wanted = {
            part.name: [each["timestamp"] for each in part.kept[before.get(part.name, 0) :]] for part in model.parts
        }
        assert found == {name: times for name, times in wanted.items() if times}


@settings(deadline=None, max_examples=100)
@given(sent=st.lists(SENT, min_size=1, max_size=12))
def test_restart_after_any_batch_gives_the_same_bytes(sent: list[Sent]) -> None:
    assert run(sent, restarts=True) == run(sent, restarts=False)


@settings(deadline=None, max_examples=100)
@given(sent=st.lists(SENT, min_size=1, max_size=12))
def test_every_part_that_changed_is_told_and_parts_never_renumber(sent: list[Sent]) -> None:
    told: list[str] = []
    known: dict[str, Any] = {}
    for outcome in run(sent, restarts=False):
        assert outcome.state is not None
        now = {part.name: part for part in outcome.state.parts}
        changed = {name for name, part in now.items() if known.get(name) != part}
        assert changed <= {each.part for each in outcome.sessions}
        told += [each.part for each in outcome.sessions if each.part not in told]
        known = now
    for stem in {name.partition(".")[0] for name in told if name.startswith("L")}:
        numbers = [int(name.partition(".")[2] or "1") for name in told if name.partition(".")[0] == stem]
        assert numbers == list(range(1, len(numbers) + 1))
    plain = [int(name) for name in told if name.isdigit()]
    assert plain == list(range(1, len(plain) + 1))
