"""The sessions of one partition: live ones in memory, of released ones the little that must outlive them on disk.

A session that comes back after its state was released must not be taken for a new one, whose part 1 would replace the old
row. So a release leaves a marker: which offset was applied, and when the session was seen. There is one for every session of
`session_memory_ms`, far more than live ones, so they lie in a private temporary database (SQLite's, gone with the process)
whose cache is bounded: memory follows live sessions, the disk history.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.workers.state import SessionState, released

CACHE_KIB = 2_048


@dataclass(frozen=True)
class Held:
    """A session's state and the generation whose record holds it."""

    state: SessionState
    generation: int


class Sessions:
    """By session key (`tenant:session_id`). Not for several threads at once."""

    def __init__(self) -> None:
        self._live: dict[bytes, Held] = {}
        self._markers = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._markers.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB};"
            "CREATE TABLE markers (session BLOB PRIMARY KEY, applied INTEGER, seen_at INTEGER, generation INTEGER, erased INTEGER)"
            " WITHOUT ROWID; CREATE INDEX by_age ON markers (seen_at);"
        )

    def __len__(self) -> int:
        """Of live ones."""
        return len(self._live)

    def live(self) -> Iterator[tuple[bytes, Held]]:
        """As they are now: sessions may be put and released meanwhile."""
        return iter(list(self._live.items()))

    def get(self, session: bytes) -> Held | None:
        """The state, or one that says no more than that the session was released; None where nothing is known."""
        return self._live.get(session) or self.marker(session)

    def marker(self, session: bytes) -> Held | None:
        row = self._markers.execute(
            "SELECT applied, seen_at, generation, erased FROM markers WHERE session = ?", (session,)
        ).fetchone()
        return Held(released(row[0], row[1], erased=bool(row[3])), row[2]) if row else None

    def put(self, session: bytes, held: Held) -> None:
        """A state, or a marker where it is a released one. The newest wins."""
        if not held.state.is_released:
            self._live[session] = held
            return
        self._live.pop(session, None)
        self._markers.execute(
            "INSERT INTO markers VALUES (?, ?, ?, ?, ?) ON CONFLICT (session) DO UPDATE SET applied = excluded.applied, "
            "seen_at = excluded.seen_at, generation = excluded.generation, erased = excluded.erased "
            "WHERE (excluded.applied, excluded.generation) >= (markers.applied, markers.generation)",
            (session, held.state.applied, held.state.seen_at, held.generation, held.state.erased),
        )

    def discard(self, session: bytes) -> None:
        """Forgets the state, not the marker."""
        self._live.pop(session, None)

    def forget_markers(self, before_ms: int) -> None:
        """Those of sessions last seen before that stream time."""
        self._markers.execute("DELETE FROM markers WHERE seen_at < ?", (before_ms,))

    def close(self) -> None:
        self._markers.close()
