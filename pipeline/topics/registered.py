"""Schema ids from a Confluent-compatible registry. Slow to import: take it through `registry.schema_ids`."""

from __future__ import annotations

import json
from typing import Any

import fastavro
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from pipeline.errors import ConfigurationError, FatalError, RetryableError
from pipeline.topics import schemas
from pipeline.topics.catalogue import Topic

REQUEST_LIMIT_S = 10.0
RETRIES = 3
_NOT_FOUND = 404
_CONFLICT = 409
_LATER = frozenset({408, 429})


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
        except Exception as error:  # the client lets its HTTP library's errors through, and they are no OSErrors
            if isinstance(error, SchemaRegistryError) and error.http_status_code == _CONFLICT:
                raise FatalError(
                    f"the schema registry refuses {topic.schema}.avsc for {topic.subject}: it is not compatible with the "
                    "versions registered there. Run the release whose schemas they are, or give the topics another "
                    "REPLAY_TOPIC_PREFIX"
                ) from error
            raise _translated(error, topic.subject) from error

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
        except Exception as error:  # the client lets its HTTP library's errors through, and they are no OSErrors
            if isinstance(error, SchemaRegistryError) and error.http_status_code == _NOT_FOUND:
                return None
            raise _translated(error, f"schema id {schema_id}") from error
        if schema.schema_type != "AVRO" or schema.schema_str is None:
            return None  # a JSON or Protobuf schema's id: nothing of ours was written with it
        return fastavro.parse_schema(json.loads(schema.schema_str))


def _translated(error: Exception, what: str) -> RetryableError | FatalError:
    if not isinstance(error, SchemaRegistryError):
        return RetryableError(
            f"the schema registry cannot be reached for {what} ({type(error).__name__}): "
            "is it up, and is REPLAY_SCHEMA_REGISTRY_URL its address?"
        )
    status = error.http_status_code
    if 400 <= status < 500 and status not in _LATER:
        return FatalError(
            f"the schema registry answered {status} for {what}: look at REPLAY_SCHEMA_REGISTRY_URL, its path and its "
            "credentials"
        )
    return RetryableError(f"the schema registry answered {status} for {what}")


def client(url: str, *, retries: int = RETRIES) -> SchemaRegistryClient:
    """Raises ConfigurationError where the address is none."""
    try:
        return SchemaRegistryClient({"url": url, "timeout": REQUEST_LIMIT_S, "max.retries": retries})
    except ValueError:
        raise ConfigurationError("REPLAY_SCHEMA_REGISTRY_URL must be an address, http(s)://host:port/path") from None
