"""Schema ids from a real registry: registered, on the wire, read by others, refused where incompatible."""

from __future__ import annotations

import dataclasses
import io
import json
import secrets
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import fastavro
import httpx
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from pipeline import settings as settings_table
from pipeline.errors import ConfigurationError, FatalError, PoisonError, RetryableError
from pipeline.local.ports import free_ports
from pipeline.model.batches import Metadata, RecorderBatch
from pipeline.settings import Settings
from pipeline.topics import registered, schemas
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registered import RegistryIds
from pipeline.topics.registry import schema_ids

BATCH = RecorderBatch(
    tenant="default",
    session_id="s1",
    window_id="w1",
    user_id="",
    batch_id="b1",
    sequence=3,
    source="portable",
    client_version="1.0",
    imported=False,
    final=False,
    sent_at=1_800_000_000_000,
    received_at=1_800_000_000_123,
    metadata=Metadata(user_agent="ua", viewport_width=800, viewport_height=600, url="http://shop.example.test/"),
    first_event_at=1_800_000_000_000,
    last_event_at=1_800_000_000_000,
    event_count=1,
    payload=b'{"type":"click","timestamp":1800000000000,"data":{}}',
)


@pytest.fixture
def settings(registry: str) -> Settings:
    """Subjects of its own in the registry."""
    return dataclasses.replace(
        settings_table.load({}), schema_registry_url=registry, topic_prefix=f"t{secrets.token_hex(4)}."
    )


def codecs(settings: Settings) -> Codecs:
    return Codecs(catalogue(settings), schema_ids(settings))


def changed(settings: Settings, **change: Any) -> dict[str, Any]:
    """The schema of batches with one more field, and whatever else is given."""
    schema: dict[str, Any] = json.loads(schemas.text("recorder_batch"))
    schema["fields"] = [*schema["fields"], change]
    return schema


def register(settings: Settings, schema: dict[str, Any]) -> int:
    subject = catalogue(settings).batches.subject
    answer = httpx.post(
        f"{settings.schema_registry_url}/subjects/{subject}/versions", json={"schema": json.dumps(schema)}
    )
    answer.raise_for_status()
    return int(answer.json()["id"])


def test_the_schema_is_registered_under_the_topics_subject_and_its_id_is_on_the_wire(settings: Settings) -> None:
    value = codecs(settings).batches.encode(BATCH)
    subject = catalogue(settings).batches.subject
    latest = httpx.get(f"{settings.schema_registry_url}/subjects/{subject}/versions/latest").json()
    assert value[:5] == b"\0" + latest["id"].to_bytes(4, "big")
    assert json.loads(latest["schema"])["name"] == "RecorderBatch"


def test_every_process_gets_the_same_id(settings: Settings) -> None:
    assert codecs(settings).batches.encode(BATCH) == codecs(settings).batches.encode(BATCH)


def test_another_process_reads_what_was_written(settings: Settings) -> None:
    assert codecs(settings).batches.decode(codecs(settings).batches.encode(BATCH)) == BATCH


def test_a_plain_deserializer_reads_our_records(settings: Settings) -> None:
    value = codecs(settings).batches.encode(BATCH)
    plain = AvroDeserializer(SchemaRegistryClient({"url": settings.schema_registry_url}))
    found = plain(value, SerializationContext(catalogue(settings).batches.name, MessageField.VALUE))
    assert (found["session_id"], found["metadata"]["url"], found["payload"]) == (
        "s1",
        "http://shop.example.test/",
        BATCH.payload,
    )


def test_a_record_is_read_with_the_schema_it_was_written_with(settings: Settings) -> None:
    codecs(settings).batches.encode(BATCH)
    later = changed(settings, name="later", type="string", default="")
    own = json.loads(schemas.text("recorder_batch"))
    value = codecs(settings).batches.encode(BATCH)[5:]
    fields = fastavro.schemaless_reader(io.BytesIO(value), fastavro.parse_schema(own), None)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(later), {**fields, "later": "a version on"})
    written = b"\0" + register(settings, later).to_bytes(4, "big") + out.getvalue()
    assert codecs(settings).batches.decode(written) == BATCH


def test_an_unknown_id_is_poison_until_it_is_registered(settings: Settings) -> None:
    codec = codecs(settings).batches
    known = codec.encode(BATCH)
    unknown = b"\0" + (2_000_000_000).to_bytes(4, "big") + known[5:]
    with pytest.raises(PoisonError) as told:
        codec.decode(unknown)
    assert told.value.reason == "unknown_schema"
    assert codec.decode(known) == BATCH


def test_a_schema_of_another_subject_is_not_taken_for_ours(settings: Settings) -> None:
    both = codecs(settings)
    both.batches.encode(BATCH)
    httpx.post(
        f"{settings.schema_registry_url}/subjects/{settings.topic_prefix}foreign-value/versions",
        json={"schema": json.dumps({"type": "record", "name": "Foreign", "fields": [{"name": "a", "type": "string"}]})},
    ).raise_for_status()
    foreign = httpx.get(
        f"{settings.schema_registry_url}/subjects/{settings.topic_prefix}foreign-value/versions/latest"
    ).json()["id"]
    with pytest.raises(PoisonError):
        both.batches.decode(b"\0" + foreign.to_bytes(4, "big") + b"\x02x")


def test_the_id_of_a_json_schema_is_poison(settings: Settings) -> None:
    answer = httpx.post(
        f"{settings.schema_registry_url}/subjects/{settings.topic_prefix}json-value/versions",
        json={
            "schemaType": "JSON",
            "schema": json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}),
        },
    )
    schema_id = int(answer.raise_for_status().json()["id"])
    with pytest.raises(PoisonError) as told:
        codecs(settings).batches.decode(b"\0" + schema_id.to_bytes(4, "big") + b"{}")
    assert told.value.reason == "unknown_schema"


def test_an_incompatible_schema_is_refused_and_says_what_to_do(settings: Settings) -> None:
    subject = catalogue(settings).batches.subject
    other = {
        "type": "record",
        "name": "RecorderBatch",
        "namespace": "replay",
        "fields": [{"name": "zz", "type": "int"}],
    }
    register(settings, other)
    httpx.put(
        f"{settings.schema_registry_url}/config/{subject}", json={"compatibility": "FULL_TRANSITIVE"}
    ).raise_for_status()
    with pytest.raises(FatalError, match=rf"refuses recorder_batch\.avsc for {subject}: .* REPLAY_TOPIC_PREFIX"):
        codecs(settings).batches.encode(BATCH)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://127.0.0.1:{port}/apis/ccompat/v7"])
def test_a_registry_that_is_away_can_be_tried_again(settings: Settings, url: str) -> None:
    away = dataclasses.replace(settings, schema_registry_url=url.format(port=free_ports(1)[0]))
    with pytest.raises(RetryableError, match="REPLAY_SCHEMA_REGISTRY_URL"):
        codecs(away).batches.encode(BATCH)
    with pytest.raises(RetryableError, match="REPLAY_SCHEMA_REGISTRY_URL"):
        codecs(away).batches.decode(b"\0" + (7).to_bytes(4, "big") + b"x")


@pytest.mark.parametrize("url", ["registry:8081", "not an address", "ftp://registry"])
def test_an_address_that_is_none_is_refused_by_its_settings_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REPLAY_SCHEMA_REGISTRY_URL"):
        schema_ids(dataclasses.replace(settings_table.load({}), schema_registry_url=url))


@pytest.fixture
def failing() -> Iterator[tuple[str, list[int]]]:
    """A registry that answers every request with the status in the list."""
    status = [503]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            body = b'{"error_code": 50001, "message": "no"}'
            self.send_response(status[0])
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", status
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(503, RetryableError), (500, RetryableError), (429, RetryableError), (401, FatalError), (403, FatalError)],
)
def test_what_waiting_cannot_mend_is_fatal(failing: tuple[str, list[int]], status: int, kind: type[Exception]) -> None:
    url, answer = failing
    answer[0] = status
    client = registered.client(url, retries=0)
    topic = catalogue(settings_table.load({})).batches
    with pytest.raises(kind):
        RegistryIds(client).id_of(topic)
    with pytest.raises(kind):
        RegistryIds(client).writer_schema(topic, 7)
