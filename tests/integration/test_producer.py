"""BatchProducer on a real broker: what it reports as delivered is there; what it cannot queue it refuses, in time."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import MalformedError, RetryableError, TooLargeError
from pipeline.model.batches import Metadata
from pipeline.producer import BatchProducer
from pipeline.settings import Settings
from tests.integration.capture.front import NOW, click, on_topic

PAYLOAD = "x" * 100_000


@pytest.fixture
def silent(home: Settings) -> Iterator[Settings]:
    """Settings whose broker takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield dataclasses.replace(home, kafka_port=listener.getsockname()[1])


def test_what_is_sent_arrives_equal_and_is_reported(with_topics: Settings) -> None:
    told: list[tuple[str, str | None]] = []
    with BatchProducer(with_topics, tenant="acme", client_version="9.1") as producer:
        for number in range(50):
            producer.send(
                session_id="s1",
                batch_id=f"b{number}",
                events=[click(NOW + number), {"type": 3, "timestamp": NOW}],
                window_id="w1",
                user_id="u é",
                sequence=number,
                sent_at=NOW,
                metadata=Metadata(user_agent="Firefox", viewport_width=800, viewport_height=600, url="http://x.test/"),
                final=number == 49,
                on_delivery=lambda batch_id, why: told.append((batch_id, why)),
            )
    assert told == [(f"b{number}", None) for number in range(50)]
    records = on_topic(with_topics)
    assert {each.key for each in records} == {b"acme:s1"}
    assert [each.batch.sequence for each in records] == list(range(50))
    found = records[-1].batch
    assert (found.tenant, found.window_id, found.user_id, found.client_version) == ("acme", "w1", "u é", "9.1")
    assert (found.final, found.imported, found.sent_at, found.event_count) == (True, False, NOW, 2)
    assert found.metadata == Metadata(
        user_agent="Firefox", viewport_width=800, viewport_height=600, url="http://x.test/"
    )
    assert [json.loads(line) for line in found.payload.split(b"\n")] == [
        click(NOW + 49),
        {"type": 3, "timestamp": NOW, "data": {}},
    ]


def test_half_an_emoji_is_kept_as_the_replacement_character(with_topics: Settings) -> None:
    with BatchProducer(with_topics, tenant="acme", client_version="1\ud83d") as producer:
        producer.send(
            session_id="s1",
            batch_id="b1",
            events=[click(NOW, "cut \ud83d"), click(NOW, "😀")],
            user_id="u\ude00",
            metadata=Metadata(url="http://x.test/\ud83d", user_agent="\ud83d\ude00"),
        )
    (record,) = on_topic(with_topics)
    texts = [json.loads(line)["data"]["text"] for line in record.batch.payload.split(b"\n")]
    assert texts == ["cut \ufffd", "😀"]
    assert (record.batch.user_id, record.batch.client_version) == ("u\ufffd", "1\ufffd")
    assert (record.batch.metadata.url, record.batch.metadata.user_agent) == ("http://x.test/\ufffd", "😀")


def test_a_pages_description_is_cut_to_its_limits(with_topics: Settings) -> None:
    with BatchProducer(with_topics, tenant="acme") as producer:
        page = Metadata(url="u" * 5_000, user_agent="a" * 5_000, viewport_width=-5, viewport_height=1 << 40)
        producer.send(session_id="s1", batch_id="b1", events=[], metadata=page)
    (record,) = on_topic(with_topics)
    assert record.batch.metadata == Metadata(
        url="u" * 4_096, user_agent="a" * 4_096, viewport_width=0, viewport_height=2_147_483_647
    )


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "session_id": ({"session_id": 5}, "$.sessionId"),
    "batch_id": ({"batch_id": "a b"}, "$.batchId"),
    "window_id": ({"window_id": 5}, "$.windowId"),
    "user_id a number": ({"user_id": 5}, "$.userId"),
    "user_id bytes": ({"user_id": b"u"}, "$.userId"),
    "sent_at a fraction": ({"sent_at": NOW + 0.5}, "$.sentAt"),
    "sent_at a text": ({"sent_at": str(NOW)}, "$.sentAt"),
    "sent_at true": ({"sent_at": True}, "$.sentAt"),
    "sent_at negative": ({"sent_at": -1}, "$.sentAt"),
    "sequence a text": ({"sequence": "1"}, "$.sequence"),
    "sequence negative": ({"sequence": -1}, "$.sequence"),
    "final a text": ({"final": "yes"}, "$.final"),
    "imported a number": ({"imported": 1}, "$.imported"),
    "url a number": ({"metadata": Metadata(url=5)}, "$.metadata.url"),  # type: ignore[arg-type]
    "viewport a text": ({"metadata": Metadata(viewport_width="5")}, "$.metadata.viewport.width"),  # type: ignore[arg-type]
    "event a text": ({"events": ["x"]}, "$.events[0]"),
    "timestamp missing": ({"events": [click(NOW), {"type": "x"}]}, "$.events[1].timestamp"),
    "timestamp a fraction": ({"events": [click(NOW), click(1.5)]}, "$.events[1].timestamp"),  # type: ignore[arg-type]
    "timestamp negative": ({"events": [click(NOW), click(-1)]}, "$.events[1].timestamp"),
    "type missing": ({"events": [{"timestamp": NOW}]}, "$.events[0].type"),
    "type long": ({"events": [{"type": "x" * 65, "timestamp": NOW}]}, "$.events[0].type"),
    "data not JSON": ({"events": [{"type": "x", "timestamp": NOW, "data": object()}]}, "$.events[0]"),
    "data not JSON, half an emoji": (
        {"events": [{"type": "x", "timestamp": NOW, "data": ["\ud83d", object()]}]},
        "$.events[0]",
    ),
}


@pytest.mark.parametrize(("given", "path"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_a_batch_is_malformed_at_its_path_and_is_not_queued(
    silent: Settings, given: dict[str, Any], path: str
) -> None:
    producer = BatchProducer(silent, tenant="acme")
    with pytest.raises(MalformedError) as refusal:
        producer.send(**{"session_id": "s1", "batch_id": "b1", "events": [click(NOW)], **given})
    assert refusal.value.path == path
    producer.flush(0)


@pytest.mark.parametrize("tenant", ["", "a b", "a" * 129])
def test_a_tenant_is_an_id(silent: Settings, tenant: str) -> None:
    with pytest.raises(MalformedError):
        BatchProducer(silent, tenant=tenant)


@pytest.mark.parametrize("events", [[click(NOW)] * 10_001, [click(NOW, "x" * (8 << 20))]], ids=["many", "large"])
def test_a_batch_above_a_limit_is_too_large(silent: Settings, events: list[dict[str, Any]]) -> None:
    producer = BatchProducer(silent, tenant="acme")
    with pytest.raises(TooLargeError):
        producer.send(session_id="s1", batch_id="b1", events=events)
    producer.flush(0)


def test_a_record_above_the_clients_own_limit_is_too_large(silent: Settings) -> None:
    producer = BatchProducer(silent, tenant="acme")
    with pytest.raises(TooLargeError):
        producer._put(b"acme:s1", bytes(20 << 20), lambda *_: None, 0.1)


def test_a_full_queue_is_told_within_the_time_given(silent: Settings) -> None:
    producer = BatchProducer(silent, tenant="acme", queue_kbytes_max=1_000)
    queued = 0
    with pytest.raises(RetryableError, match="stayed full"):  # noqa: PT012
        for number in range(100):
            began = time.monotonic()
            producer.send(session_id="s1", batch_id=f"b{number}", events=[click(NOW, PAYLOAD)], block_s=0.3)
            queued += 1
    assert 0.3 <= time.monotonic() - began < 3
    assert 1 <= queued <= 10
    with pytest.raises(RetryableError, match=f"^{queued} batches"):
        producer.flush(0.2)


def test_leaving_the_block_tells_of_batches_without_a_report_and_keeps_the_blocks_own_error(silent: Settings) -> None:
    producer = BatchProducer(silent, tenant="acme")
    flush = producer.flush
    producer.flush = lambda timeout_s=0.2: flush(timeout_s)  # type: ignore[method-assign]
    with pytest.raises(RetryableError, match="1 batches"), producer:
        producer.send(session_id="s1", batch_id="b1", events=[])
    with pytest.raises(KeyError) as own, producer:
        raise KeyError
    assert any("1 batches" in note for note in own.value.__notes__)
