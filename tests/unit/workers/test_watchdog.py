"""A stuck process dumps its stacks and ends; one that works or waits on purpose does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEFORE = """
import time
from pipeline.workers.watchdog import Watchdog
dog = Watchdog(0.5, stop_within_s=0.5)
def beat(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        dog.alive()
        time.sleep(0.05)
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEFORE + script], capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize(
    "script",
    ["dog.alive(); time.sleep(10)", "dog.busy(); beat(10)", "dog.stopping(); beat(10)"],
    ids=["the loop is blocked", "a chunk does not end", "a stop does not end"],
)
def test_a_stuck_process_says_where_and_ends(script: str) -> None:
    done = run(script)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>", line ' in done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "beat(1.5)",
        "dog.busy(); beat(0.2); dog.idle(); beat(1.5)",
        "dog.alive(); dog.stop(); time.sleep(1)",
        "beat(0.2); dog.stopping(); beat(0.2)",
    ],
)
def test_one_that_works_or_waits_on_purpose_goes_on(script: str) -> None:
    done = run(script + "\nprint('through')")
    assert (done.returncode, done.stdout) == (0, "through\n")
