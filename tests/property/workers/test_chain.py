"""Whatever the bytes: one outcome a record, an account that adds up, and a payload that any reader can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import settings as configuration
from pipeline.model.batches import Metadata, RecorderBatch
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds
from pipeline.workers.chain import Outcome, step
from pipeline.workers.reference import RawRecord, process, reference_run
from pipeline.workers.rules import Rules
from pipeline.workers.state import decode_state, encode_state
from tests.unit.workers.flow import T0, batch, line, place

CODECS = Codecs(catalogue(configuration.load({})), PinnedIds("replay."))
REASONS_OF_A_RECORD = {"not_avro", "unknown_schema", "bad_envelope", "bad_payload", "too_deep", "too_large"}
STATE_BYTES_MAX = 1 << 20

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["click", "mousemove", "scroll", "input", "submit", "navigation", "console", "error", "promise_error",
     "initial_state", "custom", "", 3, -1, 2**70, None, 1.5]
)  # fmt: skip
DATA = JSON | st.fixed_dictionaries(
    {},
    optional={
        "inputType": st.just("password") | JSON,
        "value": JSON,
        "target": st.sampled_from(["#pin", "input#card", "#city"]) | JSON,
        "formData": st.dictionaries(st.sampled_from(["password", "cvv", "city"]), JSON) | JSON,
        "url": JSON,
        "x": JSON,
        "y": JSON,
        "type": JSON,
        "source": st.sampled_from([1, 1, 6, 12, 3, 0]) | JSON,
        "positions": st.lists(JSON | st.fixed_dictionaries({"timeOffset": st.integers(-500, 0) | JSON}), max_size=5),
    },
)
TIMES = st.integers(T0, T0 + 5_000) | st.sampled_from([0, -1, 4_102_444_800_000, 4_102_444_800_001, 10**30, "1", 1.5])
SEPARATORS: st.SearchStrategy[tuple[str, str]] = st.sampled_from(
    [(",", ":"), (", ", ": "), (",\n", ":\n"), (",\r\n", ": ")]
)


def event_bytes(kind: Any, at: Any, data: Any, separators: tuple[str, str], ascii_only: bool) -> bytes:
    """Line breaks, where the separators have them, stand inside `data` alone."""
    inner = json.dumps(data, separators=separators, ensure_ascii=ascii_only)
    text = f'{{"type":{json.dumps(kind)},"timestamp":{json.dumps(at)},"data":{inner}}}'
    return text.encode("utf-8", "surrogatepass")


EVENTS = st.builds(event_bytes, KINDS, TIMES, DATA, SEPARATORS, st.booleans())
GOOD_EVENTS = st.builds(
    event_bytes,
    KINDS.filter(lambda kind: isinstance(kind, str | int)),
    st.integers(T0, T0 + 5_000),
    DATA,
    SEPARATORS,
    st.just(True),
)
JUNK = st.binary(max_size=40) | st.sampled_from([b"\xff\xfe", b"[" * 5_000, b'"a\nb"', b"\x00", b"NaN", b"1e999"])


def splice(payload: bytes, at: int, junk: bytes) -> bytes:
    at %= len(payload) + 1
    return payload[:at] + junk + payload[at:]


LINES = st.lists(EVENTS | GOOD_EVENTS, max_size=6)
PAYLOADS = st.one_of(
    JUNK,
    LINES.map(b"\n".join),
    st.lists(GOOD_EVENTS, max_size=6).map(b"\n".join),
    st.builds(splice, st.lists(GOOD_EVENTS, max_size=4).map(b"\n".join), st.integers(0, 5_000), JUNK),
)
IDS = st.sampled_from(["s1", "s1", "s2", "", "a/b", "é", "x" * 129])
LONG = st.integers(-(2**63), 2**63 - 1)


def envelope(payload: bytes, off_by: int, changed: dict[str, Any]) -> RecorderBatch:
    count = payload.count(b"\n") + 1 if payload else 0
    made = batch("b", payload=payload, event_count=count + off_by)
    return msgspec.structs.replace(made, **changed)


BATCHES = st.builds(
    envelope,
    PAYLOADS,
    st.sampled_from([0, 0, 0, 0, 1, -1]),
    st.fixed_dictionaries(
        {"batch_id": st.sampled_from(["b1", "b2", "b3", "b4", "b/1", "b/x"])},
        optional={
            "session_id": IDS,
            "window_id": IDS,
            "tenant": st.sampled_from(["acme", "acme", ""]),
            "user_id": st.text(max_size=5),
            "source": st.sampled_from(["portable", "rrweb", "curl"]),
            "event_count": st.sampled_from([-1, 0, 1 << 40]) | LONG,
            "sent_at": LONG,
            "first_event_at": LONG,
            "last_event_at": LONG,
            "sequence": st.none() | LONG,
            "imported": st.booleans(),
            "final": st.booleans(),
            "metadata": st.builds(
                Metadata,
                viewport_width=st.sampled_from([0, -1, 2**31 - 1]),
                url=st.text(max_size=5) | st.just("u" * 5_000),
            ),
        },
    ),
)


def good(events: list[bytes], changed: dict[str, Any]) -> RecorderBatch:
    return msgspec.structs.replace(
        batch("b", payload=b"\n".join(events), event_count=len(events), last_event_at=T0), **changed
    )


GOOD_BATCHES = st.builds(
    good,
    st.lists(GOOD_EVENTS, max_size=8),
    st.fixed_dictionaries(
        {
            "batch_id": st.sampled_from(["b1", "b2", "b3", "b4", "b5"]),
            "session_id": st.sampled_from(["s1", "s1", "s2"]),
            "window_id": st.sampled_from(["w1", "w2"]),
            "user_id": st.text(max_size=5),
            "final": st.booleans(),
        }
    ),
)


def damaged(value: bytes, at: int, byte: int, cut: int) -> bytes:
    at %= len(value)
    return (value[:at] + bytes([byte]) + value[at + 1 :])[: len(value) - cut]


ENCODED: st.SearchStrategy[bytes] = BATCHES.map(CODECS.batches.encode)
GOOD: st.SearchStrategy[bytes] = GOOD_BATCHES.map(CODECS.batches.encode)
DAMAGED = st.builds(damaged, GOOD, st.integers(0, 500), st.integers(0, 255), st.sampled_from([0, 0, 1, 7]))
NOISE: st.SearchStrategy[bytes | None] = st.one_of(
    st.none(), st.binary(max_size=40), st.binary(max_size=40).map(lambda rest: b"\0\0\0\0\1" + rest)
)
VALUES: st.SearchStrategy[bytes | None] = st.sampled_from([GOOD] * 5 + [ENCODED] * 3 + [DAMAGED, NOISE]).flatmap(
    lambda one: one
)


def records(values: list[bytes | None]) -> list[RawRecord]:
    return [RawRecord("replay.batches", 0, n, T0 + n, b"acme:s1", value) for n, value in enumerate(values)]


def account_adds_up(record: RawRecord, outcome: Outcome) -> None:
    clean = outcome.clean
    assert (clean.source_partition, clean.source_offset, clean.source_last_offset) == (0, record.offset, record.offset)
    parts = (clean.event_count, clean.throttled, clean.repeated, clean.erased, clean.dead_lettered)
    assert min(parts) >= 0
    assert clean.received_events == sum(parts)
    assert (outcome.dead is not None) == (clean.kind == "dead")
    if outcome.dead is not None:
        assert outcome.dead.reason in REASONS_OF_A_RECORD
        assert outcome.dead.value == (record.value or b"")
        assert outcome.dead.event_count == clean.dead_lettered == clean.received_events
        assert outcome.state is None


def payload_reads(outcome: Outcome) -> None:
    clean = outcome.clean
    lines = clean.payload.split(b"\n") if clean.payload else []
    assert len(lines) == clean.event_count
    times = [json.loads(each.decode())["timestamp"] for each in lines]
    assert times == sorted(times)
    assert (clean.first_event_at, clean.last_event_at) == ((times[0], times[-1]) if times else (0, 0))
    starts = [0, *(each.index for each in clean.next_parts)]
    assert starts == sorted(set(starts))
    assert starts[-1] < max(1, len(lines))


def outputs_can_be_written(outcome: Outcome) -> None:
    assert CODECS.clean.decode(CODECS.clean.encode(outcome.clean)) == outcome.clean
    for update in outcome.sessions:
        assert CODECS.sessions.decode(CODECS.sessions.encode(update)) == update
    if outcome.dead is not None:
        assert CODECS.dead_letters.decode(CODECS.dead_letters.encode(outcome.dead)) == outcome.dead
    if outcome.state is not None:
        assert len(encode_state(outcome.state)) < STATE_BYTES_MAX
        assert decode_state(encode_state(outcome.state)) == outcome.state


@settings(deadline=None, max_examples=150)
@given(values=st.lists(VALUES, min_size=1, max_size=5))
def test_every_record_has_one_outcome_whose_account_adds_up(values: list[bytes | None]) -> None:
    given_records = records(values)
    outcomes = list(reference_run(given_records, CODECS.batches, Rules()))
    assert len(outcomes) == len(given_records)
    checks: list[Callable[[Outcome], None]] = [payload_reads, outputs_can_be_written]
    for record, outcome in zip(given_records, outcomes, strict=True):
        account_adds_up(record, outcome)
        for check in checks:
            check(outcome)


@settings(deadline=None, max_examples=100)
@given(values=st.lists(VALUES, min_size=1, max_size=5))
def test_same_records_give_the_same_bytes(values: list[bytes | None]) -> None:
    def written() -> list[tuple[bytes, bytes | None, list[bytes]]]:
        return [
            (
                CODECS.clean.encode(each.clean),
                None if each.state is None else encode_state(each.state),
                [CODECS.sessions.encode(update) for update in each.sessions],
            )
            for each in reference_run(records(values), CODECS.batches, Rules())
        ]

    assert written() == written()


@settings(deadline=None, max_examples=150)
@given(events=st.lists(GOOD_EVENTS, max_size=8))
def test_events_of_any_data_are_stored_with_their_meaning(events: list[bytes]) -> None:
    outcome = step(None, batch("b", payload=b"\n".join(events), event_count=len(events)), place(0), Rules(0, 0, 0))
    wanted = sorted((json.loads(each) for each in events), key=lambda each: each["timestamp"])
    found = [json.loads(each) for each in outcome.clean.payload.split(b"\n") if each]
    assert outcome.clean.event_count == len(events)
    for before, after in zip(wanted, found, strict=True):
        assert (after["type"], after["timestamp"]) == (before["type"], before["timestamp"])
        if before["type"] not in ("input", "submit") and "formData" not in str(before["data"]):
            assert after["data"] == before["data"]


@settings(deadline=None, max_examples=100)
@given(value=VALUES)
def test_poison_changes_no_later_batch(value: bytes | None) -> None:
    sound = CODECS.batches.encode(batch("sound", line("click", T0), session_id="other"))
    with_it = list(reference_run(records([sound, value, sound]), CODECS.batches, Rules()))
    assert with_it[0].clean.event_count == 1
    assert with_it[2].clean.repeated == 1
    first = process(records([value])[0], {}, CODECS.batches, Rules())
    assert (with_it[1].dead is None) == (first.dead is None)
