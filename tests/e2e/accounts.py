"""What the stores must hold, by a reference run over the raw log, and what they do hold, read as an outsider would."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard

from pipeline.load.arrivals import read_topic
from pipeline.model.batches import CleanBatch, SessionUpdate
from pipeline.settings import Settings
from pipeline.storage.blobs import open_store
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids
from pipeline.workers.reference import RawRecord, reference_run
from pipeline.workers.rules import rules
from tests.support import eventually

ARRIVAL_LIMIT_S = 120.0
SEQ_PER_OFFSET = 1 << 20
SESSION_COLUMNS = ("part", "revision", "status", "close_reason", "user_id", "events", "clicks", "inputs", "scrolls",
                   "mouse_moves", "navigations", "errors", "throttled", "redacted", "late", "urls")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One event, as both stores must tell it; `data` is compared as JSON."""

    session_id: str
    part: str
    window_id: str
    at_ms: int
    type: str
    data: str


@dataclass(frozen=True)
class Reference:
    """What one uninterrupted single-threaded run of the chain over the raw log gives."""

    clean: dict[tuple[int, int], CleanBatch]
    rows: dict[tuple[int, int], Row]
    """By (source partition, seq)."""
    sessions: dict[tuple[str, str], SessionUpdate]


def reference(settings: Settings) -> Reference:
    topics = catalogue(settings)
    codec = Codecs(topics, schema_ids(settings)).batches
    records = [
        RawRecord(m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value())
        for m in read_topic(settings, topics.batches)
    ]
    records.sort(key=lambda record: (record.partition, record.offset))
    found = Reference({}, {}, {})
    for outcome in reference_run(records, codec, rules(settings)):
        clean = outcome.clean
        found.clean[clean.source_partition, clean.source_offset] = clean
        found.rows.update(_rows_of(clean))
        for update in outcome.sessions:
            found.sessions[update.session_id, update.part] = update
    return found


def _rows_of(clean: CleanBatch) -> dict[tuple[int, int], Row]:
    starts = [(0, clean.part), *((start.index, start.part) for start in clean.next_parts)]
    rows = {}
    for index, line in enumerate(clean.payload.split(b"\n") if clean.payload else []):
        event = json.loads(line)
        part = [part for begins, part in starts if begins <= index][-1]
        rows[clean.source_partition, clean.source_offset * SEQ_PER_OFFSET + index] = Row(
            clean.session_id, part, clean.window_id, event["timestamp"], str(event["type"]), _same(event["data"])
        )
    return rows


def clean_log(settings: Settings) -> dict[tuple[int, int], CleanBatch]:
    """replay.clean by its reading rule; a repeat must be the same, byte for byte."""
    topics = catalogue(settings)
    codec = Codecs(topics, schema_ids(settings)).clean
    found: dict[tuple[int, int], CleanBatch] = {}
    for message in read_topic(settings, topics.clean):
        batch = codec.decode(message.value())
        known = found.setdefault((message.partition(), batch.source_offset), batch)
        assert known == batch, f"partition {message.partition()} source offset {batch.source_offset} has two contents"
    return found


def stored_rows(settings: Settings) -> list[tuple[tuple[int, int], Row]]:
    return [
        ((partition, seq), Row(session, part, window, at_ms, kind, _same(json.loads(data))))
        for partition, seq, session, part, window, at_ms, kind, data in ClickHouse(settings).rows(
            "SELECT source_partition, seq, session_id, part, window_id, toUnixTimestamp64Milli(ts), type, data FROM {db}.events"
        )
    ]


def stored_lines(settings: Settings) -> Counter[Row]:
    """Every line of every object."""
    store = open_store(settings)
    lines: Counter[Row] = Counter()
    for key in store.keys("replays/"):
        if key.endswith(".jsonl.zst"):
            body, _ = store.get(key)
            text = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
            for line in text.splitlines():
                event = json.loads(line)
                lines[
                    Row(event["session_id"], event["part"], event["window_id"], event["timestamp"], str(event["type"]),
                        _same(event["data"]))
                ] += 1  # fmt: skip
    return lines


def stored_sessions(settings: Settings) -> dict[tuple[str, str], tuple[Any, ...]]:
    return {
        (row[0], row[1]): tuple(row[1:])
        for row in ClickHouse(settings).rows(
            f"SELECT session_id, {', '.join(SESSION_COLUMNS)} FROM {{db}}.sessions FINAL"
        )
    }


def told(update: SessionUpdate) -> tuple[Any, ...]:
    """An update in the shape of `stored_sessions`."""
    fields = msgspec.structs.asdict(update)
    fields["close_reason"] = fields["close_reason"] or ""
    fields["urls"] = list(fields["urls"])
    return tuple(fields[name] for name in SESSION_COLUMNS)


def minutes(settings: Settings) -> Counter[tuple[int, str]]:
    found = ClickHouse(settings).rows(
        "SELECT toUnixTimestamp(minute), type, sum(events) FROM {db}.minutes FINAL GROUP BY 1, 2"
    )
    return Counter({(minute, kind): count for minute, kind, count in found})


def refused(settings: Settings, stage: str) -> dict[tuple[int, int], int]:
    """(source partition, source offset) → events of what a sink's store could not take, by its dead letters; a crash may
    have written one twice."""
    topics = catalogue(settings)
    codecs = Codecs(topics, schema_ids(settings))
    found = {}
    for message in read_topic(settings, topics.dead_letters):
        letter = codecs.dead_letters.decode(message.value())
        if letter.stage == stage:
            clean = codecs.clean.decode(letter.value)
            found[clean.source_partition, clean.source_offset] = letter.event_count
    return found


def without(rows: dict[tuple[int, int], Row], gone: dict[tuple[int, int], int]) -> dict[tuple[int, int], Row]:
    """Rows by (source partition, seq), without those of these batches."""
    return {
        (partition, seq): row
        for (partition, seq), row in rows.items()
        if (partition, seq // SEQ_PER_OFFSET) not in gone
    }


def arrived(settings: Settings) -> None:
    """Waits until every accepted batch went through the worker and both sinks, by the counts alone."""
    topics = catalogue(settings)
    raw = sum(1 for _ in read_topic(settings, topics.batches))
    eventually(lambda: len(clean_log(settings)) >= raw, within_s=ARRIVAL_LIMIT_S, why="a clean record for each batch")
    events = sum(batch.event_count for batch in clean_log(settings).values())
    warehouse = ClickHouse(settings)
    eventually(
        lambda: (
            warehouse.value("SELECT count() FROM {db}.events") + sum(refused(settings, "warehouse").values()) >= events
        ),
        within_s=ARRIVAL_LIMIT_S,
        why=f"{events} events in events",
    )
    objects_arrived(settings, events - sum(refused(settings, "objects").values()))
    parts = len(reference(settings).sessions)
    eventually(
        lambda: warehouse.value("SELECT count() FROM {db}.sessions FINAL") >= parts,
        within_s=ARRIVAL_LIMIT_S,
        why=f"{parts} session parts",
    )


def objects_arrived(settings: Settings, events: int) -> None:
    """Waits until so many events are indexed."""
    warehouse = ClickHouse(settings)
    eventually(
        lambda: warehouse.value("SELECT sum(event_count) FROM {db}.blocks") >= events,
        within_s=ARRIVAL_LIMIT_S,
        why=f"{events} events in the blocks of {settings.warehouse_database}",
    )


def objects_must_hold(settings: Settings, rows: Counter[Row]) -> None:
    """Lines and index of an object store: those rows, each once."""
    assert stored_lines(settings) == rows
    assert ClickHouse(settings).value("SELECT sum(event_count) FROM {db}.blocks") == rows.total()


def must_equal_the_reference(settings: Settings, *, accepted: set[tuple[str, str]]) -> Reference:
    """Every accepted batch is in the raw log, and all that is stored is what one uninterrupted run over it gives:
    that is returned."""
    wanted = reference(settings)
    lost = accepted - {(clean.session_id, clean.batch_id) for clean in wanted.clean.values()}
    assert lost == set()
    assert clean_log(settings) == wanted.clean

    rows = stored_rows(settings)
    twice = [where for where, n in Counter(where for where, _ in rows).items() if n > 1]
    assert twice == []
    in_warehouse = without(wanted.rows, refused(settings, "warehouse"))
    assert dict(rows) == in_warehouse

    objects_must_hold(settings, Counter(without(wanted.rows, refused(settings, "objects")).values()))

    assert stored_sessions(settings) == {key: told(update) for key, update in wanted.sessions.items()}
    by_minute = Counter((row.at_ms // 60_000 * 60, row.type) for row in in_warehouse.values())
    assert minutes(settings) == by_minute

    for clean in wanted.clean.values():
        counted = clean.event_count + clean.throttled + clean.repeated + clean.erased + clean.dead_lettered
        assert clean.received_events == counted
    return wanted


def _same(data: Any) -> str:
    return json.dumps(data, sort_keys=True)
