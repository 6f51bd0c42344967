"""The reference run: the pure chain over raw records, in order, in one thread, without a crash.

What the clean log, the rows and the objects must equal, whatever happened to the processes that made them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from pipeline.errors import PoisonError, ReplayError
from pipeline.model.batches import ErasureRequest, RecorderBatch
from pipeline.topics.codec import RawCodec
from pipeline.workers.chain import Outcome, Where, dead_letter, refusal, step
from pipeline.workers.erase import erase, is_erased, refuse
from pipeline.workers.rules import Rules
from pipeline.workers.state import SessionState


@dataclass(frozen=True)
class RawRecord:
    """One message of replay.batches."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None

    @property
    def where(self) -> Where:
        return Where(self.topic, self.partition, self.offset, self.timestamp_ms)


class States(Protocol):
    """Where a session's state is looked up, by (tenant, session_id)."""

    def get(self, key: tuple[str, str], /) -> SessionState | None: ...


def process(record: RawRecord, states: States, codec: RawCodec, rules: Rules) -> Outcome:
    """One record against the states known so far; does not change them.

    Total: what cannot be processed becomes a dead letter, also where a bug meets it, since one record must not stop a
    partition. Raises only what is not the record's fault: a schema registry that is away, memory that is short.
    """
    batch: RecorderBatch | None = None
    try:
        read = codec.decode(record.value)
        state = states.get((read.tenant, read.session_id))
        if isinstance(read, ErasureRequest):
            return erase(state, read, record.where, rules)
        batch = read
        if is_erased(state, record.where, rules):
            return refuse(batch, record.where, rules)
        outcome = step(state, batch, record.where, rules)
        if outcome.refused is None:
            return outcome
        value = codec.encode(outcome.refused.batch)
        return msgspec.structs.replace(outcome, dead=refusal(outcome.refused, record.key, value, record.where, rules))
    except PoisonError as error:
        poison = error
    except (ReplayError, MemoryError):
        raise
    except Exception as error:
        poison = PoisonError("unexpected", f"{type(error).__name__}: a bug, please report it")
    return dead_letter(poison, batch, record.key, record.value or b"", record.where, rules)


def reference_run(records: Iterable[RawRecord], codec: RawCodec, rules: Rules) -> Iterator[Outcome]:
    """One outcome a record. Records of one partition must come in the order of their offsets."""
    states: dict[int, dict[tuple[str, str], SessionState]] = {}
    for record in records:
        known = states.setdefault(record.partition, {})
        outcome = process(record, known, codec, rules)
        if outcome.state is not None:
            known[outcome.clean.tenant, outcome.clean.session_id] = outcome.state
        yield outcome
