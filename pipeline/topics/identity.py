"""Which topic it is that has a name: Kafka gives every topic an id at its birth, and every cluster one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from pipeline.errors import RetryableError

ASK_LIMIT_S = 10.0


@dataclass(frozen=True)
class TopicIdentity:
    """One life of one topic. Offsets mean something within it only."""

    name: str
    topic_id: str
    cluster_id: str


def identities(client: AdminClient, names: Iterable[str]) -> list[TopicIdentity]:
    """What the broker says now, in the order of `names`. Raises RetryableError: the broker is away, or a topic is."""
    asked = list(names)
    try:
        cluster = client.describe_cluster(request_timeout=ASK_LIMIT_S).result(2 * ASK_LIMIT_S)
        described = client.describe_topics(TopicCollection(asked), request_timeout=ASK_LIMIT_S)
        topics = {name: found.result(2 * ASK_LIMIT_S) for name, found in described.items()}
    except KafkaException as error:
        missing = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
        what = "a topic is missing: `replay topics apply` makes it" if missing else error.args[0].name()
        raise RetryableError(f"the broker did not say which topics it has ({what})") from error
    except TimeoutError as error:
        raise RetryableError("the broker did not say which topics it has (no answer)") from error
    return [TopicIdentity(name, str(topics[name].topic_id), cluster.cluster_id or "") for name in asked]
