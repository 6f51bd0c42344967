"""A short chaos run with a fixed seed; the schedule itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.schedule import PARTS, schedule

SEED = 20_261_125
ACTIONS = 16


def test_schedule_is_the_seeds_and_kills_every_part_first() -> None:
    assert schedule(7, 50) == schedule(7, 50)
    assert schedule(7, 50) != schedule(8, 50)
    first = schedule(7, 50)[: len(PARTS)]
    assert {(action.kind, action.part) for action in first} == {("kill", part) for part in PARTS}


def test_stores_equal_the_reference_run_after_chaos(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def say(line: str) -> None:
        with capfd.disabled():
            print(line, flush=True)

    run(tmp_path / "home", seed=SEED, actions=ACTIONS, say=say)
