"""chDB as a server's engine: one process a path, one fresh connection a request (0.12 ms), so settings never leak.

The engine keeps running while any connection is open; `Engine` holds one for its life.
"""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

from pipeline.errors import ConfigurationError
from pipeline.local.protocol import Reply, Statement, literal


class Engine:
    """Owns the data at `path`. `execute` may be called from several threads at once."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError where another process owns the path."""
        try:
            import chdb
        except ImportError:
            raise ConfigurationError(
                "the embedded warehouse needs the extra: pip install 'portable-replay[local]'"
            ) from None
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path.parent / f"{path.name}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"another warehouse process owns {path}: one process a path") from None
        self._connect = chdb.connect
        self._path = str(path.resolve())
        self._keep = chdb.connect(self._path)
        self.timezone = self._keep.query("SELECT timezone()", "TSV").bytes().decode().strip()
        self.version = self._keep.query("SELECT version()", "TSV").bytes().decode().strip()

    def execute(self, asked: Statement) -> Reply:
        """Runs one statement; raises whatever the engine raises, with its `Code: …` text."""
        started = time.perf_counter_ns()
        connection = self._connect(self._path)
        try:
            if asked.under.database:
                connection.query("USE `{}`".format(asked.under.database.replace("`", "")), "TSV")
            if asked.under.settings:
                changes = ", ".join(f"{name} = {literal(value)}" for name, value in asked.under.settings.items())
                connection.query(f"SET {changes}", "TSV")
            if asked.under.readonly:
                connection.query("SET readonly = 2", "TSV")
            reply = self._insert(connection, asked) if asked.insert_format else self._query(connection, asked)
            reply.summary["elapsed_ns"] = time.perf_counter_ns() - started
            return reply
        finally:
            connection.close()

    def close(self) -> None:
        self._keep.close()
        self._lock.close()

    @staticmethod
    def _insert(connection, asked: Statement) -> Reply:  # type: ignore[no-untyped-def]
        stream = connection.send_insert(asked.sql, asked.insert_format)
        try:
            if asked.data:
                stream.append(asked.data)
            done = stream.finish()
        except BaseException:
            stream.cancel()
            raise
        return Reply(b"", None, {"written_rows": done.rows_written, "written_bytes": done.bytes_written})

    @staticmethod
    def _query(connection, asked: Statement) -> Reply:  # type: ignore[no-untyped-def]
        found = connection.query(asked.sql, asked.output_format, params=asked.under.parameters)
        rows = found.rows_read() if asked.reads else 0
        summary = {
            "read_rows": found.storage_rows_read() or rows,
            "read_bytes": found.storage_bytes_read(),
            "written_rows": found.rows_written(),
            "written_bytes": found.bytes_written(),
            "result_rows": rows,
        }
        return Reply(found.bytes() or b"", asked.output_format if asked.reads else None, summary)
