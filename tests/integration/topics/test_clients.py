"""`apply` makes a real broker agree with the catalogue, and a key means the same partition whoever produces."""

from __future__ import annotations

import dataclasses

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType

from pipeline.errors import ConfigurationError, RetryableError
from pipeline.local.ports import free_ports
from pipeline.settings import Settings
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from tests.integration.murmur2 import murmur2
from tests.support import eventually

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def actions(settings: Settings) -> dict[str, str]:
    done = clients.apply(clients.admin(settings), catalogue(settings))
    return {each.topic.removeprefix(settings.topic_prefix): each.action for each in done}


def partitions(settings: Settings) -> dict[str, int]:
    """Partition counts of the topics there are, by name without prefix. The broker shows a change a moment after it."""
    topics = clients.admin(settings).list_topics(timeout=10).topics
    prefix = settings.topic_prefix
    return {
        name.removeprefix(prefix): len(found.partitions) for name, found in topics.items() if name.startswith(prefix)
    }


def wait_for(settings: Settings, expected: dict[str, int | None]) -> None:
    eventually(
        lambda: all(partitions(settings).get(stem) == count for stem, count in expected.items()),
        within_s=10,
        why=f"the broker shows {expected}",
    )


def config(settings: Settings, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, settings.topic_prefix + topic)
    admin = clients.admin(settings)
    found = admin.describe_configs([resource])[resource].result()
    return {name: entry.value for name, entry in found.items()}


def wait_for_config(settings: Settings, topic: str, expected: dict[str, str]) -> None:
    """The controller answers first, the broker follows a moment later."""
    eventually(
        lambda: expected.items() <= config(settings, topic).items(), within_s=10, why=f"the broker shows {expected}"
    )


def test_a_missing_topic_is_created_and_the_others_are_left_alone(with_topics: Settings) -> None:
    admin = clients.admin(with_topics)
    name = catalogue(with_topics).sessions.name
    admin.delete_topics([name])[name].result()
    wait_for(with_topics, {"sessions": None})
    found = actions(with_topics)
    assert found == {**dict.fromkeys(found, "unchanged"), "sessions": "created"}
    wait_for(with_topics, {"sessions": 4})
    assert set(actions(with_topics).values()) == {"unchanged"}


def test_the_broker_holds_what_the_design_says(with_topics: Settings) -> None:
    wait_for(with_topics, {"batches": 4, "clean": 4, "sessions": 4, "state": 4, "dead_letters": 1})
    batches, state, clean = (config(with_topics, stem) for stem in ("batches", "state", "clean"))
    assert batches["message.timestamp.type"] == "LogAppendTime"
    assert (int(batches["retention.ms"]), int(batches["segment.ms"])) == (DAY_MS, HOUR_MS)
    assert set(state["cleanup.policy"].split(",")) == {"compact", "delete"}
    assert int(clean["max.message.bytes"]) == 2 * int(batches["max.message.bytes"])
    assert all(int(each["segment.ms"]) <= int(each["retention.ms"]) for each in (batches, state, clean))


def test_a_drifted_setting_is_put_right_and_foreign_ones_stay(with_topics: Settings) -> None:
    name = catalogue(with_topics).batches.name
    drift = [
        ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("segment.ms", None, incremental_operation=AlterConfigOpType.DELETE),
        ConfigEntry("flush.ms", "12345", incremental_operation=AlterConfigOpType.SET),
    ]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=drift)
    admin = clients.admin(with_topics)
    admin.incremental_alter_configs([resource])[resource].result()
    wait_for_config(with_topics, "batches", {"retention.ms": "1000", "flush.ms": "12345"})
    found = actions(with_topics)
    assert found == {**dict.fromkeys(found, "unchanged"), "batches": "altered"}
    put_right = {"retention.ms": str(DAY_MS), "segment.ms": str(HOUR_MS), "flush.ms": "12345"}
    wait_for_config(with_topics, "batches", put_right)
    assert set(actions(with_topics).values()) == {"unchanged"}


def test_another_partition_count_is_refused_and_nothing_is_changed(with_topics: Settings) -> None:
    name = catalogue(with_topics).clean.name
    admin = clients.admin(with_topics)
    admin.create_partitions([NewPartitions(name, 9)])[name].result()
    wait_for(with_topics, {"clean": 9})
    with pytest.raises(
        ConfigurationError, match=rf"topic {name} has 9 partitions, .* says 4: set REPLAY_TOPIC_PARTITIONS"
    ):
        actions(with_topics)
    assert partitions(with_topics)["clean"] == 9


def test_a_wrong_count_is_found_before_any_topic_is_made(broker: Settings, home: Settings) -> None:
    settings = dataclasses.replace(home, kafka_port=broker.kafka_port, topic_prefix=f"t{home.home.name}.")
    admin = clients.admin(settings)
    last = catalogue(settings).dead_letters.name
    admin.create_topics([NewTopic(last, 3, 1)])[last].result()
    wait_for(settings, {"dead_letters": 3})
    with pytest.raises(ConfigurationError, match="has 3 partitions"):
        actions(settings)
    assert partitions(settings) == {"dead_letters": 3}


def test_a_broker_that_is_away_can_be_tried_again(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "ADMIN_TIMEOUT_S", 0.5)
    away = dataclasses.replace(home, kafka_port=free_ports(1)[0])
    with pytest.raises(RetryableError, match="broker"):
        actions(away)


@pytest.mark.parametrize(
    ("key", "expected"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_the_model_has_the_values_of_kafkas_own_tests(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


def test_a_key_goes_where_the_java_client_puts_it(with_topics: Settings) -> None:
    keys = [f"default:session-{n}".encode() for n in range(60)] + [b"t:\xc3\xa9", b"a:" + b"x" * 128]
    found: dict[bytes, int] = {}

    def told(error: object, message: object) -> None:
        assert error is None
        found[message.key()] = message.partition()  # type: ignore[attr-defined]

    producer = clients.producer(with_topics, client_id="test")
    for key in keys:
        producer.produce(catalogue(with_topics).batches.name, b"x", key, on_delivery=told)
    assert producer.flush(30) == 0
    assert found == {key: (murmur2(key) & 0x7FFFFFFF) % with_topics.topic_partitions for key in keys}
