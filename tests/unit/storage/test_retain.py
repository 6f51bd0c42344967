"""What may go and when: by the calendar, by the last record of an object, and never what is pinned or unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import boto3
import msgspec
import pytest
from moto import mock_aws

from pipeline.model.batches import CleanBatch
from pipeline.storage.blocks import PackedObject, Place, encode_manifest, manifest_key, pack
from pipeline.storage.directory import DirectoryStore
from pipeline.storage.retain import classes, expired, lifecycle
from tests.unit.sinks.clean import clicks

PLACE = Place("t", 1, 0)


def at(text: str) -> int:
    """Seconds since 1970 of an ISO time, UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def taken_in(offset: int, text: str) -> CleanBatch:
    return clicks(offset, source_at=at(text) * 1000)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def put(store: DirectoryStore, retention: str, *batches: CleanBatch) -> PackedObject:
    packed = pack(PLACE, retention, batches[-1].source_offset, batches)
    store.put_if_absent(packed.manifest.object, packed.body)
    store.put_if_absent(manifest_key(packed.manifest.object), encode_manifest(packed.manifest))
    return packed


def keys(store: DirectoryStore, text: str) -> list[str]:
    return [each.key for each in expired(store, at(text))]


@pytest.mark.parametrize(
    ("retention", "stays", "goes"),
    [
        ("1d", "2026-09-01T23:59:59", "2026-09-02T00:00:00"),
        ("30d", "2026-09-30T23:59:59", "2026-10-01T00:00:00"),
        ("1y", "2027-08-31T23:59:59", "2027-09-01T00:00:00"),
        ("5y", "2031-08-30T23:59:59", "2031-08-31T00:00:00"),
    ],
)
def test_an_object_goes_at_the_end_of_its_last_day(
    store: DirectoryStore, retention: str, stays: str, goes: str
) -> None:
    packed = put(store, retention, taken_in(5, "2026-08-31T00:00:00"), taken_in(6, "2026-08-31T23:59:59"))
    assert keys(store, stays) == []
    (found,) = expired(store, at(goes))
    assert (found.key, found.size, found.retention) == (packed.manifest.object, len(packed.body), retention)


def test_an_object_stays_as_long_as_its_last_record(store: DirectoryStore) -> None:
    packed = put(store, "30d", taken_in(5, "2026-08-31T23:59:59"), taken_in(6, "2026-09-02T00:00:01"))
    assert "date=2026-08-31" in packed.manifest.object
    assert keys(store, "2026-10-02T23:59:59") == []
    assert keys(store, "2026-10-03T00:00:00") == [packed.manifest.object]


def test_days_and_classes_are_told_apart(store: DirectoryStore) -> None:
    old = [put(store, retention, taken_in(5, "2026-07-01T00:00:00")) for retention in ("1d", "30d", "1y")]
    put(store, "30d", taken_in(6, "2026-08-31T00:00:00"))
    assert list(classes(store)) == ["1d", "1y", "30d"]
    assert keys(store, "2026-09-01T00:00:00") == [old[0].manifest.object, old[1].manifest.object]


def test_what_is_pinned_unknown_or_not_ours_stays(store: DirectoryStore) -> None:
    known = put(store, "1d", taken_in(5, "2020-01-01T00:00:00"))
    for name in ("pinned", "forever", "0d"):
        store.put_if_absent(known.manifest.object.replace("=1d", f"={name}"), known.body)
    store.put_if_absent("replays/v1/retention=1d/date=2020-01-01/notes.txt", b"mine")
    store.put_if_absent("replays/v1/retention=1d/date=2020-13-41/hour=00/t-1-0-5.jsonl.zst", known.body)
    assert keys(store, "2026-01-01T00:00:00") == [known.manifest.object]


def test_without_a_manifest_the_object_says_it(store: DirectoryStore) -> None:
    packed = put(store, "30d", taken_in(5, "2026-08-31T23:59:59"), taken_in(6, "2026-09-02T00:00:01"))
    store.delete(manifest_key(packed.manifest.object))
    assert keys(store, "2026-10-02T23:59:59") == []
    assert keys(store, "2026-10-03T00:00:00") == [packed.manifest.object]


def test_a_manifest_whose_object_is_gone_goes_too(store: DirectoryStore) -> None:
    packed = put(store, "1d", taken_in(5, "2026-08-31T00:00:00"))
    store.delete(packed.manifest.object)
    (found,) = expired(store, at("2026-09-10T00:00:00"))
    assert (found.key, found.size) == (packed.manifest.object, 0)


def test_what_nobody_can_read_stays(store: DirectoryStore) -> None:
    packed = put(store, "1d", taken_in(5, "2026-08-31T00:00:00"))
    for key in (packed.manifest.object, manifest_key(packed.manifest.object)):
        store.replace_if_match(key, b"torn", store.get(key)[1])
    assert keys(store, "2026-10-01T00:00:00") == []


def test_the_manifest_is_believed_and_not_the_key(store: DirectoryStore) -> None:
    packed = put(store, "1d", taken_in(5, "2026-08-31T00:00:00"))
    key = manifest_key(packed.manifest.object)
    later = msgspec.structs.replace(packed.manifest, expires_at=at("2030-01-01T00:00:00"))
    store.replace_if_match(key, encode_manifest(later), store.get(key)[1])
    assert keys(store, "2029-12-31T23:59:59") == []


def test_a_bucket_takes_the_lifecycle_and_pinned_has_no_rule() -> None:
    rules = lifecycle({"30d", "1y", "pinned", "7d"}, "some/prefix")
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        s3.create_bucket(Bucket="replays")
        s3.put_bucket_lifecycle_configuration(Bucket="replays", LifecycleConfiguration=rules)
        kept = s3.get_bucket_lifecycle_configuration(Bucket="replays")["Rules"]
    ends = {each["Filter"]["Prefix"]: each["Expiration"].get("Days") for each in kept}
    assert ends == {
        "some/prefix/replays/v1/retention=7d/": 7,
        "some/prefix/replays/v1/retention=30d/": 30,
        "some/prefix/replays/v1/retention=1y/": 365,
        "some/prefix/replays/v1/retention=": None,
    }
