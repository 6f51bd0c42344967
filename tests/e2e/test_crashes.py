"""Crash equivalence: whatever is killed while recordings flow, the stores end up as one uninterrupted run leaves them."""

from __future__ import annotations

from pathlib import Path

from pipeline.local.stack import Stack
from tests.e2e import accounts
from tests.e2e.conftest import settings_for
from tests.e2e.flow import Flow
from tests.support import eventually

KILLED = ("worker", "sink-warehouse", "sink-objects", "warehouse", "kafka", "capture", "worker")
BACK_LIMIT_S = 60.0
BATCHES_BETWEEN = 30


def test_stores_equal_the_reference_run_after_every_part_was_killed(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "home")
    with Stack(settings) as stack:
        flow = Flow(settings)
        flow.start()
        try:
            for part in KILLED:
                before = flow.batches
                eventually(
                    lambda before=before: flow.batches >= before + BATCHES_BETWEEN or flow.failed,
                    within_s=BACK_LIMIT_S,
                    why="recordings flow",
                )
                old = stack.kill(part)
                eventually(
                    lambda part=part, old=old: any(
                        each.name == part and each.ready and each.pid != old for each in stack.status()
                    ),
                    within_s=BACK_LIMIT_S,
                    why=f"{part} is back",
                )
        finally:
            flow.stop()
        assert flow.failed is None
        accounts.arrived(settings)
        accounts.must_equal_the_reference(settings, accepted=flow.accepted)
