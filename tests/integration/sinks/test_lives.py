"""A topic that was made anew is refused by both sinks until the next epoch: on a real broker, by the real processes."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from pipeline.settings import Settings
from pipeline.sinks.lives import TopicLives
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics import clients
from pipeline.topics.catalogue import Topic, catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids
from tests.integration.sinks.running import sink
from tests.support import eventually
from tests.unit.sinks import clean

NOW = time.time_ns() // 1_000_000
LIMIT_S = 60.0


def send(settings: Settings, offsets: range) -> None:
    topics = catalogue(settings)
    codec = Codecs(topics, schema_ids(settings)).clean
    producer = clients.producer(settings, client_id="test")
    for offset in offsets:
        batch = clean.clicks(offset, [NOW], epoch=settings.epoch, source_at=NOW)
        producer.produce(topics.clean.name, codec.encode(batch), b"acme:s1", 0)
    assert producer.flush(30) == 0


def make_anew(settings: Settings, topic: Topic) -> None:
    admin = clients.admin(settings)
    admin.delete_topics([topic.name])[topic.name].result(30)
    eventually(lambda: topic.name not in admin.list_topics(timeout=10).topics, within_s=30, why="the topic is gone")
    clients.apply(admin, catalogue(settings))


def stored(settings: Settings, name: str) -> list[int]:
    sql = {
        "warehouse": "SELECT source_offset FROM {db}.events WHERE epoch = {epoch:UInt32} ORDER BY 1",
        "objects": "SELECT source_offset FROM {db}.blocks WHERE epoch = {epoch:UInt32} ORDER BY 1",
    }[name]
    return [offset for (offset,) in ClickHouse(settings).rows(sql, epoch=settings.epoch)]


@pytest.fixture
def settings(with_both: Settings) -> Settings:
    return dataclasses.replace(with_both, topic_partitions=1, topic_prefix=f"one-{with_both.topic_prefix}",
                               objects_flush_age_ms=200, objects_flush_blocks=1, warehouse_flush_age_ms=200)  # fmt: skip


@pytest.mark.parametrize(("name", "role"), [("warehouse", "clean"), ("warehouse", "batches"), ("objects", "clean")])
def test_a_topic_made_anew_is_refused_at_the_next_start_until_the_next_epoch(
    settings: Settings, tmp_path: Path, name: str, role: str
) -> None:
    topics = catalogue(settings)
    clients.apply(clients.admin(settings), topics)
    send(settings, range(3))
    log = tmp_path / "sink.log"
    with sink(settings, name, log):
        eventually(lambda: stored(settings, name) == [0, 1, 2], within_s=LIMIT_S, why="three batches are stored")

    make_anew(settings, getattr(topics, role))
    send(settings, range(6))  # what counts from 0 again would be skipped up to 2 and stored from 3
    with sink(settings, name, log) as refusing:
        assert refusing.wait(LIMIT_S) == 1
    assert f"{getattr(topics, role).name} is not the topic that epoch 1 began with" in log.read_text()
    assert "REPLAY_EPOCH=2" in log.read_text()
    assert stored(settings, name) == [0, 1, 2]

    following = dataclasses.replace(settings, epoch=2)
    send(following, range(2))
    with sink(following, name, log):
        eventually(lambda: stored(following, name) == [0, 1], within_s=LIMIT_S, why="the next epoch goes on")
    assert stored(settings, name) == [0, 1, 2]


def test_a_raw_topic_made_anew_while_the_sink_runs_ends_it_at_the_first_repeat(
    settings: Settings, tmp_path: Path
) -> None:
    topics = catalogue(settings)
    clients.apply(clients.admin(settings), topics)
    send(settings, range(3))
    log = tmp_path / "sink.log"
    with sink(settings, "warehouse", log) as running:
        eventually(lambda: stored(settings, "warehouse") == [0, 1, 2], within_s=LIMIT_S, why="three batches are stored")
        make_anew(settings, topics.batches)
        send(settings, range(6))
        assert running.wait(LIMIT_S) == 1
    assert f"{topics.batches.name} is not the topic that epoch 1 began with" in log.read_text()
    assert stored(settings, "warehouse") == [0, 1, 2]


def test_the_same_topics_are_noted_once_for_both_sinks(settings: Settings) -> None:
    clients.apply(clients.admin(settings), catalogue(settings))
    for _ in range(2):
        lives = TopicLives(settings)
        lives.check()
        lives.check()
        lives.end()
    rows = ClickHouse(settings).rows("SELECT epoch, name, topic_id, cluster_id FROM {db}.topics")
    assert [(epoch, name) for epoch, name, _, _ in sorted(rows)] == [
        (1, catalogue(settings).batches.name),
        (1, catalogue(settings).clean.name),
    ]
    assert len({topic_id for _, _, topic_id, _ in rows}) == 2
    assert len({cluster_id for _, _, _, cluster_id in rows}) == 1
