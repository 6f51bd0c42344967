"""Sessions against the naive model: any interleaving of batches, repeats and late arrivals, restarts anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PoisonError
from pipeline.model.batches import RecorderBatch
from pipeline.workers.chain import Outcome, Where, step
from pipeline.workers.rules import Rules
from pipeline.workers.state import SessionState, decode_state, encode_state
from tests.property.workers import naive
from tests.unit.workers.flow import T0, batch, line, place

GAP_MS, LENGTH_MS, GRACE_MS, MEMORY_MS = 20_000, 100_000, 400_000, 1_000_000
LIMITS = [(604_800_000, 86_400_000), (150_000, 50_000)]
"""Of an event's age and how far it may be ahead: the usual ones, and such as these sessions run into."""

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
RRWEB: dict[str, list[tuple[int, Any]]] = {
    "rrweb snapshot": [(2, {})],
    "rrweb mutation": [(3, {"source": 0, "adds": []})],
    "rrweb click": [(3, {"source": 2, "type": 2, "x": 1, "y": 1})],
    "rrweb focus": [(3, {"source": 2, "type": 5, "id": 1})],
    "rrweb input": [(3, {"source": 5, "text": "", "id": 1})],
    "rrweb meta": [(4, {"href": "http://shop.example.test/b"})],
    "rrweb console": [
        (6, {"plugin": "rrweb/console@1", "payload": {"level": level, "payload": [f'"{text}"']}})
        for level, text in [("error", "line"), ("log", "line"), ("error", "Uncaught TypeError")]
    ],
}
AHEAD = [0, 1, 49, 50, 99, 100, 1_999, 2_000, 2_001, 4_999, 5_000, 5_001, GAP_MS, GAP_MS + 1, LENGTH_MS, LENGTH_MS + 1]
STEPS = st.sampled_from([*AHEAD, *(-each for each in AHEAD)])
CLOCKS = st.sampled_from([0, 0, 0, 299_999, 300_000, -300_000, 449_999, 450_000, -450_001, 7_200_000])
"""How far a client's clock is behind."""


@dataclass(frozen=True)
class Sent:
    """One batch as drawn: its events' steps are from one to the next, its own from the batch before."""

    batch_id: str
    window: str
    user: str
    final: bool
    imported: bool
    rrweb: bool
    skew_ms: int
    from_last_ms: int
    stream_ms: int
    events: list[tuple[str, int, int]]


KINDS = st.one_of(
    st.sampled_from(["mousemove", "scroll"]), st.sampled_from(sorted(DATA)), st.sampled_from(sorted(RRWEB))
)
SENT = st.builds(
    Sent,
    batch_id=st.sampled_from([f"b{n}" for n in range(12)]),
    window=st.sampled_from(["w1", "w2"]),
    user=st.sampled_from(["anonymous", "anonymous", "u1", "u2"]),
    final=st.sampled_from([False] * 7 + [True]),
    imported=st.sampled_from([False] * 7 + [True]),
    rrweb=st.booleans(),
    skew_ms=CLOCKS,
    from_last_ms=STEPS,
    stream_ms=st.sampled_from([0, 0, 10, 1_000, GAP_MS, GRACE_MS, GRACE_MS + 1, MEMORY_MS, MEMORY_MS + 1]),
    events=st.lists(st.tuples(KINDS, STEPS, st.integers(0, 2)), max_size=12),
)
BATCHES = st.lists(SENT, min_size=1, max_size=12)
LIMIT = st.sampled_from(LIMITS)


def rules(limits: tuple[int, int]) -> Rules:
    return Rules(
        session_gap_ms=GAP_MS,
        session_length_ms=LENGTH_MS,
        session_grace_ms=GRACE_MS,
        session_memory_ms=MEMORY_MS,
        event_age_max_ms=limits[0],
        event_ahead_max_ms=limits[1],
    )


def naive_session(limits: tuple[int, int]) -> naive.Session:
    return naive.Session(
        gap_ms=GAP_MS, length_ms=LENGTH_MS, grace_ms=GRACE_MS, memory_ms=MEMORY_MS, age_ms=limits[0], ahead_ms=limits[1],
        gaps=GAPS,
    )  # fmt: skip


def event_of(kind: str, which: int) -> tuple[str | int, Any]:
    if kind in RRWEB:
        return RRWEB[kind][which % len(RRWEB[kind])]
    return kind, DATA[kind][which % len(DATA[kind])]


def timed(sent: list[Sent]) -> list[tuple[int, list[naive.Event]]]:
    """(stream time, events by the client's clock) of each batch: a live client's times are wrong by its skew."""
    stream, at, found = T0, T0, []
    for each in sent:
        stream, at = stream + each.stream_ms, at + each.from_last_ms
        events = []
        for kind, step_ms, which in each.events:
            at += step_ms
            name, data = event_of(kind, which)
            told_at = at if each.imported else at - each.skew_ms
            events.append({"type": name, "timestamp": told_at, "data": data})
        found.append((stream, events))
    return found


def records(sent: list[Sent]) -> list[tuple[RecorderBatch, Where]]:
    return [
        (
            batch(
                one.batch_id,
                *(line(each["type"], each["timestamp"], each["data"]) for each in events),
                window_id=one.window,
                user_id=one.user,
                final=one.final,
                imported=one.imported,
                source="rrweb" if one.rrweb else "portable",
                sent_at=stream - one.skew_ms,
                received_at=stream,
            ),
            place(offset, stream),
        )
        for offset, (one, (stream, events)) in enumerate(zip(sent, timed(sent), strict=True))
    ]


def run(sent: list[Sent], limits: tuple[int, int], *, restarts: bool) -> list[Outcome | PoisonError]:
    """What becomes of each batch; all of one that is outside the age limits is poison."""
    state: SessionState | None = None
    outcomes: list[Outcome | PoisonError] = []
    for made, where in records(sent):
        try:
            outcome = step(state, made, where, rules(limits))
        except PoisonError as poison:
            if poison.reason not in ("too_old", "too_new"):
                raise
            outcomes.append(poison)
            continue
        outcomes.append(outcome)
        state = outcome.state
        if restarts and state is not None:
            state = decode_state(encode_state(state))
    return outcomes


def into(model: naive.Session, offset: int, one: Sent, stream: int, events: list[naive.Event]) -> dict[str, int]:
    return model.batch(
        offset, stream, one.batch_id, one.window, one.user, one.final, events,
        skew_ms=one.skew_ms, imported=one.imported, rrweb=one.rrweb,
    )  # fmt: skip


def account_of(outcome: Outcome | PoisonError, received: int) -> dict[str, int]:
    if isinstance(outcome, PoisonError):
        return {"stored": 0, "throttled": 0, "repeated": 0, "dead": received}
    clean = outcome.clean
    assert clean.received_events == received
    assert (outcome.refused.batch.event_count if outcome.refused else 0) == clean.dead_lettered
    return {
        "stored": clean.event_count,
        "throttled": clean.throttled,
        "repeated": clean.repeated,
        "dead": clean.dead_lettered,
    }


@settings(deadline=None, max_examples=400)
@given(sent=BATCHES, limits=LIMIT)
def test_parts_equal_the_naive_model_after_every_batch(sent: list[Sent], limits: tuple[int, int]) -> None:
    model = naive_session(limits)
    for offset, (one, (stream, events), outcome) in enumerate(
        zip(sent, timed(sent), run(sent, limits, restarts=False), strict=True)
    ):
        account = into(model, offset, one, stream, events)
        assert account_of(outcome, len(events)) == account
        assert len(events) == sum(account.values())
        if isinstance(outcome, PoisonError):
            continue
        wanted = {part.name: part.told() for part in model.parts}
        for told in outcome.sessions:
            assert {name: getattr(told, name) for name in wanted[told.part]} == wanted[told.part]
            assert (told.user_id, told.revision) == (model.user, 2 * offset)
            assert told.clock_correction_ms == (model.clock or 0)
        assert outcome.clean.clock_correction_ms == (
            0 if one.imported or outcome.clean.kind == "repeat" else model.clock or 0
        )
        assert outcome.state is not None
        names = [part.name for part in model.parts]
        assert [part.name for part in outcome.state.parts] == names[-naive.REMEMBERED_PARTS :]
        remembered = {part.name: (part.events, part.started_at, part.ended_at) for part in outcome.state.parts}
        assert remembered == {
            part.name: (len(part.kept), part.started_at, part.ended_at)
            for part in model.parts[-naive.REMEMBERED_PARTS :]
        }


@settings(deadline=None, max_examples=100)
@given(sent=BATCHES, limits=LIMIT)
def test_what_each_kept_event_belongs_to_equals_the_naive_model(sent: list[Sent], limits: tuple[int, int]) -> None:
    model = naive_session(limits)
    for offset, (one, (stream, events), outcome) in enumerate(
        zip(sent, timed(sent), run(sent, limits, restarts=False), strict=True)
    ):
        before = [(part, len(part.kept)) for part in model.parts]
        into(model, offset, one, stream, events)
        if isinstance(outcome, PoisonError):
            continue
        clean = outcome.clean
        edges = [(0, clean.part), *((each.index, each.part) for each in clean.next_parts)]
        found: dict[str, list[int]] = {}
        for index, event in enumerate(naive.events_of(clean.payload)):
            name = next(part for first, part in reversed(edges) if first <= index)
            found.setdefault(name, []).append(event["timestamp"])
        wanted = {
            part.name: [each["timestamp"] for each in part.kept[next((n for known, n in before if known is part), 0) :]]
            for part in model.parts
        }
        assert found == {name: times for name, times in wanted.items() if times}


def comparable(outcomes: list[Outcome | PoisonError]) -> list[Outcome | tuple[str, str]]:
    return [(each.reason, each.detail) if isinstance(each, PoisonError) else each for each in outcomes]


@settings(deadline=None, max_examples=100)
@given(sent=BATCHES, limits=LIMIT)
def test_restart_after_any_batch_gives_the_same_bytes(sent: list[Sent], limits: tuple[int, int]) -> None:
    assert comparable(run(sent, limits, restarts=True)) == comparable(run(sent, limits, restarts=False))


@settings(deadline=None, max_examples=100)
@given(sent=BATCHES, limits=LIMIT)
def test_every_part_that_changed_is_told_and_parts_never_renumber(sent: list[Sent], limits: tuple[int, int]) -> None:
    """A part is begun once: what comes back later than the memory reaches is left out."""
    told: list[str] = []
    known: dict[str, Any] = {}
    sent = [replace(each, stream_ms=min(each.stream_ms, MEMORY_MS)) for each in sent]
    for outcome in run(sent, limits, restarts=False):
        if isinstance(outcome, PoisonError):
            continue
        assert outcome.state is not None
        now = {part.name: part for part in outcome.state.parts}
        assert not {name for name in now if name in told and name not in known and not name.isdigit()}
        changed = {name for name, part in now.items() if known.get(name) != part}
        assert changed <= {each.part for each in outcome.sessions}
        told += [each.part for each in outcome.sessions if each.part not in told]
        known = now
    for stem in {name.partition(".")[0] for name in told if name.startswith("L")}:
        numbers = [int(name.partition(".")[2] or "1") for name in told if name.partition(".")[0] == stem]
        assert numbers == list(range(1, len(numbers) + 1))
    plain = [int(name) for name in told if name.isdigit()]
    assert plain == list(range(1, len(plain) + 1))
