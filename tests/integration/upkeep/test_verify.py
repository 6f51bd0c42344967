"""`replay verify` over each kind of store: nothing on a healthy one, and each kind of damage by its name."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec
import pytest

from pipeline.erasure.blocks import erase
from pipeline.local.parts import child_environ
from pipeline.model.blocks import Manifest
from pipeline.settings import Settings
from pipeline.storage.blocks import Place, encode_manifest, manifest_key, pack, read_manifest
from pipeline.storage.index import BlockIndex
from pipeline.upkeep.verify import Verification
from pipeline.upkeep.walk import walk
from tests.integration.upkeep.conftest import Stores, clicks

Found = set[tuple[str, str, int | None]]
NOW_S = int(time.time())


def verified(stores: Stores, **more: object) -> tuple[Found, Verification]:
    verification = Verification(stores.blobs, stores.warehouse, now_s=NOW_S, settle_s=0, **more)
    return {(each.kind, each.object, each.n) for each in verification.run()}, verification


def test_a_healthy_store_has_nothing_to_tell(stores: Stores) -> None:
    found, verification = verified(stores)
    assert found == set()
    keys = stores.objects()
    assert len(keys) == 8
    assert verification.tally == msgspec.convert(
        {"objects": 8, "blocks": 16, "bytes": sum(len(stores.blobs.get(key)[0]) for key in keys)},
        type(verification.tally),
    )


def gone(stores: Stores, key: str, manifest: Manifest) -> Found:
    stores.blobs.delete(key)
    return {("hole", key, block.n) for block in manifest.blocks} | {("manifest", key, None)}


def gone_with_its_manifest(stores: Stores, key: str, manifest: Manifest) -> Found:
    stores.blobs.delete(manifest_key(key))
    return gone(stores, key, manifest) - {("manifest", key, None)}


def cut_short(stores: Stores, key: str, manifest: Manifest) -> Found:
    last = manifest.blocks[-1]
    stores.change(key, stores.blobs.get(key)[0][: last.byte_start + last.byte_length - 1])
    return {("hole", key, last.n), ("unreadable", key, None)}


def trailer_changed(stores: Stores, key: str, manifest: Manifest) -> Found:
    stores.change(key, stores.blobs.get(key)[0][:-2] + b"]]")
    return {("unreadable", key, None)}


def another_object_in_its_place(stores: Stores, key: str, manifest: Manifest) -> Found:
    other = next(each for each in stores.objects() if each != key)
    stores.change(key, stores.blobs.get(other)[0])
    return {("corrupt", key, block.n) for block in manifest.blocks} | {("unreadable", key, None)}


def bit_flipped(stores: Stores, key: str, manifest: Manifest) -> Found:
    body, block = bytearray(stores.blobs.get(key)[0]), manifest.blocks[1]
    body[block.byte_start + block.byte_length // 2] ^= 1
    stores.change(key, bytes(body))
    return {("corrupt", key, 1)}


def first_byte_flipped(stores: Stores, key: str, manifest: Manifest) -> Found:
    body = bytearray(stores.blobs.get(key)[0])
    body[manifest.blocks[1].byte_start] ^= 1
    stores.change(key, bytes(body))
    return {("corrupt", key, 1)}


def burn(stores: Stores, key: str, manifest: Manifest) -> Manifest:
    """Block 1 is erased as the eraser does it; the manifest of what is left."""
    block = manifest.blocks[1]
    done = erase(stores.blobs.get(key)[0], {(block.tenant, block.session_id)})
    assert done is not None
    stores.change(key, done.body)
    return done.manifest


def erased_but_indexed(stores: Stores, key: str, manifest: Manifest) -> Found:
    burn(stores, key, manifest)
    return {("erased", key, 1)}


def unindexed(stores: Stores, key: str, manifest: Manifest) -> Found:
    delete_rows(stores, key, "1")
    return {("orphan", key, None)}


def one_row_lost(stores: Stores, key: str, manifest: Manifest) -> Found:
    delete_rows(stores, key, "n = 1")
    return {("orphan", key, 1)}


def one_row_lost_and_its_block_changed(stores: Stores, key: str, manifest: Manifest) -> Found:
    return one_row_lost(stores, key, manifest) | bit_flipped(stores, key, manifest)


def row_twice(stores: Stores, key: str, manifest: Manifest) -> Found:
    copy_row(stores, key, "*")
    return {("doubled", key, 1)}


def row_of_another_session(stores: Stores, key: str, manifest: Manifest) -> Found:
    copy_row(stores, key, "* REPLACE ('someone-else' AS session_id)")
    delete_rows(stores, key, "n = 1 AND session_id != 'someone-else'")
    return {("differs", key, 1)}


def row_of_nothing(stores: Stores, key: str, manifest: Manifest) -> Found:
    copy_row(stores, key, "* REPLACE ('replays//nothing' AS object)")
    return {("hole", "replays//nothing", 1)}


def manifest_gone(stores: Stores, key: str, manifest: Manifest) -> Found:
    stores.blobs.delete(manifest_key(key))
    return {("manifest", key, None)}


def manifest_broken(stores: Stores, key: str, manifest: Manifest) -> Found:
    stores.change(manifest_key(key), b'{"version":')
    return {("manifest", key, None)}


def manifest_without_a_block(stores: Stores, key: str, manifest: Manifest) -> Found:
    other = msgspec.structs.replace(manifest, blocks=manifest.blocks[:1])
    stores.change(manifest_key(key), encode_manifest(other))
    return {("manifest", key, None)}


def offsets_claimed_twice(stores: Stores, key: str, manifest: Manifest) -> Found:
    place = Place(manifest.topic, manifest.epoch, manifest.source_partition)
    inside = clicks(manifest.last, retention=manifest.retention, source_partition=manifest.source_partition)
    packed = pack(place, manifest.retention, manifest.last, [inside])
    put(stores, packed.body, packed.manifest)
    index(stores, packed.manifest)
    keys = sorted([key, packed.manifest.object])
    return {("overlap", keys[1], None)}  # the second one is told


def something_else(stores: Stores, key: str, manifest: Manifest) -> Found:
    stores.blobs.put_if_absent("replays/v1/notes.txt", b"")
    return {("unknown", "replays/v1/notes.txt", None)}


DAMAGES = [
    gone, gone_with_its_manifest, cut_short, trailer_changed, another_object_in_its_place, bit_flipped, first_byte_flipped,
    erased_but_indexed, unindexed, one_row_lost, one_row_lost_and_its_block_changed, row_twice, row_of_another_session,
    row_of_nothing, manifest_gone, manifest_broken, manifest_without_a_block, offsets_claimed_twice, something_else,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_damage_is_found_where_it_is_and_nowhere_else(
    stores: Stores, damage: Callable[[Stores, str, Manifest], Found]
) -> None:
    key = stores.objects()[2]
    manifest = read_manifest(stores.blobs.get(key)[0])
    assert len(manifest.blocks) == 2
    expected = damage(stores, key, manifest)
    assert verified(stores)[0] == expected


def test_an_erasure_that_is_complete_is_no_damage(stores: Stores) -> None:
    key = stores.objects()[2]
    manifest = read_manifest(stores.blobs.get(key)[0])
    left = burn(stores, key, manifest)
    delete_rows(stores, key, "n = 1")
    assert verified(stores)[0] == set()
    stores.change(manifest_key(key), encode_manifest(left))
    assert verified(stores)[0] == set()


def test_what_is_past_its_retention_is_counted_and_not_missed(empty: Stores) -> None:
    empty.flush(0, -1, [clicks(0, retention="1d"), clicks(1, retention="1d", session_id="s2")])
    delete_rows(empty, empty.objects()[0], "1")
    found, verification = verified(empty)
    assert (found, verification.tally.expired_objects) == (set(), 1)


def test_a_flush_that_is_under_way_is_no_damage(stores: Stores) -> None:
    packed = pack(Place("replay.batches", 1, 0), "9y", 100, [clicks(100)])
    put(stores, packed.body, packed.manifest)
    assert verified(stores)[0] == {("orphan", packed.manifest.object, None)}
    seen: list[str] = []

    def ends_meanwhile(_tally: object, key: str) -> None:
        seen.append(key)
        if key == packed.manifest.object:
            index(stores, packed.manifest)

    assert verified(stores, progress=ends_meanwhile)[0] == set()
    assert packed.manifest.object in seen


def test_pages_of_any_size_are_the_same_walk(stores: Stores) -> None:
    whole = list(walk(stores.blobs, stores.warehouse))
    for page_rows in (1, 3, 5):
        assert list(walk(stores.blobs, stores.warehouse, page_rows=page_rows)) == whole
    assert [each.key for each in whole] == stores.objects()


@pytest.mark.parametrize("empty", ["directory"], indirect=True)
def test_the_command_prints_findings_and_ends_with_a_code(stores: Stores) -> None:
    code, out = ran(stores.settings, "verify", "--settle", "0")
    assert (code, out.endswith(": all is well\n")) == (0, True)
    key = stores.objects()[2]
    stores.blobs.delete(manifest_key(key))
    code, out = ran(stores.settings, "verify", "--settle", "0")
    assert (code, out.splitlines()[0].split()) == (1, ["manifest", key, "missing"])
    code, out = ran(stores.settings, "verify", "--settle", "0", "--json")
    finding, tally = map(json.loads, out.splitlines())
    assert (code, finding) == (1, {"kind": "manifest", "object": key, "why": "missing"})
    assert (tally["objects"], tally["findings"]) == (8, {"manifest": 1})


@pytest.mark.parametrize("empty", ["directory"], indirect=True)
def test_a_walk_that_cannot_be_done_is_told_apart(empty: Stores) -> None:
    nowhere = dataclasses.replace(empty.settings, warehouse_url="http://127.0.0.1:1")
    assert ran(nowhere, "verify") == (2, "")


def ran(settings: Settings, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        env={**child_environ(settings)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


def put(stores: Stores, body: bytes, manifest: Manifest) -> None:
    assert stores.blobs.put_if_absent(manifest.object, body)
    assert stores.blobs.put_if_absent(manifest_key(manifest.object), encode_manifest(manifest))


def index(stores: Stores, manifest: Manifest) -> None:
    added = BlockIndex(stores.warehouse)
    added.insert(manifest)
    added.close()


def delete_rows(stores: Stores, key: str, where: str) -> None:
    stores.warehouse.command(
        f"ALTER TABLE {{db}}.blocks DELETE WHERE object = {{key:String}} AND ({where}) SETTINGS mutations_sync = 2",
        key=key,
    )


def copy_row(stores: Stores, key: str, columns: str) -> None:
    stores.warehouse.command(
        f"INSERT INTO {{db}}.blocks SETTINGS insert_deduplicate = 0 "
        f"SELECT {columns} FROM (SELECT * FROM {{db}}.blocks WHERE object = {{key:String}} AND n = 1)",
        key=key,
    )
