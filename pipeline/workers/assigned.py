"""The partitions that one generation of the group is given, and what becomes of their records: rules 1 to 4 of `app`.

No Faust in here: a record is whatever has topic, partition, offset, timestamp, key and value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import structlog

from pipeline.errors import FatalError, PausedError
from pipeline.model.batches import CleanBatch, DeadLetter, SessionUpdate, session_key
from pipeline.topics.codec import RawCodec
from pipeline.workers.breaker import Breaker
from pipeline.workers.chain import Where, lost
from pipeline.workers.keeping import Held, Sessions
from pipeline.workers.reference import RawRecord, process
from pipeline.workers.rules import Rules
from pipeline.workers.sessionize import close_by_clock, may_be_released
from pipeline.workers.state import SessionState, encode_state, released
from pipeline.workers.store import Partition, state_key

Touched = dict[tuple[int, bytes], Held]
"""By (partition, session key): what a chunk has changed or relies on, not yet written."""

log = structlog.get_logger()


class Written(Protocol):
    """Where outputs go (`pipeline.workers.outputs`)."""

    def clean(self, batch: CleanBatch, key: bytes | None) -> None: ...
    def session(self, update: SessionUpdate, at_ms: int) -> None: ...
    def dead_letter(self, dead: DeadLetter) -> None: ...
    def state(self, key: bytes, value: bytes | None, partition: int) -> None: ...


class Assigned:
    """Partitions by number. `log_start` asks the broker for a partition's first offset."""

    def __init__(
        self,
        generation: int,
        partitions: dict[int, Partition],
        outputs: Written,
        codec: RawCodec,
        rules: Rules,
        breaker: Breaker,
        log_start: Callable[[int], int],
    ) -> None:
        self.generation, self.partitions = generation, partitions
        self._outputs, self._codec, self._rules, self._breaker = outputs, codec, rules, breaker
        self._log_start = log_start
        self._told_closed: dict[bytes, int] = {}

    def record(self, message: Any, touched: Touched) -> None:
        """One record of ours: its outputs are put, its state goes into `touched`. Raises FatalError where records are
        missing, PausedError where the breaker opens."""
        number, offset = message.partition, message.offset
        partition = self.partitions[number]
        if offset < partition.next_offset:
            return
        if offset > partition.next_offset:
            self._skip_lost(message, partition)
        partition.next_offset = offset + 1
        record = RawRecord(message.topic, number, offset, _at_ms(message), message.key, message.value)
        known = _Overlay(number, touched, partition.sessions)
        outcome = process(record, known, self._codec, self._rules)
        session = session_key(outcome.clean.tenant, outcome.clean.session_id)
        held = known.held(session)
        if held is not None and offset <= held.state.applied:
            touched.setdefault((number, session), held)  # its outputs exist; our commit relies on this state
            return
        why_not = self._breaker.why_not(outcome.dead.reason if outcome.dead else None)
        if why_not is not None:
            raise PausedError(f"{message.topic} partition {number} offset {offset}: {why_not}")
        if outcome.dead is not None:
            self._outputs.dead_letter(outcome.dead)
            log.warning("dead_letter", partition=number, offset=offset, reason=outcome.dead.reason)
        self._outputs.clean(outcome.clean, message.key)
        for update in outcome.sessions:
            self._outputs.session(update, record.timestamp_ms)
        if outcome.state is not None:
            touched[number, session] = Held(outcome.state, self.generation)

    def _skip_lost(self, message: Any, partition: Partition) -> None:
        """An offset above the wanted one: allowed only where the log itself begins later now."""
        number, offset, wanted = message.partition, message.offset, partition.next_offset
        begins = self._log_start(number)
        if not wanted < begins or offset > begins:
            raise FatalError(
                f"{message.topic} partition {number} jumps from offset {wanted} to {offset}, and its log begins at "
                f"{begins}: records are missing that retention did not remove"
            )
        log.error("retention_overtook_the_worker", partition=number, first=wanted, last=offset - 1)
        where = Where(message.topic, number, wanted, _at_ms(message))
        self._outputs.clean(lost(wanted, offset - 1, where, self._rules), None)

    def write_states(self, touched: Touched) -> None:
        """The new record first, older generations' tombstone after it, on the same partition."""
        for (number, session), held in touched.items():
            sessions = self.partitions[number].sessions
            before = sessions.get(session)
            if before is held and held.generation == self.generation:
                continue  # relied on, and already ours
            self._write(session, held.state, before, number)

    def tidy(self, now_ms: int, is_read_up: Callable[[int], bool]) -> None:
        """Tells of idle sessions that they are closed and releases those past their grace, by the worker's clock.

        Only in a partition that `is_read_up`: where records wait, their own times have yet to say what is idle, and one of
        them may need the very state. No await in here: a chunk's own writes of a session come wholly before or after.
        """
        for number, partition in self.partitions.items():
            if not is_read_up(number):
                continue
            for session, held in partition.sessions.live():
                if may_be_released(held.state, self._rules, now_ms):
                    marker = released(held.state.applied, held.state.seen_at)
                    self._write(session, marker, held, number)
                    self._told_closed.pop(session, None)
                elif self._told_closed.get(session) != held.state.applied:
                    closed = close_by_clock(held.state, self._rules, number, now_ms)
                    if closed is not None:
                        self._outputs.session(closed, now_ms)
                        self._told_closed[session] = held.state.applied
            partition.sessions.forget_markers(now_ms - 2 * self._rules.session_memory_ms)

    def _write(self, session: bytes, state: SessionState, before: Held | None, number: int) -> None:
        self._outputs.state(state_key(session, self.generation), encode_state(state), number)
        if before is not None and before.generation < self.generation:
            self._outputs.state(state_key(session, before.generation), None, number)
        self.partitions[number].sessions.put(session, Held(state, self.generation))

    def close(self) -> None:
        for partition in self.partitions.values():
            partition.sessions.close()


class _Overlay:
    """The states that a record sees: those touched in this chunk before those kept."""

    def __init__(self, number: int, touched: Touched, sessions: Sessions) -> None:
        self._number, self._touched, self._sessions = number, touched, sessions

    def get(self, key: tuple[str, str], /) -> SessionState | None:
        found = self.held(session_key(*key))
        return found.state if found else None

    def held(self, session: bytes) -> Held | None:
        return self._touched.get((self._number, session)) or self._sessions.get(session)


def _at_ms(message: Any) -> int:
    """LogAppendTime; Faust hands it on in seconds, as a float that must not be cut."""
    at_ms: int = round(message.timestamp * 1000)
    return at_ms
