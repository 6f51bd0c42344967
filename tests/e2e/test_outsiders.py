"""Clients that were not written here read everything that is stored: that is the point of the formats."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import clickhouse_connect
import fastavro
import pytest
from confluent_kafka import Consumer

from pipeline.local.stack import Stack
from pipeline.settings import Settings
from tests.e2e import accounts
from tests.support import eventually, need

SCHEMAS = Path(__file__).parents[2] / "schemas"


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    return stack.settings


@pytest.fixture(scope="module")
def wanted(settings: Settings) -> accounts.Reference:
    return accounts.reference(settings)


def test_clickhouse_connect_queries_the_rows(settings: Settings, wanted: accounts.Reference) -> None:
    client = clickhouse_connect.get_client(host="127.0.0.1", port=settings.warehouse_port)
    found = client.query("SELECT type, count() FROM replay.events GROUP BY type").result_rows
    assert dict(found) == Counter(row.type for row in wanted.rows.values())
    table = client.query_arrow("SELECT session_id, ts, data FROM replay.events ORDER BY session_id, seq")
    assert table.num_rows == len(wanted.rows)


def test_zstd_and_jq_read_an_object(settings: Settings, wanted: accounts.Reference) -> None:
    for tool in ("zstd", "jq"):
        need(shutil.which(tool), f"the command {tool}")
    objects = sorted((settings.home / "objects").rglob("*.jsonl.zst"))
    script = 'zstd -dc "$@" | jq -c "[.session_id, .part, .window_id, .timestamp, .type, .data]"'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}", "-", *objects], capture_output=True, text=True, check=True
    )
    lines = Counter(
        accounts.Row(session, part, window, at, str(kind), json.dumps(data, sort_keys=True))
        for session, part, window, at, kind, data in map(json.loads, done.stdout.splitlines())
    )
    assert lines == Counter(wanted.rows.values())


def test_the_engine_reads_the_objects_in_place(settings: Settings, wanted: accounts.Reference) -> None:
    pattern = settings.home / "objects/replays/v1/retention=30d/date=*/hour=*/*.jsonl.zst"
    done = subprocess.run(
        [sys.executable, "-c", f"import chdb; print(chdb.query(\"SELECT count(), uniqExact(session_id) FROM "
         f"file('{pattern}', 'JSONEachRow')\"))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    sessions = {row.session_id for row in wanted.rows.values()}
    assert done.stdout.strip() == f"{len(wanted.rows)},{len(sessions)}"


def test_a_plain_consumer_with_the_published_schema_reads_the_clean_topic(
    settings: Settings, wanted: accounts.Reference
) -> None:
    schema = fastavro.parse_schema(json.loads((SCHEMAS / "clean_batch.avsc").read_text()))
    pinned = json.loads((SCHEMAS / "ids.json").read_text())["clean-value"]
    consumer = Consumer(
        {
            "bootstrap.servers": f"127.0.0.1:{settings.kafka_port}",
            "group.id": "outsider",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["replay.clean"])
    found = {}

    def read() -> bool:
        for message in consumer.consume(500, 0.5):
            assert message.error() is None
            magic, schema_id = struct.unpack_from(">bI", message.value())
            assert (magic, schema_id) == (0, pinned)
            record = fastavro.schemaless_reader(io.BytesIO(message.value()[5:]), schema, None)
            assert message.key() is None or message.key().decode().startswith("default:")
            found[message.partition(), record["source_offset"]] = record
        return len(found) == len(wanted.clean)

    try:
        eventually(read, within_s=30, why="every clean record is read")
    finally:
        consumer.close()
    for where, record in found.items():
        assert record["payload"] == wanted.clean[where].payload
        assert record["session_id"] == wanted.clean[where].session_id


def test_kcat_reads_the_clean_topic(settings: Settings, wanted: accounts.Reference) -> None:
    need(shutil.which("kcat"), "the command kcat")
    done = subprocess.run(
        ["kcat", "-b", f"127.0.0.1:{settings.kafka_port}", "-t", "replay.clean", "-C", "-e", "-q", "-f", "%p %o %S\n"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert len(done.stdout.splitlines()) == len(wanted.clean)
