"""What is asked of the warehouse most: milliseconds and rows read, against reading all rows of `events` once.

The rows are those of the bundled recordings, a session a copy, their beginnings spread over a week. Sessions and minutes are
made of them by SQL, which is not how the sink makes them, but as many and of the same shape. An error happened on the page
whose address its window told last.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import clickhouse_connect

from pipeline.settings import Settings
from pipeline.sinks.rows import event_rows
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.migrate import migrate
from tests.bench.rows import clean_blocks, engine, tell_size

COPIES = 1_400
ROWS_A_BLOCK = 100_000
ROUNDS = 15
BASELINE = "all rows of events, their data"
EVENTS = "tenant = {tenant:String}"
FILL = (
    "INSERT INTO {db}.events SELECT * REPLACE (ts - toIntervalSecond(cityHash64(session_id) % 604800) AS ts) FROM {db}.fresh",
    "INSERT INTO {db}.minutes (tenant, minute, type, source, epoch, source_partition, first, events, expires_at) "
    "SELECT tenant, toStartOfMinute(ts) AS minute, type, source, epoch, source_partition, intDiv(source_offset, 1000), "
    "count(), max(expires_at) FROM {db}.events GROUP BY 1, 2, 3, 4, 5, 6, 7",
    "INSERT INTO {db}.sessions (tenant, session_id, part, revision, user_id, started_at, ended_at, events, expires_at) "
    "SELECT tenant, session_id, part, 1, any(user_id), min(ts), max(ts), count(), max(expires_at) FROM {db}.events "
    "GROUP BY 1, 2, 3",
    "INSERT INTO {db}.session_users (tenant, user_id, session_id, revision, expires_at) "
    "SELECT tenant, user_id, session_id, revision, expires_at FROM {db}.sessions",
)
QUERIES = {
    BASELINE: f"SELECT count(), sum(length(data)) FROM events WHERE {EVENTS}",
    "one session in order": f"SELECT ts, type, data FROM events WHERE {EVENTS} AND session_id = {{session:String}} "
    "ORDER BY epoch, seq",
    "sessions of a user in the last day": "SELECT session_id, part, started_at, ended_at, events FROM sessions FINAL "
    "WHERE tenant = {tenant:String} AND session_id IN (SELECT session_id FROM session_users WHERE tenant = {tenant:String} "
    "AND user_id = {user:String}) AND started_at >= now() - INTERVAL 1 DAY ORDER BY started_at DESC",
    "errors by URL": "SELECT p.url, e.message, count() FROM (SELECT session_id, window_id, epoch, seq, message FROM events "
    f"WHERE {EVENTS} AND type IN ('error', 'promise_error')) AS e ASOF LEFT JOIN "
    f"(SELECT session_id, window_id, epoch, seq, url FROM events WHERE {EVENTS} AND url != '') AS p "
    "ON e.session_id = p.session_id AND e.window_id = p.window_id AND e.epoch = p.epoch AND e.seq >= p.seq "
    "GROUP BY p.url, e.message ORDER BY 3 DESC LIMIT 100",
    "events by type per minute (minutes)": "SELECT minute, type, sum(events) FROM minutes FINAL "
    "WHERE tenant = {tenant:String} GROUP BY minute, type ORDER BY minute, type",
    "the same from events": f"SELECT toStartOfMinute(ts) AS minute, type, count() FROM events WHERE {EVENTS} "
    "GROUP BY minute, type ORDER BY minute, type",
}


@dataclass(frozen=True)
class Asked:
    """One query's rounds."""

    ms: list[float]
    rows_read: int
    rows: int


def main() -> None:
    with engine() as settings:
        migrate(settings)
        warehouse = ClickHouse(settings)
        _fill(warehouse)
        tell_size(warehouse)
        tenant, session, user = warehouse.rows(
            "SELECT tenant, session_id, user_id FROM {db}.sessions WHERE started_at >= now() - INTERVAL 1 DAY "
            "ORDER BY events DESC LIMIT 1"
        )[0]
        tell(_ask(settings, {"tenant": tenant, "session": session, "user": user}))


def _fill(warehouse: ClickHouse) -> None:
    warehouse.command("CREATE TABLE {db}.fresh ENGINE = Memory EMPTY AS SELECT * FROM {db}.events")
    for block in clean_blocks(copies=COPIES, rows_a_block=ROWS_A_BLOCK):
        warehouse.insert("fresh", event_rows(block))
    for sql in FILL:
        warehouse.command(sql)
    warehouse.command("DROP TABLE {db}.fresh")


def _ask(settings: Settings, parameters: dict[str, Any]) -> dict[str, Asked]:
    client = clickhouse_connect.get_client(
        dsn=settings.warehouse, database=settings.warehouse_database, autogenerate_session_id=False
    )
    found: dict[str, Asked] = {}
    for _ in range(ROUNDS):
        for name, sql in QUERIES.items():
            began = time.perf_counter()
            answer = client.query(sql, parameters=parameters)
            ms = (time.perf_counter() - began) * 1000
            before = found.get(name, Asked([], 0, 0)).ms
            found[name] = Asked([*before, ms], int(answer.summary["read_rows"]), answer.row_count)
    client.close()
    return found


def tell(found: dict[str, Asked]) -> None:
    whole = found[BASELINE]
    for name, asked in found.items():
        ratios = [mine / base for mine, base in zip(asked.ms, whole.ms, strict=True)]
        ratio = "baseline" if name == BASELINE else f"ratio {statistics.median(ratios):.2f}"
        print(
            f"{name:<37} {statistics.median(asked.ms):>7.1f} ms ({min(asked.ms):.1f}-{max(asked.ms):.1f})  "
            f"{asked.rows_read:>9,} rows read, {asked.rows:>6,} answered  {ratio}",
            flush=True,
        )
