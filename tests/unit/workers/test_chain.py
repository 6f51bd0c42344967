"""`step`: one batch through, its account, its envelope, its poison."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pipeline.errors import PoisonError
from pipeline.model.batches import Metadata
from pipeline.workers.chain import Where, dead_letter, lost, step
from pipeline.workers.rules import Rules
from pipeline.workers.state import BATCH_IDS_MAX
from tests.unit.workers.flow import T0, Flow, batch, line, place


def poison(one: Any) -> PoisonError:
    with pytest.raises(PoisonError) as found:
        step(None, one, place(1), Rules())
    return found.value


def test_events_leave_sorted_by_time_stably_one_a_line_without_a_last_newline() -> None:
    lines = [
        line("b", T0 + 5, 1),
        line("a", T0, 2),
        line("c", T0 + 5, 3),
        b'{"type":3,"timestamp":%d,"data":{"k":"\\n  1.50"}}' % (T0 + 1),
    ]
    clean = Flow().send(batch("b", *lines)).clean
    assert clean.payload == b"\n".join([lines[1], lines[3], lines[0], lines[2]])
    assert (clean.event_count, clean.first_event_at, clean.last_event_at) == (4, T0, T0 + 5)


def test_nearer_moves_and_scrolls_of_a_window_are_throttled_and_nothing_else() -> None:
    near = [(kind, T0 + n) for n in range(3) for kind in ("mousemove", "scroll", "click", "input", "custom", 3)]
    flow = Flow()
    clean = flow.send(batch("b", *(line(kind, at) for kind, at in near), window_id="w1")).clean
    assert (clean.event_count, clean.throttled) == (14, 4)
    other = flow.send(batch("c", line("mousemove", T0 + 1), window_id="w2")).clean
    assert (other.event_count, other.throttled) == (1, 0)
    again = flow.send(batch("d", line("mousemove", T0 + 49), line("scroll", T0 + 100), window_id="w1")).clean
    assert [json.loads(each)["type"] for each in again.payload.split(b"\n")] == ["scroll"]


def test_batch_of_which_all_is_throttled_leaves_an_empty_record() -> None:
    flow = Flow()
    flow.send(batch("b", line("mousemove", T0)))
    clean = flow.send(batch("c", line("mousemove", T0 + 1), line("mousemove", T0 + 2))).clean
    assert (clean.kind, clean.payload, clean.event_count, clean.throttled, clean.part) == ("batch", b"", 0, 2, "1")


def test_envelope_and_source_coordinates_are_carried() -> None:
    one = batch("b/7", line("click", T0), user_id="u", sequence=9, client_version="1.2", source="rrweb", final=True)
    clean = step(None, one, Where("replay.batches", 5, 77, T0 + 9), Rules(epoch=4, retention="1y")).clean
    for name in ("tenant", "session_id", "window_id", "user_id", "batch_id", "sequence", "source", "client_version",
                 "imported", "final", "sent_at", "received_at", "metadata"):  # fmt: skip
        assert getattr(clean, name) == getattr(one, name)
    assert (clean.epoch, clean.source_partition, clean.source_offset, clean.source_last_offset) == (4, 5, 77, 77)
    assert (clean.source_at, clean.retention, clean.kind) == (T0 + 9, "1y", "batch")


def test_repeat_is_counted_dropped_and_changes_nothing_but_how_far_the_state_is() -> None:
    flow = Flow()
    flow.clicks("b", T0)
    before = flow.state
    outcome = flow.send(batch("b", line("click", T0), line("click", T0 + 1), user_id="u"), T0 + 5)
    clean = outcome.clean
    assert (clean.kind, clean.received_events, clean.repeated, clean.event_count) == ("repeat", 2, 2, 0)
    assert (clean.payload, outcome.sessions, clean.part) == (b"", (), "1")
    assert outcome.state == msgspec.structs.replace(before, applied=1, seen_at=T0 + 5)


def test_last_512_batch_ids_of_a_session_are_remembered() -> None:
    flow = Flow()
    for n in range(513):
        flow.clicks(f"b{n}", T0)
    assert [flow.clicks(name, T0).clean.repeated for name in ("b1", "b512", "b0")] == [1, 1, 0]
    assert BATCH_IDS_MAX == 512


def test_user_known_later_is_kept_and_told() -> None:
    flow = Flow()
    seen = [
        flow.clicks(f"b{n}", T0 + n, user_id=user).sessions[0].user_id
        for n, user in enumerate(["anonymous", "u1", "anonymous", "", "u2"])
    ]
    assert seen == ["anonymous", "u1", "u1", "u1", "u2"]


def test_redactions_are_counted_by_kind_and_method_in_clean() -> None:
    lines = [
        line("input", T0, {"inputType": "password", "value": "hunter2"}),
        line("input", T0 + 1, {"target": "#cvv", "inputType": "text", "value": "123"}),
        line("submit", T0 + 2, {"formData": {"pin": "1", "token": "2"}}),
    ]
    outcome = Flow().send(batch("b", *lines))
    assert outcome.clean.redacted == {"field.replace": 1, "key.replace": 2, "password.replace": 1}
    assert outcome.sessions[0].redacted == 4
    assert b"hunter2" not in outcome.clean.payload


@pytest.mark.parametrize("space", [b"\n", b" \r\n\t", b"\r\n"])
def test_line_breaks_between_tokens_of_data_do_not_break_a_line(space: bytes) -> None:
    data = b'{"a":' + space + b"[1," + space + b'"x\\ny"' + space + b"]}"
    payload = b'{"type":"custom","timestamp":' + str(T0).encode() + b',"data":' + data + b"}"
    clean = Flow().send(batch("b", payload=payload, event_count=1)).clean
    assert clean.payload.count(b"\n") == 0
    assert json.loads(clean.payload) == {"type": "custom", "timestamp": T0, "data": {"a": [1, "x\ny"]}}


ONE = b'{"type":"click","timestamp":1}'


@pytest.mark.parametrize(
    ("payload", "count"),
    [(b"not json", 1), (b"[]", 1), (b"{}", 1), (b"null", 1), (ONE, 2), (ONE, 0), (b"", 1), (ONE + b"\n" + ONE, 1),
     (b'{"type":"click","timestamp":"1"}', 1), (b'{"type":"click","timestamp":1.5}', 1),
     (b'{"type":"click","timestamp":-1}', 1), (b'{"type":"click","timestamp":4102444800001}', 1),
     (b'{"type":"click","timestamp":9' + b"9" * 40 + b"}", 1),
     (b'{"type":null,"timestamp":1}', 1), (b'{"type":"' + b"x" * 65 + b'","timestamp":1}', 1),
     (b'{"type":"x","timestamp":1,"data":"\xff"}', 1), (b'{"type":"x","timestamp":1,"data":"\xed\xa0\x80"}', 1),
     (b'{"type":"click","timestamp":1,"data":"\\ud800"}', 1), (b'{"type":"x","timestamp":1,"data":"a\nb"}', 1),
     (b'{"type":"x","timestamp":1,"data":NaN}', 1), (b'{"type":"x","timestamp":1,"data":[1,]}', 1),
     (b'{"type":"submit","timestamp":1,"data":{"formData":{"password":["x"],"n":1e999}}}', 1),
     (b'{"type":"input","timestamp":1,"data":{"inputType":"password","value":"x","target":1e999}}', 1)],
)  # fmt: skip
def test_payload_that_is_not_its_events_is_poison(payload: bytes, count: int) -> None:
    found = poison(batch("b", payload=payload, event_count=count, imported=True))
    assert found.reason == "bad_payload"


@pytest.mark.parametrize(("depth", "inner"), [(100_000, b'"a@b.example"'), (900, b'{"password":["hunter2"]}')])
def test_nesting_beyond_what_can_be_read_has_a_reason_of_its_own(depth: int, inner: bytes) -> None:
    deep = b"[" * depth + inner + b"]" * depth
    payload = b'{"type":"x","timestamp":1,"data":' + deep + b"}"
    assert poison(batch("b", payload=payload, event_count=1, imported=True)).reason == "too_deep"


def test_a_string_is_redacted_in_its_place_however_deep_it_stands() -> None:
    deep = b"[" * 600 + b'"a@b.example"' + b"]" * 600
    payload = b'{"type":"x","timestamp":1,"data":' + deep + b"}"
    left = step(None, batch("b", payload=payload, event_count=1, imported=True), place(1), Rules()).clean.payload
    assert left == payload.replace(b"a@b.example", b"[REDACTED]")


def test_poison_quotes_no_value() -> None:
    found = poison(batch("b", payload=b'{"type":"input","timestamp":"hunter2"}', event_count=1))
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "changed",
    [{"tenant": ""}, {"session_id": "a/b"}, {"session_id": "x" * 129}, {"session_id": "é"}, {"window_id": "a\n"},
     {"batch_id": ""}, {"batch_id": "b/x"}, {"source": "curl"}, {"event_count": -1}, {"event_count": (1 << 20) + 1},
     {"user_id": "u" * 257}, {"metadata": Metadata(viewport_width=-1)}, {"metadata": Metadata(url="u" * 4097)},
     {"metadata": Metadata(user_agent="u" * 4097)}, {"client_version": "v" * 4097}],
    ids=str,
)  # fmt: skip
def test_envelope_out_of_bounds_is_poison(changed: dict[str, Any]) -> None:
    assert poison(msgspec.structs.replace(batch("b", line("click", T0)), **changed)).reason == "bad_envelope"


def test_type_of_64_characters_the_year_2100_and_1970_pass() -> None:
    lines = [line("x" * 64, 0), line("x", 4_102_444_800_000)]
    assert Flow().send(batch("b", *lines, imported=True)).clean.event_count == 2


def test_what_redaction_lengthened_beyond_clean_is_poison() -> None:
    lines = [line("input", T0, {"inputType": "password", "value": "x"})] * 2_000
    one = batch("b", *lines)
    roomy, tight = Rules(), Rules(clean_bytes_max=(64 << 10) + len(one.payload))
    assert step(None, one, place(1), roomy).clean.event_count == 2_000
    with pytest.raises(PoisonError) as found:
        step(None, one, place(1), tight)
    assert found.value.reason == "too_large"


@pytest.mark.parametrize(("claimed", "counted"), [(3, 3), (-1, 0), ((1 << 20) + 1, 0)])
def test_dead_letter_keeps_the_bytes_and_accounts_for_the_offset(claimed: int, counted: int) -> None:
    one = batch("b", event_count=claimed, user_id="hunter2", metadata=Metadata(url="http://hunter2.test/"))
    outcome = dead_letter(PoisonError("bad_payload", "why"), one, b"acme:s1", b"\0raw", place(9), Rules())
    dead, clean = outcome.dead, outcome.clean
    assert dead is not None
    assert (dead.reason, dead.detail, dead.stage, dead.key, dead.value) == (
        "bad_payload", "why", "worker", b"acme:s1", b"\0raw")  # fmt: skip
    assert (dead.source_topic, dead.source_partition, dead.source_offset, dead.source_at) == (
        "replay.batches", 3, 9, T0)  # fmt: skip
    assert (clean.kind, clean.received_events, clean.dead_lettered) == ("dead", counted, counted)
    assert (clean.tenant, clean.session_id, clean.source_offset, clean.payload) == ("acme", "s1", 9, b"")
    assert b"hunter2" not in msgspec.json.encode(clean), "the rest of its envelope was not judged good"
    assert outcome.state is None
    assert outcome.sessions == ()


def test_record_without_an_envelope_becomes_an_empty_clean_record() -> None:
    clean = dead_letter(PoisonError("not_avro", "why"), None, None, b"", place(9), Rules()).clean
    assert (clean.kind, clean.tenant, clean.session_id, clean.received_events) == ("dead", "", "", 0)


def test_lost_offsets_are_told_as_a_range() -> None:
    clean = lost(4, 8, place(9), Rules())
    assert (clean.kind, clean.source_offset, clean.source_last_offset, clean.received_events) == ("lost", 4, 8, 0)
