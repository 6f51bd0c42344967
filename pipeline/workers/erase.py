"""Erasure in the worker: a request's place in the log is the line. What stands before it goes, what comes after is refused.

Pure. All that is kept of an erased session is that it is erased, for as long as a released session is remembered: late
batches of its clients, and what the raw topic may bring again, are counted and dropped until then.
"""

from __future__ import annotations

from pipeline.errors import PoisonError
from pipeline.model.admission import ANONYMOUS
from pipeline.model.batches import ErasureRequest, RecorderBatch, SessionUpdate, is_id
from pipeline.workers.chain import EVENTS_MAX, FIRST_PART, Outcome, empty
from pipeline.workers.clock import Where
from pipeline.workers.rules import Rules
from pipeline.workers.sessionize import is_remembered
from pipeline.workers.state import SessionState, released


def is_erased(state: SessionState | None, where: Where, rules: Rules) -> bool:
    """Whether nothing of the session may come in at this stream time."""
    return state is not None and state.erased and is_remembered(state, rules, where.at_ms)


def erase(state: SessionState | None, request: ErasureRequest, where: Where, rules: Rules) -> Outcome:
    """Forgets the session: its parts' rows are replaced by what tells nothing but that it is erased. Raises PoisonError
    where the request names no session."""
    if not is_id(request.tenant) or not is_id(request.session_id):
        raise PoisonError(
            "bad_envelope", "an erasure's tenant or session_id is not 1 to 128 characters of A-Z a-z 0-9 _ . : -"
        )
    part = state.parts[-1].name if state is not None and state.parts else FIRST_PART
    return Outcome(
        released(where.offset, where.at_ms, erased=True),
        empty("erased", where, rules, request.tenant, request.session_id),
        (_told(request, part, where, rules),),
    )


def refuse(batch: RecorderBatch, where: Where, rules: Rules) -> Outcome:
    """What becomes of a batch of an erased session, whatever is in it: its events are counted, nothing else is kept."""
    count = batch.event_count if 0 <= batch.event_count <= EVENTS_MAX else 0
    clean = empty("erased", where, rules, batch.tenant, batch.session_id, received_events=count, erased=count)
    return Outcome(released(where.offset, where.at_ms, erased=True), clean)


def _told(request: ErasureRequest, part: str, where: Where, rules: Rules) -> SessionUpdate:
    return SessionUpdate(
        tenant=request.tenant,
        session_id=request.session_id,
        part=part,
        revision=2 * where.offset,
        status="closed",
        close_reason="erased",
        source="portable",
        user_id=ANONYMOUS,
        started_at=where.at_ms,
        ended_at=where.at_ms,
        duration_ms=0,
        active_ms=0,
        events=0,
        clicks=0,
        rage_clicks=0,
        inputs=0,
        scrolls=0,
        mouse_moves=0,
        navigations=0,
        console_errors=0,
        errors=0,
        throttled=0,
        redacted=0,
        late=0,
        first_url="",
        last_url="",
        urls=(),
        user_agent="",
        viewport_width=0,
        viewport_height=0,
        retention=rules.retention_of(request.tenant),
        epoch=rules.epoch,
        source_partition=where.partition,
    )
