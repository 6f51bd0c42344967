"""Sessions as the API tells them, and the SQL behind. One row of the table is one part; an id may name one part: `{id}~2`."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from pipeline.errors import MalformedError
from pipeline.model.batches import is_id
from pipeline.storage.clickhouse import ClickHouse

LIMIT_MAX = 1_000
LIMIT_DEFAULT = 100
FIRST_PART = "1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = re.compile(r"[0-9]{1,15}")

_COLUMNS = (
    "session_id", "part", "status", "close_reason", "source", "user_id", "started_at", "ended_at", "duration_ms",
    "active_ms", "events", "clicks", "rage_clicks", "dead_clicks", "inputs", "scrolls", "mouse_moves",
    "navigations", "console_errors", "errors", "throttled", "redacted", "late", "clock_correction_ms", "first_url", "last_url", "urls", "user_agent", "viewport_width",
    "viewport_height", "retention", "revision",
)  # fmt: skip
_SUMMED = ("duration_ms", "active_ms", "events", "clicks", "rage_clicks", "dead_clicks", "inputs", "scrolls",
           "mouse_moves", "navigations", "console_errors", "errors", "throttled", "redacted", "late")  # fmt: skip


@dataclass(frozen=True)
class SessionId:
    """What a path's `{id}` names: all parts of a session, or one."""

    session_id: str
    part: str | None


def parse_id(text: str) -> SessionId:
    session_id, tilde, part = text.partition("~")
    if not is_id(session_id) or (tilde and not is_id(part)):
        raise MalformedError("a session id, or <id>~<part>, is wanted", path="id")
    return SessionId(session_id, part or None)


@dataclass(frozen=True)
class Filter:
    """Which sessions a list shows; times are ms since 1970, on the part's start, from ≤ start < to."""

    user_id: str | None = None
    status: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None


_NOT_ERASED = "close_reason != 'erased'"
"""What says that a session is erased is for the stores, not for readers."""


def list_sessions(warehouse: ClickHouse, tenant: str, wanted: Filter) -> dict[str, Any]:
    """Parts by start, newest first: `{"sessions": […], "next_cursor": …}`; the cursor is null at the end."""
    conditions, parameters = ["tenant = {tenant:String}", _NOT_ERASED], {"tenant": tenant, "limit": wanted.limit + 1}
    if wanted.user_id is not None:
        conditions.append(
            "session_id IN (SELECT session_id FROM {db}.session_users WHERE tenant = {tenant:String} AND user_id = {user:String})"
        )
        parameters["user"] = wanted.user_id
    if wanted.status is not None:
        conditions.append("status = {status:String}")
        parameters["status"] = wanted.status
    for name, sign, at_ms in (("from", ">=", wanted.from_ms), ("to", "<", wanted.to_ms)):
        if at_ms is not None:
            conditions.append(f"toUnixTimestamp64Milli(started_at) {sign} {{{name}:Int64}}")
            parameters[name] = at_ms
    if wanted.cursor is not None:
        at_ms, session_id, part = _read_cursor(wanted.cursor)
        conditions.append(
            "(toUnixTimestamp64Milli(started_at), session_id, part) < ({c_at:Int64}, {c_session:String}, {c_part:String})"
        )
        parameters |= {"c_at": at_ms, "c_session": session_id, "c_part": part}
    rows = warehouse.rows(
        f"SELECT {', '.join(_COLUMNS)} FROM {{db}}.sessions FINAL WHERE {' AND '.join(conditions)} "
        "ORDER BY started_at DESC, session_id DESC, part DESC LIMIT {limit:UInt32}",
        **parameters,
    )
    page = [_row(row) for row in rows[: wanted.limit]]
    more = len(rows) > wanted.limit
    return {"sessions": page, "next_cursor": _cursor(rows[wanted.limit - 1]) if more else None}


def parts_of(warehouse: ClickHouse, tenant: str, wanted: SessionId) -> list[dict[str, Any]]:
    """The parts an id names, by start; empty where there is no such session."""
    rows = warehouse.rows(
        f"SELECT {', '.join(_COLUMNS)} FROM {{db}}.sessions FINAL "
        "WHERE tenant = {tenant:String} AND session_id = {session:String} "
        f"AND ({{part:String}} = '' OR part = {{part:String}}) AND {_NOT_ERASED} ORDER BY started_at, part",
        tenant=tenant,
        session=wanted.session_id,
        part=wanted.part or "",
    )
    return [_row(row) for row in rows]


def summary(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One session over its parts: counts summed, times from end to end, the rest from the last revision. Pure."""
    last = max(parts, key=lambda part: part["revision"])
    first = min(parts, key=lambda part: part["started_at"])
    return {
        "session_id": last["session_id"],
        "status": last["status"],
        "source": last["source"],
        "user_id": last["user_id"],
        "started_at": first["started_at"],
        "ended_at": max(part["ended_at"] for part in parts),
        **{name: sum(part[name] for part in parts) for name in _SUMMED},
        "first_url": first["first_url"],
        "last_url": last["last_url"],
        "user_agent": last["user_agent"],
        "viewport_width": last["viewport_width"],
        "viewport_height": last["viewport_height"],
        "parts": parts,
    }


def parse_time(text: str, path: str) -> int:
    """ms since 1970 as digits, or ISO 8601 (UTC where no zone is given)."""
    if _DIGITS.fullmatch(text):
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise MalformedError("milliseconds since 1970 or an ISO 8601 time is wanted", path=path) from None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)  # floats lose a ms


def _row(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row as JSON: times as ISO 8601 UTC, and the id that names this very part."""
    found = dict(zip(_COLUMNS, row, strict=True))
    for name in ("started_at", "ended_at"):
        found[name] = _utc(found[name]).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    found["close_reason"] = found["close_reason"] or None
    return {
        "id": found["session_id"] if found["part"] == FIRST_PART else f"{found['session_id']}~{found['part']}",
        **found,
    }


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _cursor(row: tuple[Any, ...]) -> str:
    found = dict(zip(_COLUMNS, row, strict=True))
    at_ms = round(_utc(found["started_at"]).timestamp() * 1000)
    return base64.urlsafe_b64encode(json.dumps([at_ms, found["session_id"], found["part"]]).encode()).decode()


def _read_cursor(cursor: str) -> tuple[int, str, str]:
    try:
        at_ms, session_id, part = msgspec.json.decode(
            base64.urlsafe_b64decode(cursor.encode()), type=tuple[int, str, str]
        )
    except (ValueError, RecursionError):
        at_ms, session_id, part = -1, "", ""
    if not (0 <= at_ms < 10**15 and is_id(session_id) and is_id(part)):
        raise MalformedError("not a cursor that this API gave", path="cursor")
    return at_ms, session_id, part
