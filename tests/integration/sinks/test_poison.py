"""A record that a store cannot take becomes that sink's dead letter, all others go in, and it goes in by its retry."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.errors import MalformedError, RetryableError
from pipeline.model.batches import CleanBatch, DeadLetter
from pipeline.settings import Settings
from pipeline.sinks.objects import ObjectStore
from pipeline.sinks.retry import retry
from pipeline.sinks.terminal import dead_letters_group
from pipeline.storage.blobs import open_store
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics import clients, dead_letters
from pipeline.topics.catalogue import Topic, catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.dead_letters import Letter
from pipeline.topics.registry import schema_ids
from tests.e2e.accounts import Row, stored_lines
from tests.integration.sinks.running import sink
from tests.support import eventually
from tests.unit.sinks import clean

NOW = time.time_ns() // 1_000_000
LIMIT_S = 60.0
BATCHES = 9
NOBODY = "nobody"


def batch(offset: int, **more: Any) -> CleanBatch:
    """Two clicks of its own session, a minute apart."""
    return clean.clicks(offset, [NOW - 60_000, NOW], session_id=f"s{offset}", source_at=NOW, **more)


def broken(offset: int) -> CleanBatch:
    return clean.batch(offset, payload=b"{", event_count=2, session_id=f"s{offset}", source_at=NOW)


def send(settings: Settings, *batches: CleanBatch) -> None:
    topics = catalogue(settings)
    codec = Codecs(topics, schema_ids(settings)).clean
    producer = clients.producer(settings, client_id="test")
    for each in batches:
        producer.produce(topics.clean.name, codec.encode(each), each.session_id.encode(), 0)
    assert producer.flush(30) == 0


@pytest.fixture
def settings(with_both: Settings) -> Settings:
    own = dataclasses.replace(with_both, topic_partitions=1, topic_prefix=f"one-{with_both.topic_prefix}",
                              objects_flush_age_ms=200, warehouse_flush_age_ms=200)  # fmt: skip
    clients.apply(clients.admin(own), catalogue(own))
    return own


def rows_of(settings: Settings) -> Counter[int]:
    """Rows by source offset."""
    return Counter(
        dict(ClickHouse(settings).rows("SELECT source_offset, count() FROM {db}.events GROUP BY source_offset"))
    )


def lines_of(settings: Settings) -> Counter[int]:
    """Lines of the objects, and what the index says, by source offset (a session has one)."""
    lines: Counter[int] = Counter()
    for row, count in stored_lines(settings).items():
        lines[int(row.session_id[1:])] += count
    indexed = dict(ClickHouse(settings).rows("SELECT source_offset, sum(event_count) FROM {db}.blocks GROUP BY 1"))
    return lines if indexed == lines else Counter()


STORED = {"warehouse": rows_of, "objects": lines_of}


def minutes(settings: Settings) -> list[int]:
    return [n for (n,) in ClickHouse(settings).rows("SELECT sum(events) FROM {db}.minutes FINAL GROUP BY minute")]


def letters(settings: Settings) -> list[Letter]:
    return list(dead_letters.letters(settings))


def all_but(*offsets: int) -> Counter[int]:
    return Counter({offset: 2 for offset in range(BATCHES) if offset not in offsets})


def refuse_nobody(settings: Settings) -> None:
    ClickHouse(settings).command(f"ALTER TABLE {{db}}.events ADD CONSTRAINT known CHECK user_id != '{NOBODY}'")


@pytest.mark.parametrize("name", ["warehouse", "objects"])
def test_a_broken_payload_is_a_letter_with_its_coordinates_and_the_rest_is_stored(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    poison = broken(3)
    send(settings, *(poison if offset == 3 else batch(offset) for offset in range(BATCHES)))
    with sink(settings, name, tmp_path / "log"):
        eventually(lambda: STORED[name](settings) == all_but(3), within_s=LIMIT_S, why="all but one are stored")
    (found,) = letters(settings)
    dead = found.letter
    assert (dead.stage, dead.reason, dead.epoch, dead.event_count) == (name, "bad_payload", 1, 2)
    where = (dead.source_topic, dead.source_partition, dead.source_offset, dead.source_at)
    assert where == (catalogue(settings).clean.name, 0, 3, NOW)
    assert Codecs(catalogue(settings), schema_ids(settings)).clean.decode(dead.value) == poison
    with pytest.raises(MalformedError, match="offset 0 still cannot be stored"):
        retry(settings, [found])
    assert STORED[name](settings) == all_but(3)


def test_rows_that_the_warehouse_refuses_are_found_among_the_others_and_go_in_by_their_retry(
    settings: Settings, tmp_path: Path
) -> None:
    refuse_nobody(settings)
    send(settings, *(batch(offset, user_id=NOBODY if offset in {2, 7} else "u") for offset in range(BATCHES)))
    with sink(settings, "warehouse", tmp_path / "log"):
        eventually(lambda: len(letters(settings)) == 2 and rows_of(settings) == all_but(2, 7), within_s=LIMIT_S,
                   why="two letters, the rest in the table")  # fmt: skip
        claimed = "SELECT max(last) FROM {db}.claims WHERE state = 'done'"
        eventually(lambda: ClickHouse(settings).value(claimed) == BATCHES - 1, within_s=LIMIT_S, why="all is done")
    assert {(each.letter.reason, each.letter.source_offset) for each in letters(settings)} == {
        ("rejected_row", 2),
        ("rejected_row", 7),
    }
    assert "code 469" in letters(settings)[0].letter.detail
    assert minutes(settings) == [7, 7]

    ClickHouse(settings).command("ALTER TABLE {db}.events DROP CONSTRAINT known")
    for _ in range(2):  # a second retry finds everything there
        told = CliRunner().invoke(dead_letters_group, ["retry", "--all"], obj=settings)
        assert told.output == "2 letters are in the warehouse\n"
        assert rows_of(settings) == all_but()
        assert minutes(settings) == [9, 9]


def test_a_letter_of_the_object_sink_goes_into_an_object_of_its_own_once(settings: Settings, tmp_path: Path) -> None:
    missing = batch(3)
    send(settings, *(clean.batch(3) if offset == 3 else batch(offset) for offset in range(BATCHES)))
    with sink(settings, "objects", tmp_path / "log"):
        eventually(lambda: lines_of(settings) == all_but(3), within_s=LIMIT_S, why="all but one are stored")
    letter = Letter(0, dead("objects", missing, settings))
    for _ in range(2):
        assert retry(settings, [letter]) == Counter(objects=1)
        assert lines_of(settings) == all_but()
    assert Row("s3", "0", "w1", NOW, "click", json.dumps({"x": 1, "y": 3})) in stored_lines(settings)


def test_a_letter_waits_for_its_claim_and_an_erased_sessions_stays_out(settings: Settings) -> None:
    early = Letter(0, dead("warehouse", batch(3), settings))
    with pytest.raises(RetryableError, match="has not passed source offset 3"):
        retry(settings, [early])
    ClickHouse(settings).command(
        "INSERT INTO {db}.erasures (tenant, session_id, epoch, source_partition, source_offset) VALUES ('acme', 's3', 1, 0, 5)"
    )
    for stage in STORED:
        with pytest.raises(MalformedError, match="offset 0 was erased"):
            retry(settings, [Letter(0, dead(stage, batch(3), settings))])
    assert (rows_of(settings), lines_of(settings)) == (Counter(), Counter())


def test_an_erasure_that_comes_between_the_look_and_the_write_leaves_no_object(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = ObjectStore.retry

    def erased_meanwhile(store: ObjectStore, one: CleanBatch) -> None:
        ClickHouse(settings).command(
            "INSERT INTO {db}.erasures (tenant, session_id, epoch, source_partition, source_offset) VALUES ('acme', 's3', 1, 0, 5)"
        )
        stores(store, one)

    monkeypatch.setattr(ObjectStore, "retry", erased_meanwhile)
    with pytest.raises(MalformedError, match="was erased"):
        retry(settings, [Letter(0, dead("objects", batch(3), settings))])
    assert list(open_store(settings).keys("")) == []
    assert ClickHouse(settings).value("SELECT count() FROM {db}.blocks") == 0


def dead(stage: Any, missing: CleanBatch, settings: Settings) -> DeadLetter:
    value = Codecs(catalogue(settings), schema_ids(settings)).clean.encode(missing)
    return DeadLetter(stage=stage, reason="bad_payload", detail="", epoch=1, source_topic=catalogue(settings).clean.name,
                      source_partition=0, source_offset=3, source_at=NOW, event_count=2, key=b"k", value=value)  # fmt: skip


def limit(settings: Settings, topic: Topic, bytes_max: int) -> None:
    small = dataclasses.replace(topic, config={**topic.config, "max.message.bytes": str(bytes_max)})
    names = {field: getattr(catalogue(settings), field) for field in ("batches", "clean", "sessions", "state")}
    clients.apply(clients.admin(settings), dataclasses.replace(catalogue(settings), **names, dead_letters=small))


def test_a_letter_that_cannot_be_written_ends_the_sink_and_nothing_is_skipped(
    settings: Settings, tmp_path: Path
) -> None:
    limit(settings, catalogue(settings).dead_letters, 10)
    send(settings, broken(0), batch(1))
    with sink(settings, "warehouse", tmp_path / "log") as running:
        assert running.wait(LIMIT_S) == 1
    assert "not be written to" in (tmp_path / "log").read_text()
    assert rows_of(settings) == Counter()
    limit(settings, catalogue(settings).dead_letters, settings.clean_bytes_max)
    with sink(settings, "warehouse", tmp_path / "log"):
        eventually(lambda: rows_of(settings) == Counter({1: 2}), within_s=LIMIT_S, why="the sound one is stored")
    assert [each.letter.source_offset for each in letters(settings)] == [0]


def test_more_poison_in_a_row_than_the_setting_allows_ends_the_sink(settings: Settings, tmp_path: Path) -> None:
    strict = dataclasses.replace(settings, dead_letters_in_a_row_max=2)
    send(strict, *(broken(offset) for offset in range(3)))
    with sink(strict, "warehouse", tmp_path / "log") as running:
        assert running.wait(LIMIT_S) == 1
    assert "more than 2 records in a row" in (tmp_path / "log").read_text()
    assert letters(strict) == []
