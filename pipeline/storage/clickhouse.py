"""ClickHouse over HTTP, through clickhouse-connect, with its errors translated into ours.

Inserts go as Arrow tables (columns and rows are 2 to 5 times slower) and never asynchronously: an answered insert is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from pipeline.errors import FatalError, PoisonError, RetryableError
from pipeline.settings import Settings
from pipeline.storage import cluster

CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 60
Found = TypeVar("Found")

#: Codes after which the same statement may succeed: time-outs, full, read-only for a while, a replica or keeper away.
_RETRYABLE = frozenset(
    {3, 32, 159, 160, 173, 202, 203, 209, 210, 225, 241, 242, 252, 279, 285, 286, 319, 394, 425, 999}
)
#: Codes that speak of a value: it cannot be parsed, does not fit its column, breaks a constraint.
_ABOUT_A_VALUE = frozenset({6, 27, 38, 41, 69, 70, 72, 117, 128, 131, 190, 321, 349, 469, 675, 691})
_CODE = re.compile(r"code: (\d+)", re.I)
#: What stands before the server (a balancer, a proxy) answers without a code: away, too busy, broken, a time-out.
_AWAY = re.compile(r"HTTP driver received HTTP status (?:5\d\d|408|429)")

SETTINGS = {"async_insert": 0, "deduplicate_blocks_in_dependent_materialized_views": 1}


class ClickHouse:
    """One client; connects at first use. For one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.warehouse
        self._client: Client | None = None
        self._settings = SETTINGS | (cluster.SETTINGS if settings.warehouse_cluster else {})
        self.database = settings.warehouse_database

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """All rows of a query; `{db}` in it is the database, `{name:Type}` a parameter."""
        found = self._do(lambda client: client.query(self._sql(sql), parameters=parameters).result_rows)
        return [tuple(row) for row in found]

    def value(self, sql: str, **parameters: Any) -> Any:
        """The first column of the first row."""
        return self.rows(sql, **parameters)[0][0]

    def command(self, sql: str, **parameters: Any) -> None:
        """A statement without a result."""
        self._do(lambda client: client.command(self._sql(sql), parameters=parameters))

    def insert(self, table: str, rows: pa.Table) -> None:
        """Appends an Arrow table; it is in the table when this returns. An error leaves it unknown whether it is.
        PoisonError: the warehouse refused a value of some row, here and in `command`."""
        if rows.num_rows:
            self._do(lambda client: client.insert_arrow(table, rows, database=self.database))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _sql(self, sql: str) -> str:
        return sql.replace("{db}", f"`{self.database}`")

    def _do(self, work: Callable[[Client], Found]) -> Found:
        try:
            if self._client is None:
                self._client = clickhouse_connect.get_client(
                    dsn=self._url,
                    autogenerate_session_id=False,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    send_receive_timeout=ANSWER_TIMEOUT_S,
                    settings=self._settings,
                )
            return work(self._client)
        except ClickHouseError as error:
            raise _translated(error) from error
        except OSError as error:
            raise RetryableError(f"the warehouse cannot be reached ({type(error).__name__})") from error


def _translated(error: ClickHouseError) -> RetryableError | PoisonError | FatalError:
    """The server's message may quote data: only its code goes on. PoisonError where another row might have gone in."""
    found = _CODE.search(str(error))
    if found is None:
        away = isinstance(error, OperationalError) or _AWAY.match(str(error))
        kind = RetryableError if away else FatalError
        return kind(f"the warehouse did not answer as it should ({type(error).__name__})")
    code = int(found[1])
    if code in _RETRYABLE:
        return RetryableError(f"the warehouse cannot take it now (ClickHouse code {code})")
    if code in _ABOUT_A_VALUE:
        return PoisonError("rejected_row", f"the warehouse refused a value (ClickHouse code {code})")
    return FatalError(f"the warehouse refused a statement (ClickHouse code {code}); its own log says which")
