"""What is done to the stack, drawn from a seed. Pure: the same seed and length give the same schedule."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "terminate", "interrupt", "freeze", "join", "leave", "crash-joined", "objects-away"]

PARTS = ("worker", "sink-warehouse", "sink-objects", "warehouse", "kafka", "capture")
FROZEN_S_MAX = 9.0
"""Above the workers' session time-out: some sleep through a rebalance and wake as zombies."""

#: Weight of each kind. A third of the signals are kill -9, as a machine dies; the rest as a deploy ends a process.
_WEIGHTS: dict[Kind, int] = {
    "kill": 8,
    "terminate": 8,
    "interrupt": 4,
    "freeze": 3,
    "join": 3,
    "leave": 2,
    "crash-joined": 2,
    "objects-away": 1,
}
_SIGNALS = frozenset({"kill", "terminate", "interrupt", "freeze"})


@dataclass(frozen=True)
class Action:
    """One thing done to one part; `for_s` is how long a freeze or an outage lasts, `after_batches` what flows before it."""

    kind: Kind
    part: str
    for_s: float
    after_batches: int


def schedule(seed: int, length: int) -> list[Action]:
    """`length` actions. The first ones kill every part once with -9, in random order; the rest are drawn by weight."""
    rng = random.Random(seed)
    first = [Action("kill", part, 0.0, rng.randint(5, 40)) for part in rng.sample(PARTS, len(PARTS))]
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    drawn = []
    for kind in rng.choices(kinds, weights, k=max(0, length - len(first))):
        part = rng.choice(PARTS) if kind in _SIGNALS else "worker"
        drawn.append(Action(kind, part, round(rng.uniform(1.0, FROZEN_S_MAX), 1), rng.randint(5, 40)))
    return (first + drawn)[:length]


def told(actions: list[Action]) -> str:
    """How often what is done to what, for a report."""
    counts = Counter((action.kind, action.part) for action in actions)
    return ", ".join(f"{kind} {part} ×{n}" for (kind, part), n in sorted(counts.items()))
