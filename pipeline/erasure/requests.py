"""What was asked to be erased and how far it is, in the warehouse's table `erasure_requests`: one row a revision."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
import pyarrow as pa

from pipeline.model.batches import is_id
from pipeline.storage.clickhouse import ClickHouse

Kind = Literal["session", "user"]
Status = Literal["accepted", "running", "done"]
_ASKED = pa.timestamp("ms", "UTC")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`subject` is the session's or the user's id; of a user only its SHA-256 once it is done. `waits_for` says in words
    what a running one waits for."""

    tenant: str
    id: str
    revision: int
    kind: Kind
    subject: str
    asked_by: str
    asked_at: int
    status: Status = "accepted"
    waits_for: str = ""
    certificate: str = ""
    """JSON; of one that runs the names of its sessions, so that the next eraser knows them all."""


_COLUMNS = tuple(field.name for field in msgspec.structs.fields(Request))
_SELECT = ", ".join("toUnixTimestamp64Milli(asked_at)" if name == "asked_at" else name for name in _COLUMNS)
_SCHEMA = pa.schema([(name, {"revision": pa.uint64(), "asked_at": _ASKED}.get(name, pa.string())) for name in _COLUMNS])


def fingerprint(key: str) -> str:
    """Which key it was, for those who have it."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()[:16]


def hashed(user_id: str) -> str:
    """What stays of a user's id."""
    return "sha256:" + hashlib.sha256(user_id.encode()).hexdigest()


class Requests:
    """Every method may raise RetryableError."""

    def __init__(self, warehouse: ClickHouse) -> None:
        self._warehouse = warehouse

    def ask(self, tenant: str, kind: Kind, subject: str, *, key: str, now_ms: int) -> Request:
        """A new request, or one for the same that is not begun yet: one that is has looked up a user's sessions already."""
        for each in self._find(
            "tenant = {tenant:String} AND kind = {kind:String} AND subject = {subject:String} AND status = 'accepted'",
            tenant=tenant,
            kind=kind,
            subject=subject,
        ):
            return each
        made = Request(
            tenant=tenant,
            id=f"er_{secrets.token_hex(12)}",
            revision=1,
            kind=kind,
            subject=subject,
            asked_by=fingerprint(key),
            asked_at=now_ms,
        )
        self.write(made)
        return made

    def get(self, tenant: str, request_id: str) -> Request | None:
        found = self._find("tenant = {tenant:String} AND id = {id:String}", tenant=tenant, id=request_id)
        return found[0] if found else None

    def under_way(self, limit: int) -> list[Request]:
        """Those not done, the oldest first."""
        return self._find("status != 'done'", limit=limit)

    def write(self, *requests: Request) -> None:
        """A later revision replaces an earlier one."""
        rows = [msgspec.structs.asdict(each) for each in requests]
        self._warehouse.insert("erasure_requests", pa.Table.from_pylist(rows, _SCHEMA))

    def forget_what_a_crash_left(self) -> None:
        """The same for all that are done, where anything is left of how they came about."""
        begun = (
            "status != 'done' AND (tenant, id) IN (SELECT tenant, id FROM {db}.erasure_requests WHERE status = 'done')"
        )
        if self._warehouse.value(f"SELECT count() FROM {{db}}.erasure_requests WHERE {begun}"):
            self._warehouse.command(f"ALTER TABLE {{db}}.erasure_requests DELETE WHERE {begun}")

    def forget_how_they_came_about(self, requests: Sequence[Request]) -> None:
        """Of requests that are done only the last revision stays: earlier ones name the user. By one mutation."""
        keys = sorted((each.tenant, each.id) for each in requests)
        assert all(is_id(each) for key in keys for each in key)
        these = ", ".join(f"('{tenant}', '{name}')" for tenant, name in keys)
        self._warehouse.command(
            f"ALTER TABLE {{db}}.erasure_requests DELETE WHERE (tenant, id) IN ({these}) AND status != 'done'"
        )

    def _find(self, where: str, *, limit: int = 1, **parameters: str) -> list[Request]:
        rows = self._warehouse.rows(
            f"SELECT {_SELECT} FROM {{db}}.erasure_requests FINAL WHERE {where} ORDER BY asked_at, id LIMIT {limit:d}",
            **parameters,
        )
        return [Request(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def iso(at_ms: int) -> str:
    """ms since 1970 → ISO 8601 UTC."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
