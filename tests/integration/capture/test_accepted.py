"""What was answered 200 stands on replay.batches, equal to what was sent, on the partition any Kafka client would choose."""

from __future__ import annotations

import gzip
import json
import secrets
from typing import Any

import httpx
import pytest
import zstandard

from pipeline.model.batches import Metadata
from tests.integration.capture.front import NOW, Front, a_batch, click, on_topic
from tests.integration.murmur2 import murmur2


@pytest.fixture
def session() -> str:
    return f"s-{secrets.token_hex(6)}"


def events_of(front: Front, session: str) -> list[Any]:
    records = sorted(on_topic(front.settings, session), key=lambda each: each.batch.sequence or 0)
    return [json.loads(line) for each in records for line in each.batch.payload.split(b"\n")]


def test_a_batch_is_there_after_the_200_equal_and_on_its_partition(front: Front, session: str) -> None:
    page = {"userAgent": "Firefox", "viewport": {"width": 800, "height": 600}, "url": "http://shop.example.test/"}
    sent = a_batch(session, events=3, userId="u é", sequence=7, clientVersion="1.2", metadata=page, final=True)
    answer = front.post("/v1/batches", json.dumps(sent))
    assert (answer.status_code, answer.json()) == (200, {"batches": 1, "events": 3})
    (record,) = on_topic(front.settings, session)
    assert record.key == f"default:{session}".encode()
    assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % front.settings.topic_partitions
    found = record.batch
    assert (found.tenant, found.session_id, found.window_id, found.user_id) == ("default", session, session, "u é")
    assert (found.batch_id, found.sequence, found.client_version) == ("b1", 7, "1.2")
    assert (found.source, found.imported, found.final, found.sent_at) == ("portable", False, True, NOW + 500)
    assert found.metadata == Metadata(
        user_agent="Firefox", viewport_width=800, viewport_height=600, url="http://shop.example.test/"
    )
    assert (found.event_count, found.first_event_at, found.last_event_at) == (3, NOW, NOW + 2)
    assert events_of(front, session) == sent["events"]


@pytest.mark.parametrize("number", range(12))
def test_each_session_has_the_partition_of_its_key(front: Front, number: int) -> None:
    session = f"spread-{number}-{secrets.token_hex(2)}"
    assert front.post("/v1/batches", json.dumps(a_batch(session))).status_code == 200
    (record,) = on_topic(front.settings, session)
    assert record.partition == (murmur2(f"default:{session}".encode()) & 0x7FFFFFFF) % 4


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress), ("identity", bytes)],
)
def test_a_compressed_body_is_the_same_batch(front: Front, session: str, encoding: str, packed: Any) -> None:
    sent = a_batch(session, events=2_000)
    answer = front.post("/v1/batches", packed(json.dumps(sent).encode()), Content_Encoding=encoding)
    assert answer.json() == {"batches": 1, "events": 2_000}
    assert events_of(front, session) == sent["events"]


@pytest.mark.parametrize("form", ["list", "ndjson", "ndjson with CRLF and blank lines"])
def test_several_batches_in_one_body_keep_their_order(front: Front, session: str, form: str) -> None:
    sent = [a_batch(session, f"b{number}", events=number + 1, sequence=number) for number in range(4)]
    lines = [json.dumps(each) for each in sent]
    body = json.dumps(sent) if form == "list" else ("\n" if form == "ndjson" else "\r\n\r\n").join(lines) + "\n"
    assert front.post("/v1/batches", body).json() == {"batches": 4, "events": 10}
    assert [each.batch.batch_id for each in on_topic(front.settings, session)] == ["b0", "b1", "b2", "b3"]
    assert events_of(front, session) == [event for each in sent for event in each["events"]]


def test_a_recording_comes_back_whole_and_in_order_and_sent_twice_has_the_same_ids(front: Front, session: str) -> None:
    events = [click(NOW + index // 3, text=f"n{index}") for index in range(12_001)]
    recording = {"sessionId": session, "userId": "u1", "startTime": NOW, "endTime": NOW + 9_000, "events": events}
    body = gzip.compress(json.dumps(recording).encode())
    first = front.post("/v1/recordings", body, Content_Encoding="gzip")
    assert first.status_code == 200
    assert first.json()["events"] == len(events)
    records = on_topic(front.settings, session)
    assert len(records) == first.json()["batches"] > 1
    assert events_of(front, session) == events
    assert [each.batch.sequence for each in records] == list(range(len(records)))
    assert [each.batch.final for each in records] == [False] * (len(records) - 1) + [True]
    assert all(each.batch.imported and each.batch.sent_at == NOW + 9_000 for each in records)
    ids = [each.batch.batch_id for each in records]
    assert len(set(ids)) == len(ids)

    assert front.post("/v1/recordings", body, Content_Encoding="gzip").status_code == 200
    assert [each.batch.batch_id for each in on_topic(front.settings, session)] == ids + ids


def test_a_beacon_has_its_key_in_the_query_and_any_content_type(front: Front, session: str) -> None:
    body = json.dumps(a_batch(session))
    headers = {"Content-Type": "text/plain;charset=UTF-8", "Origin": "http://shop.example.test"}
    answer = httpx.post(f"{front.url}/v1/batches", params={"key": front.key}, content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert len(on_topic(front.settings, session)) == 1


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/recordings"])
@pytest.mark.parametrize("encoded", [r"cut \ud83d", r"\ude00 cut", r"\ud83d\ud83d\ude00"])
def test_a_text_cut_in_the_middle_of_an_emoji_is_kept(front: Front, session: str, path: str, encoded: str) -> None:
    sent = {**a_batch(session), "startTime": NOW}
    body = json.dumps(sent).replace("Buy", encoded)
    assert front.post(path, body).status_code == 200
    (event,) = events_of(front, session)
    expected = {r"cut \ud83d": "cut \ufffd", r"\ude00 cut": "\ufffd cut", r"\ud83d\ud83d\ude00": "\ufffd😀"}
    assert event["data"]["text"] == expected[encoded]


def test_a_page_may_ask_for_any_method_and_header(front: Front) -> None:
    asked = {
        "Origin": "http://shop.example.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-posthog-session-id,traceparent",
    }
    answer = httpx.options(f"{front.url}/v1/batches", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Headers"] == asked["Access-Control-Request-Headers"]
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
