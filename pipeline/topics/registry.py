"""Schema ids from a Confluent-compatible registry, where REPLAY_SCHEMA_REGISTRY_URL names one."""

from __future__ import annotations

import json
from typing import Any

import fastavro
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from pipeline.errors import FatalError, RetryableError
from pipeline.settings import Settings
from pipeline.topics import schemas
from pipeline.topics.catalogue import Topic
from pipeline.topics.codec import PinnedIds, SchemaIds

_NOT_FOUND = 404
_CONFLICT = 409


class RegistryIds:
    """Registers a topic's schema under `<topic>-value` on first use and looks up writers' schemas by id."""

    def __init__(self, client: SchemaRegistryClient) -> None:
        self._client = client
        self._writers: dict[tuple[str, int], Any | None] = {}

    def id_of(self, topic: Topic) -> int:
        """Raises FatalError where the registry refuses the schema as incompatible, RetryableError where it is away."""
        assert topic.schema is not None
        try:
            return int(self._client.register_schema(topic.subject, Schema(schemas.text(topic.schema), "AVRO")))
        except SchemaRegistryError as error:
            if error.http_status_code == _CONFLICT:
                raise FatalError(
                    f"the schema registry refuses {topic.schema}.avsc for {topic.subject}: incompatible"
                ) from error
            raise RetryableError(
                f"the schema registry answered {error.http_status_code} for {topic.subject}"
            ) from error
        except OSError as error:
            raise RetryableError(f"the schema registry cannot be reached for {topic.subject}") from error

    def writer_schema(self, topic: Topic, schema_id: int) -> Any | None:
        known = self._writers.get((topic.subject, schema_id))
        if known is None:
            known = self._look_up(schema_id)
            if known is not None:  # an unknown id may be registered a moment later: not cached
                self._writers[topic.subject, schema_id] = known
        return known

    def _look_up(self, schema_id: int) -> Any | None:
        try:
            schema = self._client.get_schema(schema_id)
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return None
            raise RetryableError(f"the schema registry answered {error.http_status_code} for id {schema_id}") from error
        except OSError as error:
            raise RetryableError(f"the schema registry cannot be reached for id {schema_id}") from error
        assert schema.schema_str is not None
        return fastavro.parse_schema(json.loads(schema.schema_str))


def schema_ids(settings: Settings) -> SchemaIds:
    """The registry where one is set, else the pinned table."""
    if settings.schema_registry_url:
        return RegistryIds(SchemaRegistryClient({"url": settings.schema_registry_url}))
    return PinnedIds(settings.topic_prefix)
