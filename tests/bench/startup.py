"""Start-up of the embedded stack: seconds until every part is ready, after the first download."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from pipeline import settings as settings_table
from pipeline.local.ports import free_ports
from pipeline.local.stack import Stack

ROUNDS = 3


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as folder:
        capture, api, warehouse, kafka = free_ports(4)
        settings = dataclasses.replace(
            settings_table.load(),
            home=Path(folder) / "home",
            capture_port=capture,
            api_port=api,
            warehouse_port=warehouse,
            kafka_port=kafka,
        )
        first, *later = (_start(settings) for _ in range(1 + ROUNDS))
        print(f"a new home {first:.1f} s; a home that has data, {ROUNDS} starts: {_spread(later)}")


def _start(settings: settings_table.Settings) -> float:
    began = time.monotonic()
    with Stack(settings):
        return time.monotonic() - began


def _spread(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):.1f} s ({min(seconds):.1f}–{max(seconds):.1f})"


if __name__ == "__main__":
    main()
