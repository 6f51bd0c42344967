"""The circuit breaker: a bad deploy must not turn a whole topic into dead letters. Pure but for its own counts.

One record that nobody can read is poison; many in a row, or half of the last two hundred, are more likely our own mistake: a
worker of the wrong version, a registry that changed. Then the worker stops *before* it writes the next dead letter, keeps its
partitions and waits for somebody to look, while lag grows and nothing is lost.

Only reasons that a wrong version could cause count: what a client can bring about with a legal request must not be able to
stop the line.
"""

from __future__ import annotations

from collections import deque

from pipeline.model.batches import DeadReason

COUNTED: frozenset[DeadReason] = frozenset({"not_avro", "unknown_schema", "bad_envelope", "bad_payload", "unexpected"})
WINDOW_RECORDS = 200


class Breaker:
    """Sees the outcome of each record in order. A limit of 0 is no limit."""

    def __init__(self, *, consecutive_max: int, percent_max: int) -> None:
        self._consecutive_max = consecutive_max
        self._percent_max = percent_max
        self._recent: deque[bool] = deque(maxlen=WINDOW_RECORDS)
        self._in_a_row = 0

    def why_not(self, reason: str | None) -> str | None:
        """None where the record may go its way (`reason` None: it was processed), else why the line must stop."""
        dead = reason in COUNTED
        in_a_row = self._in_a_row + 1 if dead else 0
        if dead and self._consecutive_max and in_a_row > self._consecutive_max:
            return f"more than {self._consecutive_max} records in a row cannot be processed, the last for {reason}"
        share = sum(self._recent) + 1
        if (
            dead
            and self._percent_max
            and len(self._recent) == WINDOW_RECORDS
            and share * 100 > self._percent_max * WINDOW_RECORDS
        ):
            return f"{share} of the last {WINDOW_RECORDS} records cannot be processed, the last for {reason}"
        self._in_a_row = in_a_row
        self._recent.append(dead)
        return None
