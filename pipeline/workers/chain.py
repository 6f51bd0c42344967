"""throttle → redact → sessionize: one batch through, purely. The heart of the worker.

`step(state, batch, where, rules)` is total and a function of its arguments: the same input gives the same bytes, whatever
crashed in between. Every received event ends in exactly one count: stored, throttled, repeated, erased or dead-lettered.

The payload is NDJSON and is decoded into structs whose data stays raw bytes: what is dropped is never parsed, what is kept
is copied, and only inputs, forms, clicks, navigations and console lines are looked into.
"""

from __future__ import annotations

from collections import Counter
from operator import attrgetter

import msgspec

from pipeline.errors import PoisonError
from pipeline.model.admission import ANONYMOUS, TEXT_CHARS_MAX, TIMESTAMP_MS_MAX, USER_ID_CHARS_MAX
from pipeline.model.batches import (
    CleanBatch,
    CleanKind,
    DeadLetter,
    Metadata,
    PartStart,
    RecorderBatch,
    SessionUpdate,
    is_batch_id,
    is_id,
)
from pipeline.model.events import PORTABLE_TYPES, SessionEvent, decode_payload, encode_payload
from pipeline.workers.clock import Refused, Timed, Where, in_time
from pipeline.workers.hot import Bucket, limited
from pipeline.workers.redact.events import Redactor
from pipeline.workers.redact.rules import Redaction
from pipeline.workers.redact.text import redact_text
from pipeline.workers.rules import Rules
from pipeline.workers.sessionize import PartBook, is_past_grace, is_remembered, update
from pipeline.workers.state import (
    VERSION,
    WINDOWS_MAX,
    SessionState,
    Window,
    batch_hash,
    remember,
    was_seen,
)
from pipeline.workers.throttle import Gate, Throttle

ENVELOPE_BYTES_MAX = 64 << 10
"""Room in a record for everything but the payload; the envelope's own limits keep it below."""

EVENTS_MAX = 1 << 20
"""seq has 20 bits for the index in the batch."""

TYPE_CHARS_MAX = 64
FIRST_PART = "1"
"""Of a session that was not there before; parts of one that was begin at L<offset>, so that they replace none."""

_NEW_WINDOW = Window("")
_NO_GATES: dict[str, Gate] = {}
_KNOWN_TYPES = frozenset([*PORTABLE_TYPES, *range(7)])
SOURCES = frozenset({"portable", "rrweb", "posthog"})


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What one raw record becomes. `state` is None where the record belongs to no session. `refused` is what a dead letter
    is to be made of (see `refusal`)."""

    state: SessionState | None
    clean: CleanBatch
    sessions: tuple[SessionUpdate, ...] = ()
    dead: DeadLetter | None = None
    refused: Refused | None = None


def step(state: SessionState | None, batch: RecorderBatch, where: Where, rules: Rules) -> Outcome:
    """One batch. Raises PoisonError (bad_envelope, bad_payload, too_deep, too_large; too_old, too_new where that is all of
    its events) for what can never be processed: see `dead_letter`. Capture refuses such things; a producer on Kafka may not have looked."""
    was_there = state is not None and is_remembered(state, rules, where.at_ms)
    if state is not None and is_past_grace(state, rules, where.at_ms):
        state = None
    _check_envelope(batch)
    hashed = batch_hash(batch.batch_id)
    redacted: Counter[str] = Counter()
    batch = _clean_envelope(batch, rules, redacted)
    if state is not None and was_seen(state.batch_ids, hashed):
        return _repeat(state, batch, where, rules)
    known = state.clock_correction_ms if state else None
    timed = in_time(_events(batch), batch, known, where, rules)
    try:
        outcome = _Run(state, was_there, batch, where, rules, timed, hashed, redacted).outcome()
    except RecursionError:
        raise PoisonError("too_deep", "an event's data is nested beyond what can be read") from None
    except msgspec.DecodeError as error:
        raise PoisonError("bad_payload", f"an event's data cannot be read ({type(error).__name__})") from None
    if len(outcome.clean.payload) > rules.clean_bytes_max - ENVELOPE_BYTES_MAX:
        raise PoisonError("too_large", f"{len(outcome.clean.payload)} bytes of events after redaction")
    return outcome


def dead_letter(
    poison: PoisonError, batch: RecorderBatch | None, key: bytes | None, value: bytes, where: Where, rules: Rules
) -> Outcome:
    """What becomes of a record that `step` or the codec refused: its bytes go to the dead letters, its offset is accounted
    for by an empty clean record. `batch` is None where not even the envelope could be read."""
    count = batch.event_count if batch is not None and 0 <= batch.event_count <= EVENTS_MAX else 0
    dead = _letter(poison.reason, poison.detail, count, key, value, where, rules)
    whose = ("", "")
    if batch is not None and is_id(batch.tenant) and is_id(batch.session_id):  # the rest of it was not judged good
        whose = (batch.tenant, batch.session_id)
    clean = empty("dead", where, rules, *whose, received_events=count, dead_lettered=count)
    return Outcome(None, clean, (), dead)


def refusal(refused: Refused, key: bytes | None, value: bytes, where: Where, rules: Rules) -> DeadLetter:
    """The letter that holds the refused events of a batch; `value` is their batch, encoded."""
    return _letter(refused.reason, refused.detail, refused.batch.event_count, key, value, where, rules)


def _letter(
    reason: str, detail: str, count: int, key: bytes | None, value: bytes, where: Where, rules: Rules
) -> DeadLetter:
    return DeadLetter(
        stage="worker",
        reason=reason,
        detail=detail,
        epoch=rules.epoch,
        source_topic=where.topic,
        source_partition=where.partition,
        source_offset=where.offset,
        source_at=where.at_ms,
        event_count=count,
        key=key,
        value=value,
    )


def lost(first: int, last: int, where: Where, rules: Rules) -> CleanBatch:
    """The record for source offsets that retention removed before a worker read them."""
    clean = empty("lost", where, rules, "", "")
    return msgspec.structs.replace(clean, source_offset=first, source_last_offset=last)


def _check_envelope(batch: RecorderBatch) -> None:
    for name, text in (("tenant", batch.tenant), ("session_id", batch.session_id), ("window_id", batch.window_id)):
        if not is_id(text):
            raise PoisonError("bad_envelope", f"{name} is not 1 to 128 characters of A-Z a-z 0-9 _ . : -")
    if not is_batch_id(batch.batch_id):
        raise PoisonError("bad_envelope", "batch_id is not 1 to 128 characters of A-Z a-z 0-9 _ . : - (and /k)")
    if batch.source not in SOURCES:
        raise PoisonError("bad_envelope", "source is none of portable, rrweb, posthog")
    if not 0 <= batch.event_count <= EVENTS_MAX:
        raise PoisonError("bad_envelope", f"event_count is not in 0..{EVENTS_MAX}")
    if not 0 <= batch.sent_at <= TIMESTAMP_MS_MAX or not 0 <= batch.received_at <= TIMESTAMP_MS_MAX:
        raise PoisonError("bad_envelope", "sent_at or received_at is negative or after the year 2100")
    page = batch.metadata
    if page.viewport_width < 0 or page.viewport_height < 0:
        raise PoisonError("bad_envelope", "metadata has a negative viewport")
    for name, text, limit in (
        ("user_id", batch.user_id, USER_ID_CHARS_MAX),
        ("metadata.url", page.url, TEXT_CHARS_MAX),
        ("metadata.user_agent", page.user_agent, TEXT_CHARS_MAX),
        ("client_version", batch.client_version or "", TEXT_CHARS_MAX),
    ):
        if len(text) > limit:
            raise PoisonError("bad_envelope", f"{name} is above {limit} characters")


def _clean_envelope(batch: RecorderBatch, rules: Rules, redacted: Counter[str]) -> RecorderBatch:
    """What describes the page and the client leaves in clean records, session updates and state too; ids and the user stay:
    they are what a session is found by."""
    page, redaction = batch.metadata, rules.redaction.of(batch.tenant)
    version = _clean_line(batch.client_version or "", redaction, redacted)
    url = _clean_line(page.url, redaction, redacted)
    agent = _clean_line(page.user_agent, redaction, redacted)
    if url is not page.url or agent is not page.user_agent:
        batch = msgspec.structs.replace(batch, metadata=msgspec.structs.replace(page, url=url, user_agent=agent))
    if batch.client_version and version is not batch.client_version:
        batch = msgspec.structs.replace(batch, client_version=version)
    return batch


def _clean_line(text: str, redaction: Redaction, redacted: Counter[str]) -> str:
    """The very same text where nothing is found; most batches of a session say the same again."""
    if redaction.is_plain_text(text):
        return text
    left = redact_text(text, redaction, redacted)[:TEXT_CHARS_MAX]
    if left != text:
        return left
    redaction.remember_plain_text(text)
    return text


def _events(batch: RecorderBatch) -> list[SessionEvent]:
    """The payload's events sorted by time, stably."""
    try:
        if not batch.payload.isascii():
            batch.payload.decode()  # the decoder passes raw data over without looking at its encoding
        events = decode_payload(batch.payload)
    except RecursionError:
        raise PoisonError("too_deep", "an event is nested beyond what can be read") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PoisonError("bad_payload", f"the payload is not NDJSON events ({type(error).__name__})") from None
    if len(events) != batch.event_count:
        raise PoisonError("bad_payload", f"the envelope says {batch.event_count} events, the payload has {len(events)}")
    kinds = {event.type for event in events}
    if not kinds <= _KNOWN_TYPES and any(len(str(kind)) > TYPE_CHARS_MAX for kind in kinds):
        raise PoisonError("bad_payload", f"an event's type is above {TYPE_CHARS_MAX} characters")
    events.sort(key=attrgetter("timestamp"))
    if events and not 0 <= events[0].timestamp <= events[-1].timestamp <= TIMESTAMP_MS_MAX:
        raise PoisonError("bad_payload", "an event's timestamp is negative or after the year 2100")
    return events


class _Run:
    """One batch on its way through; holds what the verbs share."""

    def __init__(
        self,
        state: SessionState | None,
        was_there: bool,
        batch: RecorderBatch,
        where: Where,
        rules: Rules,
        timed: Timed,
        hashed: bytes,
        redacted: Counter[str],
    ) -> None:
        window = _NEW_WINDOW
        for each in state.windows if state else ():
            if each.window_id == batch.window_id:
                window = each
        self._redacted = redacted
        self._redactor = Redactor(rules.redaction.of(batch.tenant), window.typed, redacted)
        url = self._redactor.page(batch.metadata.url)
        if url is not batch.metadata.url:
            batch = msgspec.structs.replace(batch, metadata=msgspec.structs.replace(batch.metadata, url=url))
        self._state, self._batch, self._where, self._rules = state, batch, where, rules
        self._timed, self._events, self._hashed = timed, timed.events, hashed
        first_name = f"L{where.offset}" if was_there or _is_old(batch, timed.events, where, rules) else FIRST_PART
        self._book = PartBook(rules, state, first_name, batch.source, batch.metadata)
        others = (
            {name: Gate(gap_ms, window.others.get(name, ())) for name, gap_ms in rules.other_gaps_ms.items()}
            if rules.other_gaps_ms
            else _NO_GATES
        )
        moves, scrolls = Gate(rules.mousemove_gap_ms, window.mousemove), Gate(rules.scroll_gap_ms, window.scroll)
        self._throttle = Throttle(moves, scrolls, others)
        bytes_per_s = 0 if batch.imported else rules.session_bytes_per_s  # an import comes faster than it was lived
        self._bucket = Bucket(state.full_at_us if state else 0, where.at_ms, bytes_per_s, rules.session_burst_bytes)
        self._late = 0

    def outcome(self) -> Outcome:
        kept, starts = self._through()
        batch, where = self._batch, self._where
        if batch.final:
            self._end_part()
        parts, touched = self._book.frozen()
        known = self._state.user_id if self._state else ANONYMOUS
        state = SessionState(
            version=VERSION,
            tenant=batch.tenant,
            session_id=batch.session_id,
            applied=where.offset,
            seen_at=where.at_ms,
            user_id=batch.user_id if batch.user_id not in ("", ANONYMOUS) else known,
            parts=parts,
            windows=self._windows(),
            batch_ids=remember(self._state.batch_ids if self._state else b"", self._hashed),
            full_at_us=self._bucket.full_at_us,
            clock_correction_ms=self._timed.session_correction_ms,
        )
        refused = self._timed.refused
        refused_count = refused.batch.event_count if refused else 0
        received = len(self._events) + refused_count
        clean = _clean(
            batch,
            where,
            self._rules,
            "batch",
            received_events=received,
            dead_lettered=refused_count,
            payload=encode_payload(kept),
            event_count=len(kept),
            first_event_at=kept[0].timestamp if kept else 0,
            last_event_at=kept[-1].timestamp if kept else 0,
            part=starts[0].part if starts else parts[-1].name,
            next_parts=tuple(starts[1:]),
            clock_correction_ms=self._timed.correction_ms,
            throttled=len(self._events) - len(kept),
            redacted=dict(sorted(self._redacted.items())),
            late=self._late > 0,
        )
        updates = [update(part, state, self._rules, where.partition, 2 * where.offset) for part in touched]
        return Outcome(state, clean, tuple(updates), refused=refused)

    def _through(self) -> tuple[list[SessionEvent], list[PartStart]]:
        """Every event to its part, then through throttle and redaction: (kept events, where parts begin among them)."""
        kept: list[SessionEvent] = []
        starts: list[PartStart] = []
        for run in self._book.runs(self._events):
            received = self._events[run.first : run.end]
            passed = self._passed(received)
            redacted = self._redacted.total()
            cleaned = self._redactor.clean(passed)
            run.opened.add(
                cleaned,
                late=run.late,
                throttled=len(received) - len(passed),
                redacted=self._redacted.total() - redacted,
                rrweb_window=None if self._batch.source == "portable" else self._batch.window_id,
            )
            self._late += run.late * len(cleaned)
            if cleaned and (not starts or starts[-1].part != run.opened.part.name):
                starts.append(PartStart(index=len(kept), part=run.opened.part.name))
            kept += cleaned
        if not self._bucket.is_empty:
            self._bucket.take(len(self._batch.payload))
        if not self._events:
            self._book.current(self._where.at_ms)
        return kept, starts

    def _passed(self, received: list[SessionEvent]) -> list[SessionEvent]:
        """What the throttle lets pass of a run."""
        if not self._bucket.is_empty:
            return self._throttle.passed(received)
        passed = limited(received, self._batch.source)
        self._bucket.take(sum(len(bytes(event.data)) for event in passed))
        return passed

    def _end_part(self) -> None:
        part = self._book.current(self._where.at_ms).part
        part.close_reason = part.close_reason or "ended"

    def _windows(self) -> tuple[Window, ...]:
        """The windows of before with this one last; the one unused longest is forgotten when there are too many."""
        gates, window_id = self._throttle, self._batch.window_id
        moves, scrolls = gates.moves.stretches, gates.scrolls.stretches
        own = Window(window_id, moves, scrolls, self._redactor.typed, gates.other_stretches)
        others = [each for each in (self._state.windows if self._state else ()) if each.window_id != window_id]
        return (*others[-(WINDOWS_MAX - 1) :], own)


def _is_old(batch: RecorderBatch, events: list[SessionEvent], where: Where, rules: Rules) -> bool:
    """Whether, should all memory of the session be lost (replay.state deleted), its events must be taken for those of one
    that was there."""
    return not batch.imported and bool(events) and where.at_ms - events[-1].timestamp > rules.session_grace_ms


def _repeat(state: SessionState, batch: RecorderBatch, where: Where, rules: Rules) -> Outcome:
    """A client's retry: counted, nothing else. The state goes on to this offset."""
    count = batch.event_count
    part = state.parts[-1].name if state.parts else FIRST_PART
    clean = _clean(batch, where, rules, "repeat", received_events=count, repeated=count, part=part)
    return Outcome(msgspec.structs.replace(state, applied=where.offset, seen_at=where.at_ms), clean)


def empty(kind: CleanKind, where: Where, rules: Rules, tenant: str, session_id: str, **counts: int) -> CleanBatch:
    """A clean record that tells of nothing but whose it is, and counts."""
    clean = _clean(_NOTHING, where, rules, kind, received_at=where.at_ms, **counts)  # type: ignore[arg-type]
    return msgspec.structs.replace(clean, tenant=tenant, session_id=session_id)


_NOTHING = RecorderBatch(
    tenant="", session_id="", window_id="", user_id=ANONYMOUS, batch_id="", sequence=None, source="portable",
    client_version=None, imported=False, final=False, sent_at=0, received_at=0, metadata=Metadata(), first_event_at=0,
    last_event_at=0, event_count=0, payload=b"",
)  # fmt: skip
"""The envelope of a record that has none that can be read."""


def _clean(
    batch: RecorderBatch,
    where: Where,
    rules: Rules,
    kind: CleanKind,
    *,
    received_at: int | None = None,
    received_events: int = 0,
    payload: bytes = b"",
    event_count: int = 0,
    first_event_at: int = 0,
    last_event_at: int = 0,
    part: str = "",
    next_parts: tuple[PartStart, ...] = (),
    clock_correction_ms: int = 0,
    throttled: int = 0,
    repeated: int = 0,
    erased: int = 0,
    dead_lettered: int = 0,
    redacted: dict[str, int] | None = None,
    late: bool = False,
) -> CleanBatch:
    """A clean record with the batch's envelope; without events unless given."""
    return CleanBatch(
        kind=kind,
        tenant=batch.tenant,
        session_id=batch.session_id,
        window_id=batch.window_id,
        user_id=batch.user_id,
        batch_id=batch.batch_id,
        sequence=batch.sequence,
        source=batch.source,
        client_version=batch.client_version,
        imported=batch.imported,
        final=batch.final,
        sent_at=batch.sent_at,
        received_at=batch.received_at if received_at is None else received_at,
        metadata=batch.metadata,
        first_event_at=first_event_at,
        last_event_at=last_event_at,
        event_count=event_count,
        payload=payload,
        epoch=rules.epoch,
        source_partition=where.partition,
        source_offset=where.offset,
        source_last_offset=where.offset,
        source_at=where.at_ms,
        retention=rules.retention_of(batch.tenant),
        part=part,
        next_parts=next_parts,
        clock_correction_ms=clock_correction_ms,
        received_events=received_events,
        throttled=throttled,
        repeated=repeated,
        erased=erased,
        dead_lettered=dead_lettered,
        redacted=redacted or {},
        late=late,
    )
