"""One chaos run from start to account."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pipeline.local.stack import Stack
from tests.chaos.harness import Chaos
from tests.chaos.schedule import schedule, told
from tests.e2e import accounts
from tests.e2e.conftest import settings_for
from tests.e2e.flow import Flow


def run(home: Path, *, seed: int, actions: int, say: Callable[[str], None]) -> None:
    """Raises AssertionError where the stores differ from the reference run in anything."""
    settings = settings_for(home)
    planned = schedule(seed, actions)
    say(f"chaos: SEED={seed} ACTIONS={actions}: {told(planned)}")
    began = time.monotonic()
    with Stack(settings) as stack:
        flow = Flow(settings)
        flow.start()
        try:
            Chaos(stack, flow, say=say).run(planned)
        finally:
            flow.stop()
        assert flow.failed is None, f"the flow ended: {flow.failed!r}"
        accounts.arrived(settings)
        accounts.must_equal_the_reference(settings, accepted=flow.accepted)
        say(
            f"chaos: SEED={seed}: {len(planned)} actions, {flow.batches:,} batches, {flow.events:,} events accepted, "
            f"{time.monotonic() - began:.0f} s: none missing, none twice, stores equal the reference run"
        )
