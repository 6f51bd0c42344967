"""What the stores must hold, told from the drawn truth alone, against what they do hold, read as an outsider would."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import zstandard

from pipeline.model.batches import CleanBatch, SessionUpdate
from pipeline.settings import Settings
from pipeline.storage.blobs import BlobStore, open_store
from pipeline.storage.clickhouse import ClickHouse
from tests.chaos.sinks.log import Log

SEQ_PER_OFFSET = 1 << 20
_KEY = re.compile(r"replays/v1/retention=(\w+)/date=[\d-]+/hour=\d\d/.+-1-(\d+)-(\d+)\.jsonl\.zst")

Place = tuple[int, int, int]
"""(source partition, source offset, index): an event's identity."""


def events_of(batch: CleanBatch) -> Iterator[tuple[Place, tuple[Any, ...]]]:
    """Identity → what both stores must tell of the event."""
    starts = [(0, batch.part), *((start.index, start.part) for start in batch.next_parts)]
    for index, line in enumerate(batch.payload.split(b"\n") if batch.payload else []):
        event = json.loads(line)
        part = [part for begins, part in starts if begins <= index][-1]
        told = (batch.tenant, batch.session_id, part, batch.window_id, event["timestamp"], event["type"])
        yield (batch.source_partition, batch.source_offset, index), (*told, event["data"])


def expected_events(logs: Sequence[Log]) -> dict[Place, tuple[Any, ...]]:
    return dict(pair for log in logs for batch in log.truth for pair in events_of(batch))


def last_revisions(logs: Sequence[Log]) -> dict[tuple[str, str, str], SessionUpdate]:
    updates = sorted((update for log in logs for update in log.updates), key=lambda update: update.revision)
    return {(update.tenant, update.session_id, update.part): update for update in updates}


def last_revision_of_users(logs: Sequence[Log]) -> dict[tuple[str, str, str], int]:
    updates = sorted((update for log in logs for update in log.updates), key=lambda update: update.revision)
    return {
        (update.tenant, update.session_id, update.user_id): update.revision
        for update in updates
        if update.user_id != "anonymous"
    }


def lacks(warehouse: ClickHouse, logs: Sequence[Log]) -> str:
    """What has not arrived yet; empty when all has: every offset is done, every event indexed, every last revision there."""
    done = dict(warehouse.rows("SELECT source_partition, max(last) FROM {db}.claims WHERE state = 'done' GROUP BY 1"))
    wanted = {number: log.truth[-1].source_last_offset for number, log in enumerate(logs)}
    if done != wanted:
        return f"source offsets done: {done} of {wanted}"
    events = len(expected_events(logs))
    indexed = warehouse.value("SELECT sum(event_count) FROM {db}.blocks")
    if indexed < events:
        return f"{indexed} of {events} events are indexed"
    known, users = stored_revisions(warehouse)
    if known != {key: update.revision for key, update in last_revisions(logs).items()}:
        return "last revisions of sessions"
    return "" if users == last_revision_of_users(logs) else "users of sessions"


def stored_revisions(warehouse: ClickHouse) -> tuple[dict[Any, int], dict[Any, int]]:
    sessions = warehouse.rows("SELECT tenant, session_id, part, revision FROM {db}.sessions FINAL")
    users = warehouse.rows("SELECT tenant, session_id, user_id, revision FROM {db}.session_users FINAL")
    return {row[:3]: row[3] for row in sessions}, {row[:3]: row[3] for row in users}


def must_be_exact(settings: Settings, logs: Sequence[Log]) -> None:
    """Raises AssertionError at the first thing that is missing, twice, or another."""
    warehouse = ClickHouse(settings)
    try:
        _rows_are_exact(warehouse, logs)
        _objects_are_exact(warehouse, open_store(settings), logs)
    finally:
        warehouse.close()


def _rows_are_exact(warehouse: ClickHouse, logs: Sequence[Log]) -> None:
    expected = expected_events(logs)
    count, doubled = warehouse.rows(
        "SELECT count(), count() - uniqExact(epoch, source_partition, source_offset, event_index) FROM {db}.events"
    )[0]
    assert (count, doubled) == (len(expected), 0), f"{count} of {len(expected)} events, {doubled} of them twice"
    rows = warehouse.rows(
        "SELECT source_partition, source_offset, event_index, tenant, session_id, part, window_id, "
        "toUnixTimestamp64Milli(ts), type, data, seq FROM {db}.events"
    )
    assert {row[:3]: (*row[3:9], json.loads(row[9])) for row in rows} == expected
    assert all(row[10] == row[1] * SEQ_PER_OFFSET + row[2] for row in rows)

    minutes = warehouse.rows("SELECT toUnixTimestamp(minute), type, sum(events) FROM {db}.minutes FINAL GROUP BY 1, 2")
    by_minute = Counter((at // 60_000 * 60, kind) for _, _, _, _, at, kind, _ in expected.values())
    assert {row[:2]: row[2] for row in minutes} == by_minute

    for number, log in enumerate(logs):
        claims = warehouse.rows(
            "SELECT first, last, groupArray(toString(state)) FROM (SELECT * FROM {db}.claims "
            "WHERE source_partition = {partition:UInt32} ORDER BY state) GROUP BY 1, 2 ORDER BY 1",
            partition=number,
        )
        firsts, lasts = [claim[0] for claim in claims], [claim[1] for claim in claims]
        assert firsts == [0, *(last + 1 for last in lasts[:-1])], "the claims are no chain"
        assert lasts[-1] == log.truth[-1].source_last_offset
        assert all(states == ["claim", "done"] for _, _, states in claims)

    known, users = stored_revisions(warehouse)
    last = last_revisions(logs)
    assert known == {key: update.revision for key, update in last.items()}
    assert users == last_revision_of_users(logs)
    told = warehouse.rows("SELECT tenant, session_id, part, events, user_id, urls FROM {db}.sessions FINAL")
    assert {row[:3]: (row[3], row[4], tuple(row[5])) for row in told} == {
        key: (update.events, update.user_id, update.urls) for key, update in last.items()
    }


def _objects_are_exact(warehouse: ClickHouse, blobs: BlobStore, logs: Sequence[Log]) -> None:
    """Every source offset with events lies whole in exactly one object of its class, and in exactly one row of the index."""
    expected = expected_events(logs)
    retention = {(batch.source_partition, batch.source_offset): batch.retention for log in logs for batch in log.truth}
    bodies = {key: blobs.get(key)[0] for key in blobs.keys("replays/") if key.endswith(".jsonl.zst")}
    found: dict[Place, str] = {}
    for key, body in bodies.items():
        named = _KEY.fullmatch(key)
        assert named is not None, f"an object by another name: {key}"
        lines = _lines(body)
        for place, told in lines:
            assert found.setdefault(place, key) == key, f"{place} lies in {found[place]} and in {key}"
            assert told == expected[place]
            assert retention[place[:2]] == named[1]
        assert Counter(place for place, _ in lines).most_common(1)[0][1] == 1, f"an event is twice in {key}"
        assert min(place[:2] for place, _ in lines) == (int(named[2]), int(named[3]))
    assert found.keys() == expected.keys()
    objects_of: dict[tuple[int, int], set[str]] = {}
    for (partition, offset, _), key in found.items():
        objects_of.setdefault((partition, offset), set()).add(key)
    assert all(len(keys) == 1 for keys in objects_of.values())

    index = warehouse.rows("SELECT object, n, byte_start, byte_length, event_count FROM {db}.blocks")
    indexed = Counter(place for row in index for place, _ in _lines(bodies[row[0]][row[2] : row[2] + row[3]]))
    assert indexed == Counter(expected.keys())
    assert sum(row[4] for row in index) == len(expected)
    manifests = [json.loads(blobs.get(key)[0]) for key in blobs.keys("replays/") if key.endswith(".manifest.json")]
    listed = [
        (each["object"], block["n"], block["byte_start"], block["byte_length"], block["event_count"])
        for each in manifests
        for block in each["blocks"]
    ]
    assert sorted(listed) == sorted(index), "manifests and index differ"


def _lines(frames: bytes) -> list[tuple[Place, tuple[Any, ...]]]:
    text = zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True).read()
    events = [json.loads(line) for line in text.splitlines()]
    return [
        (
            tuple(each["data"]["at"]),
            (
                *(each[name] for name in ("tenant", "session_id", "part", "window_id", "timestamp", "type")),
                each["data"],
            ),
        )
        for each in events
    ]
