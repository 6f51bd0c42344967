"""What may become a RecorderBatch: the rules that capture and the Python producer share. Pure.

A refusal names the field by its JSON path; it never quotes a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import MalformedError, TooLargeError
from pipeline.model.batches import Metadata, RecorderBatch, Source, is_batch_id, is_id

TIMESTAMP_MS_MAX = 4_102_444_800_000
"""The year 2100. Merely old or skewed clocks are the workers' business."""

USER_ID_CHARS_MAX = 256
TEXT_CHARS_MAX = 4_096
"""URL, user agent, client version: longer ones are cut, they describe and do not identify."""

TYPE_CHARS_MAX = 64
TYPE_NUMBER_MAX = 1_000
"""An event's type is a name of 1 to so many characters, or rrweb's number from 0 to this."""

ANONYMOUS = "anonymous"
IDS = "1 to 128 characters of A-Z a-z 0-9 _ . : -"


@dataclass(frozen=True)
class Limits:
    """What one batch may be at most."""

    events: int
    payload_bytes: int


def build_batch(
    *,
    tenant: str,
    session_id: str,
    window_id: str | None,
    user_id: str | None,
    batch_id: str,
    sequence: int | None,
    client_version: str | None,
    sent_at: int,
    received_at: int,
    metadata: Metadata,
    times: Sequence[int],
    lines: Sequence[bytes],
    limits: Limits,
    path: str = "$",
    imported: bool = False,
    final: bool = False,
    source: Source = "portable",
) -> RecorderBatch:
    """One admitted batch. `lines` are the events as compact JSON without newlines, `times` their timestamps (ms).

    Raises MalformedError or TooLargeError with the field's path under `path`.
    """
    _must(is_id(session_id), f"{path}.sessionId", IDS)
    _must(window_id is None or is_id(window_id), f"{path}.windowId", IDS)
    _must(is_batch_id(batch_id), f"{path}.batchId", IDS)
    user = user_id or ANONYMOUS
    _must(
        len(user) <= USER_ID_CHARS_MAX and user.isprintable(),
        f"{path}.userId",
        f"at most {USER_ID_CHARS_MAX} printable characters",
    )
    check_time(sent_at, f"{path}.sentAt")
    _must(sequence is None or 0 <= sequence < 1 << 53, f"{path}.sequence", "a whole number from 0")
    if len(times) > limits.events:
        raise TooLargeError(
            f"{len(times)} events are above REPLAY_BATCH_EVENTS_MAX = {limits.events}", path=f"{path}.events"
        )
    check_times(times, f"{path}.events")
    payload = b"\n".join(lines)
    if len(payload) > limits.payload_bytes:
        raise TooLargeError(
            f"{len(payload)} bytes of events are above REPLAY_BATCH_BYTES_MAX (room for {limits.payload_bytes})",
            path=f"{path}.events",
        )
    return RecorderBatch(
        tenant=tenant,
        session_id=session_id,
        window_id=window_id or session_id,
        user_id=user,
        batch_id=batch_id,
        sequence=sequence,
        source=source,
        client_version=None if client_version is None else client_version[:TEXT_CHARS_MAX],
        imported=imported,
        final=final,
        sent_at=sent_at,
        received_at=received_at,
        metadata=metadata,
        first_event_at=min(times, default=0),
        last_event_at=max(times, default=0),
        event_count=len(times),
        payload=payload,
    )


def check_time(at: int, path: str) -> None:
    """Raises MalformedError where `at` (ms) is no time of a client's clock, however wrong that is set."""
    if not 0 <= at <= TIMESTAMP_MS_MAX:
        raise MalformedError("milliseconds between 1970 and 2100 are wanted", path=path)


def check_times(times: Sequence[int], path: str) -> None:
    """`check_time` of the timestamp of each event of the array at `path`."""
    for index, at in enumerate(times):
        if not 0 <= at <= TIMESTAMP_MS_MAX:
            check_time(at, f"{path}[{index}].timestamp")


def metadata(user_agent: str, viewport_width: int, viewport_height: int, url: str) -> Metadata:
    """The page, within bounds: a viewport beyond 31 bits is no viewport."""
    return Metadata(
        user_agent=user_agent[:TEXT_CHARS_MAX],
        viewport_width=min(max(viewport_width, 0), (1 << 31) - 1),
        viewport_height=min(max(viewport_height, 0), (1 << 31) - 1),
        url=url[:TEXT_CHARS_MAX],
    )


def _must(holds: bool, path: str, wanted: str) -> None:
    if not holds:
        raise MalformedError(f"{wanted} is wanted", path=path)
