"""What is promised about the topics."""

from __future__ import annotations

from pipeline import settings
from pipeline.topics.catalogue import catalogue

TOPICS = catalogue(settings.load({"REPLAY_TOPIC_PARTITIONS": "6"}))


def test_names_are_the_designs() -> None:
    assert [topic.name for topic in TOPICS] == [
        "replay.batches",
        "replay.clean",
        "replay.sessions",
        "replay.state",
        "replay.dead_letters",
        "replay.erasures",
    ]


def test_a_batch_can_keep_its_partition_number() -> None:
    assert TOPICS.batches.partitions == TOPICS.clean.partitions == TOPICS.state.partitions == 6


def test_every_topic_closes_segments_well_before_they_must_go() -> None:
    for topic in TOPICS:
        assert int(topic.config["segment.ms"]) * 4 <= int(topic.config["retention.ms"]), topic.name


def test_stream_time_is_the_brokers() -> None:
    assert TOPICS.batches.config["message.timestamp.type"] == "LogAppendTime"


def test_clean_takes_twice_what_raw_takes() -> None:
    assert int(TOPICS.clean.config["max.message.bytes"]) == 2 * int(TOPICS.batches.config["max.message.bytes"])
