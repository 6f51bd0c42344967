"""Whole stacks, started as a user starts them: `replay up` in a home of its own, on free ports."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import settings as settings_table
from pipeline.keys import KeyFile
from pipeline.load import traffic
from pipeline.load.recordings import bundled
from pipeline.load.senders import Sender
from pipeline.local.ports import free_ports
from pipeline.local.stack import Stack
from pipeline.settings import Settings
from tests.e2e.accounts import arrived

RUN = "e2e"


def settings_for(home: Path) -> Settings:
    capture, api, warehouse, kafka = free_ports(4)
    return dataclasses.replace(
        settings_table.load(),
        home=home,
        capture_port=capture,
        api_port=api,
        warehouse_port=warehouse,
        kafka_port=kafka,
        objects_flush_age_ms=2_000,
    )


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack that holds one copy of every bundled recording, stored in both stores."""
    settings = settings_for(tmp_path_factory.mktemp("stack"))
    with Stack(settings) as running:
        keys = KeyFile(settings.keys).first()
        sender = Sender(settings, tenant=keys.tenant, write_key=keys.write)
        sender.send(traffic.plan(bundled(), run_id=RUN, now_ms=time.time_ns() // 1_000_000, copies=1))
        sender.close()
        arrived(settings)
        yield running
