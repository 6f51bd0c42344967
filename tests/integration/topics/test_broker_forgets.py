"""A broker that shuts down may name no brokers at all in its last metadata. Our clients must hold on to the one they know:
librdkafka from 2.10 on drops it, and then at times never connects to anything again (its issue 5301)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from tests.integration.topics.forgetful import ForgetfulWire
from tests.support import eventually

METADATA_EVERY_MS = 200
ANSWERS = 5


@pytest.fixture
def wire(with_topics: Settings) -> Iterator[ForgetfulWire]:
    wire = ForgetfulWire(with_topics.kafka_port)
    yield wire
    wire.close()


def test_a_producer_and_a_consumer_outlive_metadata_without_brokers(with_topics: Settings, wire: ForgetfulWire) -> None:
    settings = dataclasses.replace(with_topics, kafka_port=wire.port)
    often = {"topic.metadata.refresh.interval.ms": METADATA_EVERY_MS}
    topic = catalogue(settings).batches.name
    producer = clients.producer(settings, client_id="outlives", **often)
    consumer = clients.consumer(settings, group=f"{topic}-outlives", client_id="outlives", **often)
    consumer.subscribe([topic])
    acked: list[bytes] = []
    seen: list[bytes] = []

    def send(value: bytes) -> None:
        producer.produce(topic, value, b"key", on_delivery=lambda error, _: None if error else acked.append(value))

    def arrived(value: bytes) -> bool:
        producer.poll(0)
        message = consumer.poll(0.05)
        if message is not None and message.error() is None:
            seen.append(message.value())
        return value in acked and value in seen

    def through(value: bytes) -> None:
        send(value)
        eventually(lambda: arrived(value), within_s=10, why=f"{value!r} goes through")

    through(b"before")
    wire.forgets = True
    eventually(lambda: (producer.poll(0), wire.forgot >= ANSWERS)[1], within_s=20, why="brokers are forgotten")
    through(b"while they are forgotten")
    wire.forgets = False
    through(b"after")
    consumer.close()
