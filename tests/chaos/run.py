"""One chaos run from start to account."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.local.stack import Stack
from pipeline.settings import Settings
from tests import s3
from tests.chaos import up
from tests.chaos.disk import SmallDisk, can_mount
from tests.chaos.harness import Chaos
from tests.chaos.proxy import FaultProxy
from tests.chaos.schedule import schedule, told
from tests.e2e import accounts
from tests.e2e.conftest import settings_for
from tests.e2e.flow import Flow

BATCHES_PER_S = 25.0


def run(home: Path, *, seed: int, actions: int, say: Callable[[str], None]) -> None:
    """Raises AssertionError where the stores differ from the reference run in anything."""
    disk = SmallDisk(home / "disk") if can_mount() else None
    planned = schedule(seed, actions, disk_full=disk is not None)
    say(f"chaos: SEED={seed} ACTIONS={actions}" + ("" if disk else "; no full disk: a tmpfs cannot be mounted here"))
    began = time.monotonic()
    settings = dataclasses.replace(settings_for(home), objects_url=(home.absolute() / "disk" / "objects").as_uri())
    with contextlib.ExitStack() as all_of_it:
        if disk:
            all_of_it.enter_context(disk.mounted())
        (home / "disk" / "objects").mkdir(parents=True)
        server = s3.a_server()
        all_of_it.enter_context(_in_environ(server.environ))
        proxies = {
            "warehouse": FaultProxy(settings.warehouse_port, seed=seed, own_host=False),
            "object-store": FaultProxy(server.port, seed=seed + 1),
        }
        for proxy in proxies.values():
            all_of_it.callback(proxy.close)
        wires = up.Wires(proxies["warehouse"].url, proxies["object-store"].url, server)
        stack = all_of_it.enter_context(Stack(settings, command=up.command(wires)))
        flow = Flow(settings, batches_per_s=BATCHES_PER_S)
        chaos = Chaos(stack, flow, proxies, disk, home / "disk" / "objects", say)
        flow.start()
        try:
            chaos.run(planned)
        finally:
            flow.stop()
        assert flow.failed is None, f"the flow ended: {flow.failed!r}"
        rows = _account(settings, up.with_s3(settings, server.endpoint), flow)
        say(f"chaos: SEED={seed}: {len(chaos.done)} actions in {time.monotonic() - began:.0f} s: {told(chaos.done)}")
        struck = sum((proxy.struck for proxy in proxies.values()), Counter[str]())
        say(f"chaos: requests struck: {dict(sorted(struck.items()))}")
        say(f"chaos: ended by themselves: {chaos.ended_by_themselves()}, joined workers: {chaos.replaced}")
        say(
            f"chaos: SEED={seed}: {flow.batches:,} batches with {flow.events:,} events accepted, {rows:,} rows after the "
            "chain: none missing, none twice; tables, objects in a directory and objects in S3 equal the reference run"
        )


def _account(settings: Settings, in_s3: Settings, flow: Flow) -> int:
    """Waits for the end of all work, compares everything; returns how many rows there are."""
    accounts.arrived(settings)
    wanted = accounts.must_equal_the_reference(settings, accepted=flow.accepted)
    accounts.objects_arrived(in_s3, len(wanted.rows))
    accounts.objects_must_hold(in_s3, Counter(wanted.rows.values()))
    return len(wanted.rows)


@contextmanager
def _in_environ(given: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
