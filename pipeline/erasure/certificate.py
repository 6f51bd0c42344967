"""What was found and removed of the sessions of one erasure, what was looked for afterwards, and what remains until when.

Counts are what this run of the eraser found; one that was interrupted and went on says so, and its counts are at least what
was there. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from pipeline.erasure.blocks import Session
from pipeline.erasure.requests import iso
from pipeline.topics.catalogue import Catalogue

SESSIONS_NAMED_MAX = 1_000
"""A certificate names so many sessions; all are counted."""


@dataclass
class Findings:
    """What a round found and did, by session."""

    rows: dict[str, Counter[Session]] = field(default_factory=dict)
    """By table."""
    blocks: Counter[Session] = field(default_factory=Counter)
    bytes: Counter[Session] = field(default_factory=Counter)
    objects: dict[Session, set[str]] = field(default_factory=dict)
    stuck: dict[Session, str] = field(default_factory=dict)
    """Sessions that cannot be erased until somebody mends something, and what."""
    places: dict[Session, tuple[int, int]] = field(default_factory=dict)
    """(partition, offset) of the request in the log."""

    def add_rows(self, table: str, found: Counter[Session]) -> None:
        """What is found again in a second look counts once."""
        self.rows[table] = self.rows.get(table, Counter()) | found


def certificate(
    sessions: Collection[Session], found: Findings, topics: Catalogue, *, epoch: int, done_ms: int, resumed: bool
) -> dict[str, Any]:
    """The JSON that `GET /v1/erasures/{id}` gives of a finished request."""
    mine = sorted(sessions)
    return {
        "sessions": len(mine),
        "session_ids": [name for _, name in mine[:SESSIONS_NAMED_MAX]],
        "removed": {
            "rows": {table: sum(counts[each] for each in mine) for table, counts in sorted(found.rows.items())},
            "objects": {
                "objects": len(set().union(*(found.objects.get(each, set()) for each in mine))),
                "blocks": sum(found.blocks[each] for each in mine),
                "bytes": sum(found.bytes[each] for each in mine),
            },
            "worker_states": len(mine),
        },
        "verified": {
            "at": iso(done_ms),
            "rows_left": 0,
            "blocks_left": 0,
            "replaced_parts_left": 0,
            "how": "rows and index looked up again, every object that held a block read again, the warehouse's replaced parts "
            "and the objects' old versions gone",
        },
        "places": [
            {"session_id": each[1], "epoch": epoch, "source_partition": place[0], "source_offset": place[1]}
            for each in mine[:SESSIONS_NAMED_MAX]
            if (place := found.places.get(each)) is not None
        ],
        "remains": remains(topics, done_ms),
        "resumed": resumed,
        "done_at": iso(done_ms),
    }


def remains(topics: Catalogue, done_ms: int) -> list[dict[str, str]]:
    """What no erasure reaches into, and until when it is there: topics close segments and delete them whole."""
    kept = []
    for topic in (topics.batches, topics.clean, topics.sessions, topics.dead_letters):
        until_ms = done_ms + int(topic.config["retention.ms"]) + int(topic.config["segment.ms"])
        kept.append({"where": f"topic {topic.name}", "until": iso(until_ms)})
    until_ms = done_ms + int(topics.state.config["max.compaction.lag.ms"]) + int(topics.state.config["segment.ms"])
    kept.append({"where": f"topic {topics.state.name}", "until": iso(until_ms)})
    kept.append(
        {"where": "exports, backups and copies made by subscribers", "until": "unknown here: see replay.erasures"}
    )
    return kept
