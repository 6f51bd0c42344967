"""replay.sessions → sessions and session_users, by the real reader on a real broker and engine."""

from __future__ import annotations

import time

import msgspec
from confluent_kafka import TopicPartition

from pipeline.model.batches import SessionUpdate
from pipeline.settings import Settings
from pipeline.sinks.sessions import SessionReader
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds
from tests.support import eventually

NOW = time.time_ns() // 1_000_000
UPDATE = SessionUpdate(
    tenant="acme", session_id="s1", part="1", revision=2, status="open", close_reason=None, source="portable",
    user_id="anonymous", started_at=NOW, ended_at=NOW + 5, duration_ms=5, active_ms=5, events=1, clicks=1, rage_clicks=0,
    inputs=0, scrolls=0, mouse_moves=0, navigations=0, console_errors=0, errors=0, throttled=0, redacted=0, late=0,
    first_url="http://a.test/", last_url="http://a.test/", urls=("http://a.test/",), user_agent="ua", viewport_width=1,
    viewport_height=2, retention="30d", epoch=1, source_partition=0,
)  # fmt: skip


def later(revision: int, **changed: object) -> SessionUpdate:
    return msgspec.structs.replace(UPDATE, revision=revision, events=revision, **changed)


def send(settings: Settings, *updates: SessionUpdate) -> None:
    topics = catalogue(settings)
    codec = Codecs(topics, PinnedIds(settings.topic_prefix)).sessions
    producer = clients.producer(settings, client_id="test")
    for each in updates:
        producer.produce(topics.sessions.name, codec.encode(each), b"acme:s1", 0, timestamp=NOW)
    assert producer.flush(30) == 0


def committed(settings: Settings) -> int:
    reader = clients.consumer(settings, group=f"{settings.sink_group}-sessions", client_id="test")
    try:
        return reader.committed([TopicPartition(catalogue(settings).sessions.name, 0)], timeout=10)[0].offset
    finally:
        reader.close()


def read_to(settings: Settings, offset: int) -> None:
    """One reader's life: until everything before `offset` is stored and committed."""
    reader = SessionReader(settings)
    reader.start()
    try:
        eventually(lambda: committed(settings) == offset, within_s=30, why=f"offset {offset} is committed")
    finally:
        reader.stop()


def revisions(settings: Settings) -> list[tuple[int, int]]:
    return ClickHouse(settings).rows("SELECT revision, events FROM {db}.sessions FINAL")


def test_the_last_revision_stands_in_whatever_order_they_come(with_both: Settings) -> None:
    send(with_both, later(4), later(8), later(6))
    read_to(with_both, 3)
    assert revisions(with_both) == [(8, 8)]
    send(with_both, later(2))
    read_to(with_both, 4)
    assert revisions(with_both) == [(8, 8)]


def test_what_is_committed_is_not_read_again(with_both: Settings) -> None:
    send(with_both, later(2))
    read_to(with_both, 1)
    ClickHouse(with_both).command("TRUNCATE TABLE {db}.sessions")
    send(with_both, later(4, session_id="s2"))
    read_to(with_both, 2)
    assert ClickHouse(with_both).rows("SELECT session_id FROM {db}.sessions FINAL") == [("s2",)]


def test_every_user_that_a_session_had_stays_findable(with_both: Settings) -> None:
    send(with_both, later(2), later(4, user_id="ann"), later(6, user_id="bob"))
    read_to(with_both, 3)
    send(with_both, later(8, user_id="ann"))
    read_to(with_both, 4)
    users = ClickHouse(with_both).rows("SELECT user_id, revision FROM {db}.session_users FINAL ORDER BY user_id")
    assert users == [("ann", 8), ("bob", 6)]


def test_an_erased_sessions_updates_stay_out_up_to_its_erasure(with_both: Settings) -> None:
    ClickHouse(with_both).command(
        "INSERT INTO {db}.erasures (tenant, session_id, epoch, source_partition, source_offset) VALUES ('acme', 's1', 1, 0, 5)"
    )
    send(with_both, later(8, user_id="ann"))
    read_to(with_both, 1)
    assert revisions(with_both) == []
    assert ClickHouse(with_both).rows("SELECT user_id FROM {db}.session_users") == []
    send(with_both, later(10))
    read_to(with_both, 2)
    assert revisions(with_both) == [(10, 10)]
