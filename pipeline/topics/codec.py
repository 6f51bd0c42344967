"""Records ↔ bytes in Confluent's wire format: a zero byte, the schema's id (4 bytes, big endian), Avro binary.

The id comes from a `SchemaIds`: the pinned table, or a registry (`pipeline.topics.registry`).
"""

from __future__ import annotations

import io
import struct
from typing import Any, Protocol

import fastavro
import msgspec

from pipeline.errors import PoisonError
from pipeline.model.batches import (
    CleanBatch,
    DeadLetter,
    Erasure,
    ErasureRequest,
    Metadata,
    PartStart,
    RecorderBatch,
    SessionUpdate,
)
from pipeline.topics import schemas
from pipeline.topics.catalogue import Catalogue, Topic

_HEADER = struct.Struct(">bI")


class SchemaIds(Protocol):
    """Where schema ids come from."""

    def id_of(self, topic: Topic) -> int:
        """The id to write this topic's values with. Registers the schema where that is how ids are made."""

    def writer_schema(self, topic: Topic, schema_id: int) -> Any | None:
        """The parsed schema that `schema_id` was written with; None where it is not known for this topic."""


class PinnedIds:
    """The ids of `schemas/ids.json`: no registry, every process of one version agrees. A schema that changes gets a new id,
    and the one it was stays in `schemas/earlier/` under its old one."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def id_of(self, topic: Topic) -> int:
        return schemas.pinned_ids()[topic.subject.removeprefix(self._prefix)]

    def writer_schema(self, topic: Topic, schema_id: int) -> Any | None:
        if not topic.schema:
            return None
        if schema_id == self.id_of(topic):
            return schemas.parsed(topic.schema)
        return schemas.earlier(topic.schema, schema_id)


class RecordCodec:
    """Encodes and decodes the values of one topic. Holds no state but caches."""

    def __init__(self, topic: Topic, ids: SchemaIds, record: type[msgspec.Struct]) -> None:
        assert topic.schema is not None
        self._topic = topic
        self._ids = ids
        self._record = record
        self._schema = schemas.parsed(topic.schema)
        self._own_id: int | None = None

    def encode(self, record: msgspec.Struct) -> bytes:
        """One record → one message value. The first call asks for the schema's id and may raise RetryableError."""
        if self._own_id is None:
            self._own_id = self._ids.id_of(self._topic)
        out = io.BytesIO()
        out.write(_HEADER.pack(0, self._own_id))
        fastavro.schemaless_writer(out, self._schema, _fields(record))
        return out.getvalue()

    def decode(self, value: bytes | None) -> Any:
        """One message value → one record. Raises PoisonError: not_avro, unknown_schema or bad_envelope."""
        if value is None or len(value) < _HEADER.size or value[0] != 0:
            raise PoisonError("not_avro", "the value does not begin with Confluent's header")
        schema_id = _HEADER.unpack_from(value)[1]
        writer = self._schema if schema_id == self._own_id else self._ids.writer_schema(self._topic, schema_id)
        if writer is None:
            raise PoisonError("unknown_schema", f"schema id {schema_id} is not one of {self._topic.subject}")
        stream = io.BytesIO(value)
        stream.seek(_HEADER.size)
        try:
            reader = None if writer is self._schema else self._schema
            fields: Any = fastavro.schemaless_reader(stream, writer, reader)  # type: ignore[arg-type]
        except Exception as error:  # fastavro raises what its C code happens to meet
            raise PoisonError("not_avro", f"{type(error).__name__} while reading schema id {schema_id}") from None
        if stream.tell() != len(value):
            raise PoisonError("not_avro", f"{len(value) - stream.tell()} bytes are left after the record")
        try:
            return msgspec.convert(fields, self._record)
        except msgspec.ValidationError:  # a word that is in none of our sets: what becomes of it is not decided here
            return _made(self._record, fields)


class RawCodec:
    """replay.batches carries two records: what clients sent, and requests to erase; the schema's id tells which."""

    def __init__(self, topics: Catalogue, ids: SchemaIds) -> None:
        self._ids = ids
        self._topic = topics.erasure_requests
        self._batches = RecordCodec(topics.batches, ids, RecorderBatch)
        self._requests = RecordCodec(topics.erasure_requests, ids, ErasureRequest)
        self._name: str = schemas.parsed("erasure_request")["name"]

    def encode(self, record: RecorderBatch | ErasureRequest) -> bytes:
        """As `RecordCodec.encode`."""
        return (self._requests if isinstance(record, ErasureRequest) else self._batches).encode(record)

    def decode(self, value: bytes | None) -> RecorderBatch | ErasureRequest:
        """As `RecordCodec.decode`."""
        codec = self._requests if self._is_request(value) else self._batches
        found: RecorderBatch | ErasureRequest = codec.decode(value)
        return found

    def _is_request(self, value: bytes | None) -> bool:
        if value is None or len(value) < _HEADER.size or value[0] != 0:
            return False
        writer = self._ids.writer_schema(self._topic, _HEADER.unpack_from(value)[1])
        return writer is not None and writer["name"] == self._name


class Codecs:
    """The codecs of a catalogue, by role."""

    def __init__(self, topics: Catalogue, ids: SchemaIds) -> None:
        self.batches = RawCodec(topics, ids)
        self.clean = RecordCodec(topics.clean, ids, CleanBatch)
        self.sessions = RecordCodec(topics.sessions, ids, SessionUpdate)
        self.dead_letters = RecordCodec(topics.dead_letters, ids, DeadLetter)
        self.erasures = RecordCodec(topics.erasures, ids, Erasure)


def _made(record: type[msgspec.Struct], fields: dict[str, Any]) -> Any:
    """What `msgspec.convert` gives, four times as slowly and without a look at the words."""
    if "metadata" in fields:
        fields["metadata"] = Metadata(**fields["metadata"])
    if "next_parts" in fields:
        fields["next_parts"] = tuple(PartStart(**start) for start in fields["next_parts"])
    if "urls" in fields:
        fields["urls"] = tuple(fields["urls"])
    return record(**fields)


def _fields(record: msgspec.Struct) -> dict[str, Any]:
    fields = msgspec.structs.asdict(record)
    if "metadata" in fields:
        fields["metadata"] = msgspec.structs.asdict(fields["metadata"])
    if fields.get("next_parts"):
        fields["next_parts"] = [msgspec.structs.asdict(start) for start in fields["next_parts"]]
    return fields
