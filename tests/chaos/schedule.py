"""What is done to the stack, drawn from a seed. Pure: the same seed and length give the same schedule."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from tests.chaos.proxy import FAULTS, Fault

Kind = Literal[
    "kill", "terminate", "interrupt", "freeze", "join", "leave", "crash-joined", "fault", "objects-away", "disk-full"
]  # fmt: skip

SERVICES = ("kafka", "warehouse", "object-store")
"""Ended by SIGTERM they are restarted cleanly, by SIGKILL they crash."""
OURS = ("worker", "sink-warehouse", "sink-objects", "sink-objects-s3", "capture")
PARTS = SERVICES + OURS
STORES = ("warehouse", "object-store")
FROZEN_S_MAX = 9.0
"""Near the workers' session time-out: some sleep through a rebalance and wake as zombies."""
OUTAGE_S_MAX = 6.0
JOINED_MAX = 2
"""Beside the stack's own worker: a second and a third."""

#: Weight of each kind among what is drawn.
_WEIGHTS: dict[Kind, int] = {
    "kill": 12,
    "terminate": 18,
    "interrupt": 9,
    "freeze": 2,
    "join": 5,
    "leave": 3,
    "crash-joined": 2,
    "fault": 9,
    "objects-away": 1,
    "disk-full": 2,
}
_COME_AND_GO: tuple[Kind, ...] = ("join", "join", "leave", "crash-joined")
_SIGNALS = frozenset({"kill", "terminate", "interrupt"})
_AT_ONCE = (1, 1, 1, 2, 2, 3)
"""How many parts a signal goes to at once: machines die with more than one process on them."""


@dataclass(frozen=True)
class Action:
    """One thing done; `for_s` is how long a freeze or an outage lasts, `after_batches` what flows before it.

    Of a fault, `parts` are a store and perhaps a sink that is killed in the middle of it.
    """

    kind: Kind
    parts: tuple[str, ...]
    for_s: float
    after_batches: int
    fault: Fault | None = None

    def __str__(self) -> str:
        return " ".join((self.fault or self.kind, " + ".join(self.parts)))


def schedule(seed: int, length: int, *, disk_full: bool = True) -> list[Action]:
    """`length` actions, of which each does something wherever the ones before it were done.

    The first ones are one of everything, in random order: every part killed, the broker restarted, joins and leaves,
    every fault; the rest is drawn by weight. `disk_full` says whether a full disk can be played.
    """
    rng = random.Random(seed)
    every = _one_of_everything(rng)
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    drawn = [_drawn(rng, kind) for kind in rng.choices(kinds, weights, k=max(0, length - len(every)))]
    planned = [each for each in every + drawn if disk_full or each.kind != "disk-full"]
    return _possible(rng, planned[:length])


def _one_of_everything(rng: random.Random) -> list[Action]:
    parts = rng.sample(PARTS, len(PARTS))
    found = [_at(rng, "kill", tuple(parts[n : n + 3])) for n in range(0, len(parts), 3)]
    found += [_at(rng, "terminate", ("kafka",)), _at(rng, "disk-full", ("sink-objects",))]
    found += [_fault(rng, fault, kill=rng.random() < 0.4) for fault in FAULTS]
    rng.shuffle(found)
    moments = sorted(rng.sample(range(len(found) + 1), len(_COME_AND_GO)), reverse=True)
    for moment, kind in zip(moments, reversed(_COME_AND_GO), strict=True):
        found.insert(moment, _drawn(rng, kind))
    return found


def _drawn(rng: random.Random, kind: Kind) -> Action:
    if kind == "fault":
        return _fault(rng, rng.choice(FAULTS), kill=rng.random() < 0.4)
    if kind in _SIGNALS:
        return _at(rng, kind, tuple(rng.sample(PARTS, rng.choice(_AT_ONCE))))
    if kind == "freeze":
        return _at(rng, kind, (rng.choice(PARTS),), longest_s=FROZEN_S_MAX)
    if kind in {"objects-away", "disk-full"}:
        return _at(rng, kind, ("sink-objects",))
    return _at(rng, kind, ("worker",))


def _fault(rng: random.Random, fault: Fault, *, kill: bool) -> Action:
    store = "warehouse" if fault == "exception" else rng.choice(STORES)
    sinks = ("sink-warehouse", "sink-objects", "sink-objects-s3") if store == "warehouse" else ("sink-objects-s3",)
    return _at(rng, "fault", (store, rng.choice(sinks)) if kill else (store,), fault=fault)


def _at(
    rng: random.Random,
    kind: Kind,
    parts: tuple[str, ...],
    *,
    longest_s: float = OUTAGE_S_MAX,
    fault: Fault | None = None,
) -> Action:
    return Action(kind, parts, round(rng.uniform(1.0, longest_s), 1), rng.randint(5, 40), fault)


def _possible(rng: random.Random, planned: list[Action]) -> list[Action]:
    """The same, where a worker leaves only if one has joined, and at most JOINED_MAX have: else the opposite is done."""
    joined, found = 0, []
    for action in planned:
        kind = action.kind
        if kind == "join" and joined == JOINED_MAX:
            kind = rng.choice(("leave", "crash-joined"))
        elif kind in {"leave", "crash-joined"} and not joined:
            kind = "join"
        joined += {"join": 1, "leave": -1, "crash-joined": -1}.get(kind, 0)
        found.append(Action(kind, action.parts, action.for_s, action.after_batches, action.fault))
    return found


def told(done: list[Action]) -> str:
    """How often what was done, and the signals in total: the report."""
    kinds = Counter(_word(action) for action in done)
    signals: Counter[str] = Counter()
    for action in done:
        if action.kind in _SIGNALS:
            signals[action.kind] += len(action.parts)
        elif action.kind == "fault":
            signals["kill"] += len(action.parts) - 1
        signals["kill"] += action.kind == "crash-joined"
        signals["terminate"] += action.kind == "leave"
    lines = [f"{word} ×{n}" for word, n in sorted(kinds.items())]
    return f"{', '.join(lines)}; KILL ×{signals['kill']}, TERM or INT ×{signals['terminate'] + signals['interrupt']}"


def _word(action: Action) -> str:
    if action.kind == "fault":
        return f"{action.parts[0]} {action.fault}"
    if action.kind == "terminate" and action.parts == ("kafka",):
        return "broker restart"
    return action.kind
