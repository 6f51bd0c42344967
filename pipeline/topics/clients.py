"""Kafka clients with the one configuration each duty needs, and `apply`, which makes the broker agree with the catalogue.

Every producer is idempotent with acks=all and partitions by murmur2, as the Java client does, so that a key means the
same partition whoever produces. librdkafka checks a record's size before compressing: the limits here are uncompressed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from pipeline.errors import ConfigurationError, RetryableError
from pipeline.settings import Settings
from pipeline.topics.catalogue import Catalogue, Topic

ENVELOPE_BYTES_MAX = 64 << 10
"""Room for keys, headers and Avro framing around a payload at the limit."""

ADMIN_TIMEOUT_S = 20.0

LIBRARY_LOG_LEVEL = 2
"""Critical only: librdkafka repeats every refused connection on stderr; what matters reaches us as errors, and is told once."""


def producer(settings: Settings, *, client_id: str, **overrides: Any) -> Producer:
    """An idempotent producer; `queue.buffering` is bounded, so `produce` raises BufferError when full: poll and try again."""
    return Producer(
        {
            "bootstrap.servers": settings.kafka,
            "client.id": client_id,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "compression.type": "zstd",
            "linger.ms": 5,
            "message.max.bytes": settings.clean_bytes_max + ENVELOPE_BYTES_MAX,
            "queue.buffering.max.kbytes": 256 << 10,
            "delivery.timeout.ms": 20_000,
            "log_level": LIBRARY_LOG_LEVEL,
            **overrides,
        }
    )


def consumer(settings: Settings, *, group: str, client_id: str, **overrides: Any) -> Consumer:
    """A consumer that commits only when told to and starts at the log's beginning where nothing was committed."""
    return Consumer(
        {
            "bootstrap.servers": settings.kafka,
            "group.id": group,
            "client.id": client_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 2_000,
            "fetch.message.max.bytes": settings.clean_bytes_max + ENVELOPE_BYTES_MAX,
            "queued.max.messages.kbytes": 64 << 10,
            "fetch.wait.max.ms": 100,
            "log_level": LIBRARY_LOG_LEVEL,
            **overrides,
        }
    )


def admin(settings: Settings) -> AdminClient:
    return AdminClient(
        {"bootstrap.servers": settings.kafka, "client.id": "replay-admin", "log_level": LIBRARY_LOG_LEVEL}
    )


@dataclass(frozen=True)
class Applied:
    """What `apply` found for one topic: created, altered (settings put right) or unchanged."""

    topic: str
    action: str


def apply(client: AdminClient, topics: Catalogue) -> list[Applied]:
    """Creates missing topics and puts drifted settings right; idempotent.

    Raises ConfigurationError where a topic has another partition count than the catalogue (it never changes within a
    topic's life), RetryableError where the broker does not answer.
    """
    try:
        existing = client.list_topics(timeout=ADMIN_TIMEOUT_S).topics
    except KafkaException as error:
        raise RetryableError(f"the broker does not answer: {error.args[0].name()}") from error
    for topic in topics:  # before anything is changed
        found = existing.get(topic.name)
        if found is not None and found.error is None and len(found.partitions) != topic.partitions:
            raise ConfigurationError(
                f"topic {topic.name} has {len(found.partitions)} partitions, the catalogue says {topic.partitions}: "
                "set REPLAY_TOPIC_PARTITIONS to what it was born with; the count never changes within a topic's life"
            )
    done = []
    for topic in topics:
        found = existing.get(topic.name)
        missing = found is None or found.error is not None
        done.append(Applied(topic.name, _create(client, topic) if missing else _alter(client, topic)))
    return done


def _create(client: AdminClient, topic: Topic) -> str:
    new = NewTopic(topic.name, topic.partitions, topic.replication, config=topic.config)
    try:
        client.create_topics([new], request_timeout=ADMIN_TIMEOUT_S)[topic.name].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return "unchanged"
        raise RetryableError(f"topic {topic.name} could not be created: {error.args[0].str()}") from error
    return "created"


def _alter(client: AdminClient, topic: Topic) -> str:
    resource = ConfigResource(ResourceType.TOPIC, topic.name)
    try:
        now = client.describe_configs([resource], request_timeout=ADMIN_TIMEOUT_S)[resource].result()
        drifted = {name: value for name, value in topic.config.items() if now[name].value != value}
        if not drifted:
            return "unchanged"
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in drifted.items()
        ]
        change = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=entries)
        client.incremental_alter_configs([change], request_timeout=ADMIN_TIMEOUT_S)[change].result()
    except KafkaException as error:
        raise RetryableError(f"topic {topic.name} could not be altered: {error.args[0].str()}") from error
    return "altered"
