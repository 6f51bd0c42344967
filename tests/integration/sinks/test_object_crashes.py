"""The object sink dies at each of its steps in turn; whoever takes over leaves each event exactly once, and indexed."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import secrets
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from pipeline.settings import Settings
from pipeline.sinks.delivery import Done, NeedMore, Taken
from pipeline.sinks.objects import ObjectStore
from pipeline.storage.blocks import MANIFEST_SUFFIX, OBJECT_SUFFIX
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.directory import DirectoryStore
from pipeline.storage.migrate import migrate
from pipeline.topics.commits import Committed
from tests.integration.sinks.crashes import CrashError, Dying
from tests.unit.sinks import clean
from tests.unit.sinks.clean import AUGUST_MS

batch = functools.partial(clean.batch, retention="9y")  # or the rows go as soon as they come
clicks = functools.partial(clean.clicks, retention="9y")

#: Two retention classes, two sessions, one batch with nothing left.
BATCHES = [
    clicks(0),
    clicks(1, [AUGUST_MS, AUGUST_MS + 1], retention="5y", session_id="s2"),
    batch(2),
    clicks(3, [AUGUST_MS + 5]),
]
EVENTS = Counter({("s1", AUGUST_MS): 1, ("s2", AUGUST_MS): 1, ("s2", AUGUST_MS + 1): 1, ("s1", AUGUST_MS + 5): 1})
STEPS_MAX = 60


def taken(batches: list) -> list[Taken]:
    return [Taken(each, each.source_offset) for each in batches]


def own_place(engine: Settings, folder: Path) -> tuple[Settings, DirectoryStore]:
    word = secrets.token_hex(4)
    settings = dataclasses.replace(engine, warehouse_database=f"t_{word}")
    migrate(settings)
    return settings, DirectoryStore(folder / word)


def dying(settings: Settings, blobs: DirectoryStore, at: int, *, answer_lost: bool) -> ObjectStore:
    """Dies at the `at`-th step, counted over the blob store and the index together."""
    both = Dying(None, at, answer_lost=answer_lost)
    store = ObjectStore(settings, _share(both, blobs))  # type: ignore[arg-type]
    stage = store._index._stage
    stage._warehouse = _share(both, stage._warehouse)  # type: ignore[assignment]
    return store


def _share(steps: Dying, real: object) -> object:
    """Another thing that counts down the same steps."""

    class Shared:
        def __getattr__(self, name: str) -> object:
            steps._real = real
            return getattr(steps, name)

    return Shared()


def must_be_whole(settings: Settings, blobs: DirectoryStore) -> None:
    lines: Counter[tuple[str, int]] = Counter()
    objects = [key for key in blobs.keys("") if key.endswith(OBJECT_SUFFIX)]
    for key in objects:
        text = zstandard.ZstdDecompressor().stream_reader(blobs.get(key)[0], read_across_frames=True).read()
        lines.update((event["session_id"], event["timestamp"]) for event in map(json.loads, text.splitlines()))
    assert lines == EVENTS
    manifests = [json.loads(blobs.get(key)[0]) for key in blobs.keys("") if key.endswith(MANIFEST_SUFFIX)]
    assert sorted(each["object"] for each in manifests) == sorted(objects)
    in_manifests = Counter((each["object"], block["n"]) for each in manifests for block in each["blocks"])
    indexed = ClickHouse(settings).rows("SELECT object, n, event_count FROM {db}.blocks")
    assert Counter((key, n) for key, n, _ in indexed) == in_manifests
    assert sum(count for _, _, count in indexed) == EVENTS.total()


@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_crash_at_any_step_leaves_each_event_once_and_indexed(
    engine: Settings, tmp_path: Path, answer_lost: bool
) -> None:
    crashed = 0
    for at in itertools.count(1):
        assert at < STEPS_MAX
        settings, blobs = own_place(engine, tmp_path)
        try:
            dying(settings, blobs, at, answer_lost=answer_lost).flush(0, -1, taken(BATCHES))
        except CrashError:
            crashed += 1
        else:
            break
        assert ObjectStore(settings, blobs).flush(0, -1, taken(BATCHES)) == Done(3)
        must_be_whole(settings, blobs)
    assert crashed >= 8


def test_a_successor_with_more_to_write_adopts_what_was_written(engine: Settings, tmp_path: Path) -> None:
    settings, blobs = own_place(engine, tmp_path)
    ObjectStore(settings, blobs).flush(0, -1, taken(BATCHES[:2]))  # and then it dies before its commit
    assert ObjectStore(settings, blobs).flush(0, -1, taken(BATCHES)) == Done(3)
    must_be_whole(settings, blobs)


def test_a_successor_with_less_must_read_on_to_where_the_winner_came(engine: Settings, tmp_path: Path) -> None:
    settings, blobs = own_place(engine, tmp_path)
    ObjectStore(settings, blobs).flush(0, -1, taken(BATCHES))
    successor = ObjectStore(settings, blobs)
    assert successor.flush(0, -1, taken(BATCHES[:1])) == NeedMore(3)
    assert successor.flush(0, -1, taken(BATCHES)) == Done(3)
    must_be_whole(settings, blobs)


def test_a_restart_goes_on_from_the_committed_mark(engine: Settings, tmp_path: Path) -> None:
    settings, blobs = own_place(engine, tmp_path)
    store = ObjectStore(settings, blobs)
    assert store.open(0, None) == -1
    store.flush(0, -1, taken(BATCHES[:2]))
    mark = ObjectStore(settings, blobs).open(0, Committed(clean_offset=2, mark=1))
    assert mark == 1
    assert ObjectStore(settings, blobs).flush(0, mark, taken(BATCHES[2:])) == Done(3)
    must_be_whole(settings, blobs)
