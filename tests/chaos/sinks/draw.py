"""What a round is, drawn from its seed. Pure.

DECK rounds share out every blow on every wire among them: seeds 0..14 have one of everything, and so have 15..29.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from tests.chaos.proxy import FAULTS, Fault

DECK = 15
"""Rounds that share one deck of blows."""
STRIKES = 4
"""In one round."""

Wire = Literal["rows", "index", "objects"]
"""The warehouse sink's to the warehouse (sessions go by it too), the object sink's to the warehouse, and to the object store."""
Kind = Literal["fault", "kill", "terminate", "freeze", "store-killed", "store-stopped"]
"""A fault of the wire; the sink that asks gets SIGKILL, SIGTERM, or sleeps through a rebalance and wakes; the store that is
asked gets SIGKILL or SIGTERM, and is started again."""
When = Literal["before", "during", "after", "late"]
"""Before the store has the request that is struck, while it works at it, when it has done it; or the request comes when the
sink that sent it is dead and its successor at work."""

WIRES: tuple[Wire, ...] = ("rows", "index", "objects")


@dataclass(frozen=True)
class Blow:
    kind: Kind
    when: When
    fault: Fault | None = None

    def __str__(self) -> str:
        return self.fault or f"{self.kind} {self.when}"


BLOWS = (
    *(Blow("fault", "before", fault) for fault in FAULTS),
    Blow("kill", "before"),
    Blow("kill", "after"),
    Blow("kill", "late"),
    Blow("terminate", "before"),
    Blow("freeze", "before"),
    Blow("freeze", "after"),
    Blow("store-killed", "before"),
    Blow("store-killed", "during"),
    Blow("store-killed", "after"),
    Blow("store-stopped", "during"),
)
EVERYTHING = tuple(
    (wire, blow) for wire in WIRES for blow in BLOWS if not (wire == "objects" and blow.fault == "exception")
)

_STEPS: dict[Wire, int] = {"rows": 14, "index": 14, "objects": 8}
"""A flush's requests and some more: every step of it may be the one that is struck."""
_TIMES_OUT = frozenset({"silent", "request-late", "answer-late"})


@dataclass(frozen=True)
class Strike:
    """A blow at the `at`-th request on a wire after the strike before it, and at the `hits` - 1 next ones. `for_s`: how long a
    sleep or an outage lasts, how late a request is, or how far into a request its store is killed."""

    wire: Wire
    blow: Blow
    at: int
    hits: int
    for_s: float

    def __str__(self) -> str:
        return f"{self.wire}: {self.blow} (request {self.at}, ×{self.hits}, {self.for_s} s)"


@dataclass(frozen=True)
class Round:
    seed: int
    partitions: int
    strikes: tuple[Strike, ...]
    """Those of one wire come in this order."""

    @property
    def in_s3(self) -> bool:
        """The object store is S3's where that is struck, else a directory."""
        return any(strike.wire == "objects" for strike in self.strikes)


def draw(seed: int) -> Round:
    block, place = divmod(seed, DECK)
    dealer = random.Random(f"deck {block}")
    deck = [*EVERYTHING, *dealer.choices(EVERYTHING, k=DECK * STRIKES - len(EVERYTHING))]
    dealer.shuffle(deck)
    rng = random.Random(f"round {seed}")
    strikes = tuple(_strike(rng, wire, blow) for wire, blow in deck[place * STRIKES : (place + 1) * STRIKES])
    return Round(seed, rng.choice((1, 4)), strikes)


def _strike(rng: random.Random, wire: Wire, blow: Blow) -> Strike:
    hits = 1
    if blow.kind == "fault":
        hits = rng.randint(1, 2 if blow.fault in _TIMES_OUT else 3)
    seconds = {"fault": 0.3, "kill": 5.0, "freeze": 4.0}.get(blow.kind, 1.5)
    if blow.when == "during":
        seconds = 0.03
    return Strike(wire, blow, rng.randint(1, _STEPS[wire]), hits, round(rng.uniform(0, seconds), 3))
