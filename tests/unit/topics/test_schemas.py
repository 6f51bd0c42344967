"""The schemas: documented, in step with the records, and compatible with every version that ever was."""

from __future__ import annotations

import json
from pathlib import Path

import avro.schema
import msgspec
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from pipeline.model.batches import CleanBatch, DeadLetter, Erasure, ErasureRequest, RecorderBatch, SessionUpdate
from pipeline.topics import schemas

RECORDS = {
    "recorder_batch": RecorderBatch,
    "clean_batch": CleanBatch,
    "session_update": SessionUpdate,
    "dead_letter": DeadLetter,
    "erasure_request": ErasureRequest,
    "erasure": Erasure,
}
HISTORY = Path(__file__).parents[2] / "data" / "schemas"
EVERY = pytest.mark.parametrize("stem", sorted(RECORDS))


def fully_compatible(one: str, other: str) -> bool:
    """Either reads what the other wrote: what a registry calls FULL."""
    left, right = avro.schema.parse(one), avro.schema.parse(other)
    return all(
        ReaderWriterCompatibilityChecker().get_compatibility(reader, writer).compatibility
        is SchemaCompatibilityType.compatible
        for reader, writer in ((left, right), (right, left))
    )


def records_in(schema: object) -> list[dict]:
    if isinstance(schema, list):
        return [found for each in schema for found in records_in(each)]
    if not isinstance(schema, dict):
        return []
    inner = [found for each in schema.get("fields", ()) for found in records_in(each["type"])]
    inner += records_in(schema.get("items")) + records_in(schema.get("values"))
    inner += records_in(schema["type"]) if isinstance(schema.get("type"), dict | list) else []
    return [schema, *inner] if schema.get("type") == "record" else inner


@EVERY
def test_every_field_has_a_doc(stem: str) -> None:
    for record in records_in(json.loads(schemas.text(stem))):
        assert record["doc"]
        for field in record["fields"]:
            assert field.get("doc"), f"{record['name']}.{field['name']}"


@EVERY
def test_schema_and_record_have_the_same_fields_in_the_same_order(stem: str) -> None:
    in_schema = [field["name"] for field in json.loads(schemas.text(stem))["fields"]]
    assert in_schema == [field.name for field in msgspec.structs.fields(RECORDS[stem])]


@EVERY
def test_schema_is_compatible_with_every_version_that_ever_was(stem: str) -> None:
    versions = sorted((HISTORY / stem).glob("*.avsc"), key=lambda file: int(file.stem))
    assert versions
    for file in versions:
        assert fully_compatible(file.read_text(), schemas.text(stem)), f"{stem}.avsc cannot live beside {file.name}"


@EVERY
def test_schema_of_today_is_recorded_as_the_newest_version(stem: str) -> None:
    newest = max((HISTORY / stem).glob("*.avsc"), key=lambda file: int(file.stem))
    assert json.loads(newest.read_text()) == json.loads(schemas.text(stem)), (
        f"{stem}.avsc changed: if the compatibility test passes, add it as {int(newest.stem) + 1}.avsc"
    )


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a field without a default", lambda s: s["fields"].append({"name": "n", "type": "int", "doc": "x"})),
        ("a field of another type", lambda s: s["fields"][0].update(type="long")),
        ("a required field gone", lambda s: s["fields"].pop(0)),
    ],
)
def test_incompatible_change_is_refused(what: str, change) -> None:
    changed = json.loads(schemas.text("recorder_batch"))
    change(changed)
    assert not fully_compatible(schemas.text("recorder_batch"), json.dumps(changed)), what


def test_compatible_change_is_let_through() -> None:
    changed = json.loads(schemas.text("recorder_batch"))
    changed["fields"].append({"name": "n", "type": "int", "default": 0, "doc": "x"})
    assert fully_compatible(schemas.text("recorder_batch"), json.dumps(changed))
