"""A short chaos run with a fixed seed; the schedule itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.disk import can_mount
from tests.chaos.proxy import FAULTS
from tests.chaos.run import run
from tests.chaos.schedule import JOINED_MAX, PARTS, schedule, told
from tests.support import need

SEED = 2_114
ACTIONS = 18


def test_schedule_is_the_seeds() -> None:
    assert schedule(7, 50) == schedule(7, 50)
    assert schedule(7, 50) != schedule(8, 50)


@pytest.mark.parametrize("seed", [SEED, 1, 2, 3])
def test_even_a_short_schedule_has_one_of_everything(seed: int) -> None:
    planned = schedule(seed, ACTIONS)
    assert len(planned) == ACTIONS
    assert {part for action in planned if action.kind == "kill" for part in action.parts} == set(PARTS)
    assert {action.fault for action in planned if action.kind == "fault"} == set(FAULTS)
    assert {action.parts for action in planned if action.kind == "terminate"} >= {("kafka",)}
    assert {action.kind for action in planned} >= {"join", "leave", "crash-joined", "disk-full"}


@pytest.mark.parametrize("seed", range(20))
def test_nobody_leaves_who_has_not_joined_and_at_most_two_have(seed: int) -> None:
    joined = 0
    most = 0
    for action in schedule(seed, 200):
        joined += {"join": 1, "leave": -1, "crash-joined": -1}.get(action.kind, 0)
        assert 0 <= joined <= JOINED_MAX
        most = max(most, joined)
    assert most == JOINED_MAX


def test_long_run_kills_50_times_and_ends_100_times() -> None:
    """`make chaos` without arguments, whatever the seed."""
    from tests.chaos.__main__ import ACTIONS as LONG

    for seed in range(50):
        kills, ends = (int(word.rpartition("×")[2]) for word in told(schedule(seed, LONG)).split("; ")[1].split(", "))
        assert kills >= 50
        assert ends >= 100


def test_full_disks_can_be_played_here() -> None:
    need(can_mount(), "the right to mount a tmpfs; chaos runs go without full disks")


def test_stores_equal_the_reference_run_after_chaos(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def say(line: str) -> None:
        with capfd.disabled():
            print(line, flush=True)

    run(tmp_path / "home", seed=SEED, actions=ACTIONS, say=say)
