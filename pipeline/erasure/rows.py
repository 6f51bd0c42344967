"""Rows of sessions in the warehouse: counted, deleted by mutations, and waited for until their bytes are gone.

A mutation writes parts anew without the rows; the parts that it replaced stay on disk for `old_parts_lifetime`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from pipeline.erasure.blocks import Session
from pipeline.errors import RetryableError
from pipeline.model.batches import is_id
from pipeline.storage.clickhouse import ClickHouse

CONTENT = ("events", "sessions")
"""Tables whose rows go first; of `sessions` all but what says that the session is erased."""

FINDERS = ("blocks", "session_users", "pins")
"""By these a session's bytes and a user's sessions are found: they go last, or a crash would leave what nobody finds."""

_TOLD = " AND NOT (close_reason = 'erased')"


class Rows:
    """Every method may raise RetryableError, after which it is made again."""

    def __init__(self, warehouse: ClickHouse) -> None:
        self._warehouse = warehouse

    def count(self, table: str, sessions: Collection[Session]) -> Counter[Session]:
        """Rows of each session, those that a later one replaces among them."""
        found = self._warehouse.rows(
            f"SELECT tenant, session_id, count() FROM {{db}}.{table} WHERE {are(sessions)}{_of(table)} GROUP BY 1, 2"
        )
        return Counter({(tenant, session_id): count for tenant, session_id, count in found})

    def sessions_of(self, tenant: str, user_id: str) -> list[Session]:
        """All that the user was ever seen in."""
        found = self._warehouse.rows(
            "SELECT DISTINCT session_id FROM {db}.session_users WHERE tenant = {tenant:String} AND user_id = {user:String} "
            "ORDER BY session_id",
            tenant=tenant,
            user=user_id,
        )
        return [(tenant, session_id) for (session_id,) in found]

    def objects(self, sessions: Collection[Session]) -> dict[str, bool]:
        """Keys of the objects that hold blocks of these sessions, and whether their class must have them still."""
        found = self._warehouse.rows(
            f"SELECT object, max(expires_at) > now() FROM {{db}}.blocks WHERE {are(sessions)} GROUP BY object ORDER BY object"
        )
        return {key: bool(lives) for key, lives in found}

    def places(self, sessions: Collection[Session], *, but_epoch: int) -> list[tuple[str, str, int, int, int]]:
        """(tenant, session, epoch, source partition, last source offset) of what is stored under other epochs."""
        found = []
        for table, last in (("events", "source_offset"), ("blocks", "source_last_offset")):
            found += self._warehouse.rows(
                f"SELECT tenant, session_id, epoch, source_partition, max({last}) FROM {{db}}.{table} "
                f"WHERE {are(sessions)} AND epoch != {but_epoch:d} GROUP BY 1, 2, 3, 4"
            )
        return [(row[0], row[1], row[2], row[3], row[4]) for row in found]

    def in_object(self, key: str, sessions: Collection[Session]) -> list[Session]:
        """Those of the sessions that have blocks in this object."""
        found = self._warehouse.rows(
            f"SELECT DISTINCT tenant, session_id FROM {{db}}.blocks WHERE {are(sessions)} AND object = {{object:String}}",
            object=key,
        )
        return [(tenant, session_id) for tenant, session_id in found]

    def delete(self, table: str, sessions: Collection[Session]) -> None:
        """Begins a mutation; `unfinished` says how it goes."""
        self._warehouse.command(f"ALTER TABLE {{db}}.{table} DELETE WHERE {are(sessions)}{_of(table)}")

    def unfinished(self, tables: Collection[str]) -> str:
        """What mutations of these tables wait for: in words, or nothing when all are done."""
        found = self._warehouse.rows(
            "SELECT table, parts_to_do, latest_fail_reason != '' FROM system.mutations WHERE database = {db_:String} "
            "AND NOT is_done AND NOT is_killed AND table IN {tables:Array(String)} LIMIT 1",
            db_=self._warehouse.database,
            tables=list(tables),
        )
        if not found:
            return ""
        table, parts, failed = found[0]
        why = ", and the last try failed: see system.mutations" if failed else ""
        return f"the warehouse rewrites {table}: {parts} parts to go{why}"

    def old_parts(self, tables: Collection[str]) -> frozenset[str]:
        """Parts that were replaced and are still on disk."""
        found = self._warehouse.rows(
            "SELECT table, name FROM system.parts WHERE database = {db_:String} AND NOT active "
            "AND table IN {tables:Array(String)}",
            db_=self._warehouse.database,
            tables=list(tables),
        )
        return frozenset(f"{table}/{name}" for table, name in found)

    def inserts_before(self, elapsed_s: float) -> int:
        """Inserts that began longer ago than that and still run: such a one may not have seen what forbids it."""
        count: int = self._warehouse.value(
            "SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND elapsed > {elapsed:Float64}",
            elapsed=elapsed_s,
        )
        return count


def are(sessions: Collection[Session]) -> str:
    """SQL for "is one of these"; ids have no character that SQL knows, and a mutation takes no parameters."""
    if not sessions:
        return "0"
    for tenant, session_id in sessions:
        if not is_id(tenant) or not is_id(session_id):
            raise RetryableError("a session's id has characters that none has")
    return "(tenant, session_id) IN (" + ", ".join(f"('{tenant}', '{name}')" for tenant, name in sorted(sessions)) + ")"


def _of(table: str) -> str:
    return _TOLD if table == "sessions" else ""
