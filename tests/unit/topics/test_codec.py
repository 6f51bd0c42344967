"""Confluent's wire format: header, Avro, and what is refused."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import fastavro
import msgspec
import pytest

from pipeline import settings
from pipeline.errors import PoisonError
from pipeline.model.batches import CleanBatch, Metadata, PartStart, RecorderBatch
from pipeline.topics import schemas
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds

HISTORY = Path(__file__).parents[2] / "data" / "schemas"

BATCH = RecorderBatch(
    tenant="acme",
    session_id="s1",
    window_id="w1",
    user_id="anonymous",
    batch_id="b1",
    sequence=None,
    source="portable",
    client_version="1.0",
    imported=False,
    final=True,
    sent_at=1_795_448_983_032,
    received_at=1_795_448_983_100,
    metadata=Metadata(
        user_agent="Mozilla/5.0", viewport_width=1280, viewport_height=800, url="http://shop.example.test/"
    ),
    first_event_at=1_795_448_983_000,
    last_event_at=1_795_448_983_001,
    event_count=1,
    payload=b'{"type":"click","timestamp":1795448983000,"data":{}}',
)


@pytest.fixture
def codecs() -> Codecs:
    return Codecs(catalogue(settings.load({})), PinnedIds("replay."))


def test_value_is_a_zero_byte_the_pinned_id_and_plain_avro(codecs: Codecs) -> None:
    value = codecs.batches.encode(BATCH)
    assert value[:5] == struct.pack(">bI", 0, 1)
    fields = fastavro.schemaless_reader(io.BytesIO(value[5:]), schemas.parsed("recorder_batch"), None)
    assert fields == {**msgspec.structs.asdict(BATCH), "metadata": msgspec.structs.asdict(BATCH.metadata)}


def test_record_comes_back_as_it_went_in(codecs: Codecs) -> None:
    assert codecs.batches.decode(codecs.batches.encode(BATCH)) == BATCH
    clean = CleanBatch(
        **msgspec.structs.asdict(BATCH),
        kind="batch",
        epoch=1,
        source_partition=2,
        source_offset=3,
        source_last_offset=3,
        source_at=4,
        retention="30d",
        part="1",
        next_parts=(PartStart(index=1, part="2"),),
        clock_correction_ms=0,
        received_events=1,
        throttled=0,
        repeated=0,
        erased=0,
        dead_lettered=0,
        redacted={"password.replace": 2},
        late=False,
    )
    assert codecs.clean.decode(codecs.clean.encode(clean)) == clean


def test_record_of_an_earlier_schema_is_read_by_its_id_with_defaults(codecs: Codecs) -> None:
    first = json.loads((HISTORY / "session_update" / "1.avsc").read_text())
    numbers = {field["name"]: 7 for field in first["fields"] if field["type"] in ("long", "int")}
    texts = {field["name"]: "x" for field in first["fields"] if field["type"] == "string"}
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(first), {**numbers, **texts, "close_reason": None, "urls": ["u"]}
    )
    update = codecs.sessions.decode(struct.pack(">bI", 0, 3) + out.getvalue())
    assert (update.clicks, update.urls, update.source_partition) == (7, ("u",), 7)
    assert (update.dead_clicks, update.clock_correction_ms) == (0, 0)
    assert codecs.sessions.decode(codecs.sessions.encode(update)) == update


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not_avro"),
        (b"", "not_avro"),
        (b"\x00\x00", "not_avro"),
        (b'{"json": true}', "not_avro"),
        (b"\x00\x00\x00\x00\x63rest", "unknown_schema"),
        (b"\x00\x00\x00\x00\x01\xff\xff", "not_avro"),
    ],
)
def test_what_is_not_a_batch_is_poison_with_its_reason(codecs: Codecs, value: bytes | None, reason: str) -> None:
    with pytest.raises(PoisonError) as caught:
        codecs.batches.decode(value)
    assert caught.value.reason == reason


def test_bytes_after_the_record_are_poison(codecs: Codecs) -> None:
    with pytest.raises(PoisonError, match="3 bytes are left"):
        codecs.batches.decode(codecs.batches.encode(BATCH) + b"xyz")


def test_a_cut_record_is_poison_at_every_length(codecs: Codecs) -> None:
    value = codecs.batches.encode(BATCH)
    for length in range(len(value)):
        with pytest.raises(PoisonError):
            codecs.batches.decode(value[:length])


def test_word_that_is_in_no_set_is_for_the_reader_to_judge(codecs: Codecs) -> None:
    odd = msgspec.structs.replace(BATCH, source="telepathy")
    assert codecs.batches.decode(codecs.batches.encode(odd)) == odd
