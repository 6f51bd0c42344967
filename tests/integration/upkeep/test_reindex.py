"""`replay reindex` over each kind of store: from the bucket alone the index is again what it was."""

from __future__ import annotations

import json
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from pipeline.storage.blocks import manifest_key, read_manifest
from pipeline.storage.clickhouse import ClickHouse
from pipeline.upkeep.reindex import Rebuilt, reindex
from tests.integration.upkeep.conftest import SESSIONS, Stores, clicks
from tests.integration.upkeep.test_verify import burn, delete_rows, ran, verified

NOW_S = int(time.time())
BLOCKS = 16


def reindexed(stores: Stores, *, alone: bool = False) -> Rebuilt:
    return reindex(stores.blobs, stores.warehouse, now_s=NOW_S, alone=alone)


def keep_manifests(stores: Stores) -> None:
    """They stay as they are."""


def delete_manifests(stores: Stores) -> None:
    for key in stores.objects():
        stores.blobs.delete(manifest_key(key))


def break_manifests(stores: Stores) -> None:
    for key in stores.objects():
        stores.change(manifest_key(key), b"{}")


def swap_manifests(stores: Stores) -> None:
    """Each says that it is another object's."""
    keys = stores.objects()
    bodies = [stores.blobs.get(manifest_key(key))[0] for key in keys]
    for key, body in zip(keys, bodies[1:] + bodies[:1], strict=True):
        stores.change(manifest_key(key), body)


@pytest.mark.parametrize(
    ("manifests", "alone"),
    [
        (keep_manifests, False),
        (keep_manifests, True),
        (delete_manifests, True),
        (break_manifests, False),
        (swap_manifests, False),
    ],
)
def test_from_an_emptied_index_every_recording_is_as_before(stores: Stores, manifests, alone: bool) -> None:
    recordings, rows = stores.recordings(), stores.index()
    bytes_before = {key: stores.blobs.get(key)[0] for key in stores.blobs.keys("")}
    assert sum(text.count(b"\n") for text in recordings.values()) == 2 * BLOCKS
    stores.warehouse.command("TRUNCATE TABLE {db}.blocks")
    manifests(stores)
    assert set(stores.recordings().values()) == {b""}
    first = reindexed(stores, alone=alone)
    assert (first.objects, first.blocks, first.blocks_added, first.unreadable) == (8, BLOCKS, BLOCKS, [])
    assert stores.recordings() == recordings
    assert stores.index() == rows
    assert {key: stores.blobs.get(key)[0] for key in stores.blobs.keys("")} == bytes_before
    assert verified(stores)[0] == set()
    again = reindexed(stores, alone=alone)
    assert (again.blocks, again.blocks_added, again.manifests_added, again.manifests_mended) == (BLOCKS, 0, 0, 0)
    assert stores.index() == rows


def test_rows_that_were_lost_come_back_however_often(stores: Stores) -> None:
    """The warehouse remembers the tokens of inserts whose rows are gone, and would swallow the same insert again."""
    rows = stores.index()
    key = stores.objects()[3]
    for where in ("n = 0", "1", "n = 1"):
        delete_rows(stores, key, where)
        assert reindexed(stores).blocks_added == (2 if where == "1" else 1)
        assert stores.index() == rows


def test_many_at_once_and_a_sink_index_each_block_once(stores: Stores) -> None:
    rows = stores.index()
    stores.warehouse.command("TRUNCATE TABLE {db}.blocks")

    def one(_: int) -> None:
        reindex(stores.blobs, ClickHouse(stores.settings), now_s=NOW_S)

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(one, number) for number in range(3)]
        stores.flush(0, 99, [clicks(100)])
        for each in running:
            each.result()
    reindexed(stores)
    assert [row for row in stores.index() if row[-3] < 100] == rows  # source_offset
    assert len(stores.index()) == BLOCKS + 1


@pytest.mark.parametrize("alone", [False, True])
def test_what_was_erased_stays_out(stores: Stores, alone: bool) -> None:
    """By the object, when the warehouse forgot it; by the table of erasures, while its bytes are still there."""
    burnt, erased = stores.objects()[2], stores.objects()[3]
    burn(stores, burnt, read_manifest(stores.blobs.get(burnt)[0]))
    stores.blobs.delete(manifest_key(burnt))
    block = read_manifest(stores.blobs.get(erased)[0]).blocks[0]
    partition = stores.warehouse.value(
        "SELECT any(source_partition) FROM {db}.blocks WHERE object = {key:String}", key=erased
    )
    stores.warehouse.insert(
        "erasures",
        pa.table(
            {
                "tenant": [block.tenant],
                "session_id": [block.session_id],
                "epoch": pa.array([1], pa.uint32()),
                "source_partition": pa.array([partition], pa.uint32()),
                "source_offset": pa.array([block.source_last_offset], pa.uint64()),
            }
        ),
    )
    expected = {
        (row[4], row[5])
        for row in stores.index()
        if (row[4], row[5]) != (burnt, 1)
        and not (row[1] == block.session_id and row[13] == partition and row[14] <= block.source_last_offset)
    }
    stores.warehouse.command("TRUNCATE TABLE {db}.blocks")
    reindexed(stores, alone=alone)
    assert {(row[4], row[5]) for row in stores.index()} == expected
    assert (erased, block.n) not in expected


def test_an_object_of_which_nothing_can_be_read_is_named_and_the_others_are_indexed(stores: Stores) -> None:
    recordings = stores.recordings()
    key = stores.objects()[0]
    stores.warehouse.command("TRUNCATE TABLE {db}.blocks")
    stores.blobs.delete(manifest_key(key))
    whole = stores.blobs.get(key)[0]
    stores.change(key, whole[:-1])
    rebuilt = reindexed(stores)
    assert (rebuilt.unreadable, rebuilt.blocks_added) == ([key], BLOCKS - 2)
    stores.change(key, whole)
    assert reindexed(stores).blocks_added == 2
    assert stores.recordings() == recordings


def test_what_leads_nowhere_is_not_indexed(stores: Stores) -> None:
    """A manifest whose object is gone, an object past its retention, a file that is none of ours."""
    stores.flush(0, 99, [clicks(100, retention="1d")])
    key = stores.objects()[0]
    gone = next(each for each in stores.objects() if "retention=9y" in each)
    stores.blobs.delete(gone)
    stores.blobs.put_if_absent("replays/v1/notes.txt", b"")
    stores.warehouse.command("TRUNCATE TABLE {db}.blocks")
    rebuilt = reindexed(stores)
    assert (rebuilt.objects, rebuilt.blocks_added, rebuilt.expired_objects) == (8, BLOCKS - 2, 1)
    assert not {key, gone} & {row[4] for row in stores.index()}


@pytest.mark.parametrize("empty", ["directory"], indirect=True)
def test_the_command_tells_what_it_did_and_ends_with_a_code(stores: Stores) -> None:
    stores.warehouse.command("TRUNCATE TABLE {db}.blocks")
    key = stores.objects()[0]
    stores.blobs.delete(manifest_key(key))
    code, out = ran(stores.settings, "reindex", "--json")
    told = json.loads(out)
    assert (code, told["blocks_added"], told["manifests_added"], told["unreadable"]) == (0, BLOCKS, 1, [])
    assert len(stores.recordings()) == len(SESSIONS)
    stores.blobs.delete(manifest_key(key))
    stores.change(key, struct.pack("<II", 0x184D2A50, 0))
    code, out = ran(stores.settings, "reindex")
    assert (code, out.splitlines()[1:]) == (1, [f"unreadable {key}"])
