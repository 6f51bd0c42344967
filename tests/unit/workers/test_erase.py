"""An erasure's place in the log is the line: what stood before leaves the state, what comes after is refused and counted."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import settings
from pipeline.model.batches import ErasureRequest, RecorderBatch
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds
from pipeline.workers.chain import Outcome
from pipeline.workers.reference import RawRecord, reference_run
from pipeline.workers.rules import Rules
from pipeline.workers.state import SessionState, released
from tests.unit.workers.flow import MINUTE_MS, T0, batch, line

CODEC = Codecs(catalogue(settings.load({})), PinnedIds("replay.")).batches
RULES = Rules()
SECRET = "/private/page"


def request(session_id: str = "s1", tenant: str = "acme") -> ErasureRequest:
    return ErasureRequest(tenant=tenant, session_id=session_id, erasure_id="er_1", asked_at=T0)


def clicks(batch_id: str, session_id: str = "s1", times: int = 3) -> RecorderBatch:
    lines = [line("navigation", T0 + n, {"url": f"http://shop.example.test{SECRET}"}) for n in range(times)]
    return batch(batch_id, *lines, session_id=session_id, user_id="alice")


def through(*records: RecorderBatch | ErasureRequest, every_ms: int = 1_000) -> list[Outcome]:
    raw = [
        RawRecord("replay.batches", 3, n, T0 + n * every_ms, b"", CODEC.encode(each)) for n, each in enumerate(records)
    ]
    return list(reference_run(raw, CODEC, RULES))


def test_request_and_batch_share_a_topic_and_are_told_apart() -> None:
    assert CODEC.decode(CODEC.encode(request())) == request()
    assert CODEC.decode(CODEC.encode(clicks("b"))) == clicks("b")


def test_all_that_is_kept_is_that_the_session_is_erased() -> None:
    *_, erased = through(clicks("b1"), request())
    assert erased.state == released(1, T0 + 1_000, erased=True)
    assert (erased.clean.kind, erased.clean.tenant, erased.clean.session_id) == ("erased", "acme", "s1")
    (told,) = erased.sessions
    assert (told.part, told.revision, told.status, told.close_reason) == ("1", 2, "closed", "erased")
    left = msgspec.json.encode((erased.state, erased.clean, told))
    assert SECRET.encode() not in left
    assert b"alice" not in left


def test_later_batches_are_refused_and_their_events_counted() -> None:
    *_, late = through(clicks("b1"), request(), clicks("b2", times=5))
    assert (late.clean.kind, late.clean.received_events, late.clean.erased, late.clean.event_count) == (
        "erased",
        5,
        5,
        0,
    )
    assert late.sessions == ()
    assert late.dead is None
    left = msgspec.json.encode((late.state, late.clean))
    assert SECRET.encode() not in left
    assert b"alice" not in left


@pytest.mark.parametrize(
    "changed", [{"payload": b"no json"}, {"event_count": -1}, {"window_id": ""}, {"imported": True}, {"final": True}]
)
def test_whatever_comes_of_an_erased_session_leaves_no_byte_behind(changed: dict[str, object]) -> None:
    *_, late = through(request(), msgspec.structs.replace(clicks("b"), **changed))
    assert late.clean.kind == "erased"
    assert late.dead is None


def test_session_that_nobody_knows_is_refused_from_then_on() -> None:
    *_, late = through(request(), clicks("b"))
    assert late.clean.kind == "erased"


def test_other_sessions_are_not_touched() -> None:
    with_it = through(clicks("a1", "s2"), request(), clicks("a2", "s2"))
    without = through(clicks("a1", "s2"), clicks("x", "s3"), clicks("a2", "s2"))
    assert [with_it[n] for n in (0, 2)] == [without[n] for n in (0, 2)]


def test_same_id_in_another_tenant_is_another_session() -> None:
    *_, other = through(request(tenant="rival"), clicks("b"))
    assert other.clean.kind == "batch"


def test_flag_outlives_every_late_batch_by_the_memory_of_sessions() -> None:
    memory_ms = RULES.session_memory_ms
    within = through(request(), clicks("b1"), clicks("b2"), every_ms=memory_ms)
    assert [each.clean.kind for each in within] == ["erased", "erased", "erased"]
    beyond = through(request(), clicks("b1"), every_ms=memory_ms + 1)
    assert beyond[1].clean.kind != "erased"


def test_request_that_names_no_session_is_a_dead_letter() -> None:
    (dead,) = through(request(session_id="with space"))
    assert dead.dead is not None
    assert dead.dead.reason == "bad_envelope"


@dataclasses.dataclass
class Naive:
    """Which sessions are erased, as a set: all times are within the memory of sessions."""

    erased: set[str] = dataclasses.field(default_factory=set)

    def kind(self, record: RecorderBatch | ErasureRequest) -> str:
        if isinstance(record, ErasureRequest):
            self.erased.add(record.session_id)
        return "erased" if record.session_id in self.erased else "stored"


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["s1", "s2", "s3"]).map(request),
            st.tuples(st.sampled_from(["s1", "s2", "s3"]), st.integers(0, 10**6)).map(
                lambda given: clicks(f"b{given[1]}", given[0])
            ),
        ),
        max_size=20,
    )
)
def test_order_alone_decides(records: list[RecorderBatch | ErasureRequest]) -> None:
    naive = Naive()
    wanted = [naive.kind(each) for each in records]
    outcomes = through(*records, every_ms=MINUTE_MS)
    assert ["erased" if each.clean.kind == "erased" else "stored" for each in outcomes] == wanted
    for each in outcomes:
        clean = each.clean
        assert clean.received_events == clean.event_count + clean.throttled + clean.repeated + clean.erased
        assert isinstance(each.state, SessionState)
