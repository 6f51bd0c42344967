"""Every topic, once: name, partitions, retention, limits. `replay topics apply` makes the broker agree with it.

Kafka deletes and compacts closed segments only, so a topic with a short retention has short segments too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.settings import Settings

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Topic:
    """A topic as the broker must have it. `config` is what goes to CreateTopics and AlterConfigs, as text."""

    name: str
    partitions: int
    replication: int
    config: dict[str, str]
    schema: str | None
    """Stem of the value's schema in `schemas/`; None for the worker's internal state."""

    record: str = ""
    """The record's full name where it is not the only one that the topic carries."""

    @property
    def subject(self) -> str:
        """The registry's subject, by the topic-name strategy; a topic's second record by its name too."""
        return f"{self.name}-{self.record or 'value'}"


@dataclass(frozen=True)
class Catalogue:
    """The topics by role. Build it with `catalogue(settings)`."""

    batches: Topic
    clean: Topic
    sessions: Topic
    state: Topic
    dead_letters: Topic
    erasures: Topic

    @property
    def erasure_requests(self) -> Topic:
        """The second record of `batches`."""
        return replace(self.batches, schema="erasure_request", record="org.portablereplay.v1.ErasureRequest")

    def __iter__(self) -> Iterator[Topic]:
        return iter((self.batches, self.clean, self.sessions, self.state, self.dead_letters, self.erasures))


def catalogue(settings: Settings) -> Catalogue:
    """The catalogue under these settings. `clean` and `state` have the partition count of `batches`: a batch keeps its number."""
    many = settings.topic_partitions

    def topic(stem: str, partitions: int, schema: str | None, **config: object) -> Topic:
        texts = {name.replace("_", "."): str(value) for name, value in config.items()}
        return Topic(settings.topic_prefix + stem, partitions, settings.topic_replication, texts, schema)

    # LogAppendTime on batches is stream time. clean's timestamps are the worker's stamps (the raw record's LogAppendTime).
    return Catalogue(
        batches=topic(
            "batches", many, "recorder_batch",
            cleanup_policy="delete", retention_ms=1 * DAY_MS, segment_ms=HOUR_MS,
            message_timestamp_type="LogAppendTime", max_message_bytes=settings.batch_bytes_max,
        ),
        clean=topic(
            "clean", many, "clean_batch",
            cleanup_policy="delete", retention_ms=7 * DAY_MS, segment_ms=6 * HOUR_MS,
            message_timestamp_type="CreateTime", max_message_bytes=settings.clean_bytes_max,
        ),
        sessions=topic(
            "sessions", many, "session_update",
            cleanup_policy="delete", retention_ms=7 * DAY_MS, segment_ms=6 * HOUR_MS,
            message_timestamp_type="CreateTime", max_message_bytes=1 << 20,
        ),
        # compact,delete: released sessions' markers go by their age, and so does what a zombie brings back. What
        # a later record replaces, or an erasure removes, is compacted away after a day.
        state=topic(
            "state", many, None,
            cleanup_policy="compact,delete", retention_ms=max(settings.session_memory_ms, 30 * DAY_MS), segment_ms=HOUR_MS,
            max_compaction_lag_ms=DAY_MS,
            message_timestamp_type="LogAppendTime", max_message_bytes=1 << 20,
        ),
        dead_letters=topic(
            "dead_letters", 1, "dead_letter",
            cleanup_policy="delete", retention_ms=3 * DAY_MS, segment_ms=HOUR_MS,
            message_timestamp_type="CreateTime", max_message_bytes=settings.clean_bytes_max,
        ),
        erasures=topic(
            "erasures", 1, "erasure",
            cleanup_policy="delete", retention_ms=30 * DAY_MS, segment_ms=6 * HOUR_MS,
            message_timestamp_type="CreateTime", max_message_bytes=1 << 20,
        ),
    )  # fmt: skip
