"""The eraser over real stores and a real log; what it waits for there (worker and sinks) is past already: the whole stack's
tests have those. It dies at its steps, and whoever takes over leaves nothing of the session and all of the others."""

from __future__ import annotations

import dataclasses
import json
import secrets
import threading
from pathlib import Path

import msgspec
import pytest

from pipeline.erasure.eraser import Eraser
from pipeline.erasure.requests import Requests
from pipeline.errors import RetryableError
from pipeline.settings import Settings
from pipeline.sinks.delivery import Done, Taken
from pipeline.sinks.objects import ObjectStore
from pipeline.sinks.rows import session_rows, user_rows
from pipeline.sinks.sessions import _NOT_ERASED
from pipeline.sinks.warehouse import WarehouseStore
from pipeline.storage.blobs import BlobStore
from pipeline.storage.blocks import OBJECT_SUFFIX, encode_manifest, manifest_key, read_block, read_manifest
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.directory import DirectoryStore
from pipeline.storage.migrate import migrate
from pipeline.storage.pins import PINNED_PREFIX
from pipeline.storage.s3 import S3Store
from pipeline.storage.staging import Stage
from tests.integration.sinks.crashes import CrashError, Dying
from tests.integration.sinks.test_sessions import NOW, UPDATE
from tests.integration.storage.test_s3 import past
from tests.s3 import Server
from tests.unit.sinks.clean import AUGUST_MS, batch

GONE, STAYS = "gone", "stays"
OBJECTS, EVENTS = 3, 2
TABLES = ("events", "sessions", "session_users", "blocks")
STEPS_MAX = 1_000


class Past:
    """Everybody is past everything."""

    def raw_ends(self) -> dict[int, int]:
        return {}

    session_ends = raw_ends

    def worker_behind(self, _: object) -> str:
        return ""

    sinks_behind = sessions_behind = not_forgotten = worker_behind

    def close(self) -> None:
        pass


def own_place(settings: Settings) -> Settings:
    """A database of its own in which replaced parts go at once."""
    settings = dataclasses.replace(settings, warehouse_database=f"t_{secrets.token_hex(4)}", retention_class="9y")
    migrate(settings)
    for table in (*TABLES, "erasure_requests"):
        ClickHouse(settings).command(
            f"ALTER TABLE {{db}}.{table} MODIFY SETTING old_parts_lifetime = 0, cleanup_delay_period = 1, "
            "cleanup_delay_period_random_add = 0, max_cleanup_delay_period = 1"
        )
    return settings


def filled(settings: Settings, blobs: BlobStore) -> None:
    """Two sessions of two users in the same objects, tables and claims, by the sinks themselves."""
    rows, objects = WarehouseStore(settings), ObjectStore(settings, blobs)
    for n in range(OBJECTS):
        batches = [
            batch(
                2 * n + m, [("click", AUGUST_MS, {"text": f"said by {who}"})] * EVENTS, session_id=who, retention="9y"
            )
            for m, who in enumerate((GONE, STAYS))
        ]
        taken = [Taken(each, each.source_offset) for each in batches]
        for store in (rows, objects):
            assert store.flush(0, 2 * n - 1, taken) == Done(2 * n + 1)
    for who in (GONE, STAYS):
        update = msgspec.structs.replace(UPDATE, session_id=who, user_id=f"{who}-user", retention="9y")
        warehouse = ClickHouse(settings)
        Stage(warehouse, "sessions").insert(session_rows([(update, NOW)]), token=f"s{who}", guard=_NOT_ERASED)
        Stage(warehouse, "session_users").insert(user_rows([(update, NOW)]), token=f"u{who}", guard=_NOT_ERASED)
    rows.end()
    objects.end()


def eraser(settings: Settings, blobs: BlobStore) -> Eraser:
    made = Eraser(settings, blobs, threading.Event())
    made._positions = Past()  # type: ignore[assignment]
    return made


def dying(settings: Settings, blobs: BlobStore, at: int, *, answer_lost: bool) -> Eraser:
    """Dies at its `at`-th call of warehouse and object store together."""
    made = eraser(settings, blobs)
    both = Dying(_Both(made._warehouse, blobs), at, answer_lost=answer_lost)
    made._store = made._warehouse = both  # type: ignore[assignment]
    made._rows._warehouse = made._requests._warehouse = both  # type: ignore[assignment]
    return made


class _Both:
    """The names of the two do not meet."""

    def __init__(self, warehouse: ClickHouse, blobs: BlobStore) -> None:
        self._all = (warehouse, blobs)

    def __getattr__(self, name: str) -> object:
        warehouse, blobs = self._all
        return getattr(warehouse if hasattr(warehouse, name) else blobs, name)


def ask(settings: Settings, kind: str = "session", subject: str = GONE) -> str:
    requests = Requests(ClickHouse(settings))
    return requests.ask("acme", kind, subject, key="k", now_ms=NOW).id  # type: ignore[arg-type]


def said(blobs: BlobStore, who: str) -> list[tuple[str, bytes]]:
    """(object, line) of all blocks of a session, as their manifests list them; hashes must hold."""
    found = []
    for key in blobs.keys("replays/"):
        if key.endswith(OBJECT_SUFFIX):
            body, _ = blobs.get(key)
            for block in read_manifest(body).blocks:
                frame = body[block.byte_start : block.byte_start + block.byte_length]
                lines = read_block(frame, block.sha256)
                found += [(key, bytes(line.data)) for line in lines if block.session_id == who]
    return found


def counts(settings: Settings, who: str) -> dict[str, int]:
    warehouse = ClickHouse(settings)
    return {
        table: warehouse.value(f"SELECT count() FROM {{db}}.{table} WHERE session_id = {{s:String}}", s=who)
        for table in TABLES
    }


def must_be_erased(settings: Settings, blobs: BlobStore, before: list[tuple[str, bytes]]) -> None:
    assert set(counts(settings, GONE).values()) == {0}
    assert counts(settings, STAYS) == {
        "events": OBJECTS * EVENTS,
        "sessions": 1,
        "session_users": 1,
        "blocks": OBJECTS,
    }
    assert said(blobs, STAYS) == before
    for key in blobs.keys("replays/"):
        body, _ = blobs.get(key)
        assert GONE.encode() not in body
        if key.endswith(OBJECT_SUFFIX):
            assert blobs.get(manifest_key(key))[0] == encode_manifest(read_manifest(body))


@pytest.mark.parametrize("kind", ["session", "user"])
def test_erased_is_gone_from_every_store_and_its_neighbour_stays(
    with_both: Settings, tmp_path: Path, kind: str
) -> None:
    settings, blobs = own_place(with_both), DirectoryStore(tmp_path / "objects")
    filled(settings, blobs)
    before = said(blobs, STAYS)
    request_id = ask(settings, kind, GONE if kind == "session" else f"{GONE}-user")
    assert eraser(settings, blobs).round() == 1
    must_be_erased(settings, blobs, before)
    done = Requests(ClickHouse(settings)).get("acme", request_id)
    assert done is not None
    assert done.status == "done"
    told = msgspec.json.decode(done.certificate)
    assert told["removed"]["rows"] == {
        "blocks": OBJECTS,
        "events": OBJECTS * EVENTS,
        "pins": 0,
        "session_users": 1,
        "sessions": 1,
    }
    assert told["removed"]["objects"]["objects"] == told["removed"]["objects"]["blocks"] == OBJECTS
    assert eraser(settings, blobs).round() == 0


@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_crash_at_any_step_is_mended_by_the_next(
    with_both: Settings, tmp_path: Path, answer_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every thirteenth step, others in each case. The engine's half minute for replaced parts is waited for in other tests."""
    monkeypatch.setattr("pipeline.erasure.eraser.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(Eraser, "_wait_for_parts", lambda *_: None)
    crashed = 0
    for at in range(1 + 6 * answer_lost, STEPS_MAX, 13):
        settings, blobs = own_place(with_both), DirectoryStore(tmp_path / f"objects{at}")
        filled(settings, blobs)
        before = said(blobs, STAYS)
        request_id = ask(settings, "user", f"{GONE}-user")
        try:
            dying(settings, blobs, at, answer_lost=answer_lost).round()
        except CrashError:
            crashed += 1
        else:
            break
        while eraser(settings, blobs).round():
            pass
        must_be_erased(settings, blobs, before)
        done = Requests(ClickHouse(settings)).get("acme", request_id)
        assert done is not None
        assert json.loads(done.certificate)["session_ids"] == [GONE]
    assert crashed >= 3


def test_an_object_that_cannot_be_read_holds_up_its_own_sessions_only(
    with_both: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Eraser, "_wait_for_parts", lambda *_: None)
    settings, blobs = own_place(with_both), DirectoryStore(tmp_path / "objects")
    filled(settings, blobs)
    before = said(blobs, STAYS)
    key = next(each for each in blobs.keys("replays/") if each.endswith(OBJECT_SUFFIX))
    whole, etag = blobs.get(key)
    assert blobs.replace_if_match(key, whole[:-1], etag)
    stuck, other = ask(settings), ask(settings, subject="other")
    first = eraser(settings, blobs)
    assert first.round() == 1
    assert first.stuck == {stuck}
    requests = Requests(ClickHouse(settings))
    waiting, done = requests.get("acme", stuck), requests.get("acme", other)
    assert waiting is not None
    assert done is not None
    assert (waiting.status, done.status) == ("running", "done")
    assert key in waiting.waits_for
    assert counts(settings, GONE)["blocks"] == OBJECTS  # or nobody would find the rest any more
    assert blobs.replace_if_match(key, whole, blobs.get(key)[1])
    assert eraser(settings, blobs).round() == 1
    must_be_erased(settings, blobs, before)


class Forgetful(DirectoryStore):
    """Says that it has replaced a blob, and has not."""

    def replace_if_match(self, key: str, body: bytes, etag: str) -> bool:
        return True


def test_there_is_no_certificate_while_an_object_still_holds_the_session(
    with_both: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Eraser, "_wait_for_parts", lambda *_: None)
    settings, blobs = own_place(with_both), DirectoryStore(tmp_path / "objects")
    filled(settings, blobs)
    before = said(blobs, STAYS)
    request_id = ask(settings)
    for _ in range(2):
        with pytest.raises(RetryableError):
            eraser(settings, Forgetful(tmp_path / "objects")).round()
        found = Requests(ClickHouse(settings)).get("acme", request_id)
        assert found is not None
        assert found.status == "running"
    assert eraser(settings, blobs).round() == 1
    must_be_erased(settings, blobs, before)


def test_an_object_that_is_nowhere_though_it_must_be_is_told(
    with_both: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the eraser is pointed at another store than the sinks."""
    monkeypatch.setattr(Eraser, "_wait_for_parts", lambda *_: None)
    settings, blobs = own_place(with_both), DirectoryStore(tmp_path / "objects")
    filled(settings, blobs)
    request_id = ask(settings)
    assert eraser(settings, DirectoryStore(tmp_path / "elsewhere")).round() == 0
    found = Requests(ClickHouse(settings)).get("acme", request_id)
    assert found is not None
    assert found.status == "running"
    assert counts(settings, GONE)["blocks"] == OBJECTS


def test_what_is_stored_under_other_epochs_is_refused_too(
    with_both: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Eraser, "_wait_for_parts", lambda *_: None)
    settings, blobs = own_place(with_both), DirectoryStore(tmp_path / "objects")
    filled(settings, blobs)
    ask(settings)
    eraser(dataclasses.replace(settings, epoch=2), blobs).round()
    noted = ClickHouse(settings).rows(
        "SELECT DISTINCT epoch, source_partition FROM {db}.erasures WHERE session_id = 'gone'"
    )
    assert {epoch for epoch, _ in noted} == {1, 2}
    highest = ClickHouse(settings).value(
        "SELECT max(source_offset) FROM {db}.erasures WHERE session_id = 'gone' AND epoch = 1"
    )
    assert highest == 2 * (OBJECTS - 1)


def test_a_user_who_is_asked_for_again_while_the_first_request_runs_is_looked_up_again(with_both: Settings) -> None:
    settings = own_place(with_both)
    requests = Requests(ClickHouse(settings))
    first = ask(settings, "user", "someone")
    assert ask(settings, "user", "someone") == first
    begun = requests.get("acme", first)
    assert begun is not None
    requests.write(msgspec.structs.replace(begun, revision=2, status="running"))
    assert ask(settings, "user", "someone") != first


def test_many_requests_cost_few_mutations_and_one_rewrite_an_object(
    with_both: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Eraser, "_wait_for_parts", lambda *_: None)
    settings, blobs = own_place(with_both), DirectoryStore(tmp_path / "objects")
    filled(settings, blobs)
    before = said(blobs, STAYS)
    for subject in (GONE, *(f"other{n}" for n in range(100))):
        ask(settings, subject=subject)
    assert eraser(settings, blobs).round() == 101
    must_be_erased(settings, blobs, before)
    mutations = ClickHouse(settings).value(
        "SELECT count() FROM system.mutations WHERE database = {d:String}", d=settings.warehouse_database
    )
    assert mutations == len(TABLES) + 2  # pins, and the requests' own


def test_what_a_sink_brings_late_is_refused(
    with_both: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, blobs = own_place(with_both), DirectoryStore(tmp_path / "objects")
    filled(settings, blobs)
    before = said(blobs, STAYS)
    monkeypatch.setattr(Eraser, "_wait_for_parts", lambda *_: None)
    for _ in range(2):  # the first request stands at offset 0 of an empty log: nothing is before it
        ask(settings)
        eraser(settings, blobs).round()
    late = msgspec.structs.replace(UPDATE, session_id=GONE, user_id="u", revision=0, retention="9y")
    warehouse = ClickHouse(settings)
    Stage(warehouse, "sessions").insert(session_rows([(late, NOW)]), token="late", guard=_NOT_ERASED)
    must_be_erased(settings, blobs, before)


def test_copy_of_a_pinned_session_that_has_no_bytes_yet_can_have_none_any_more(
    with_both: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Eraser, "_wait_for_parts", lambda *_: None)
    settings, blobs = own_place(with_both), DirectoryStore(tmp_path / "objects")
    filled(settings, blobs)
    key = f"{PINNED_PREFIX}date=2026-08-31/hour=23/o-b0{OBJECT_SUFFIX}"
    ClickHouse(settings).command(
        f"INSERT INTO {{db}}.blocks SELECT * REPLACE ('{key}' AS object) FROM {{db}}.blocks WHERE session_id = '{GONE}' LIMIT 1"
    )
    ask(settings)
    eraser(settings, blobs).round()
    assert blobs.put_if_absent(key, b"what was to be copied") is False
    assert read_manifest(blobs.get(key)[0]).blocks == ()


def test_old_versions_of_the_objects_go_too(
    with_both: Settings, bucket: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Eraser, "_wait_for_parts", lambda *_: None)
    client = s3_server.client()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    settings, blobs = own_place(with_both), S3Store(bucket, "p", endpoint=s3_server.endpoint)
    filled(settings, blobs)
    before = said(blobs, STAYS)
    ask(settings)
    eraser(settings, blobs).round()
    must_be_erased(settings, blobs, before)
    assert [key for key in blobs.keys("replays/") if past(client, bucket, f"p/{key}")] == []
