"""The parts of the embedded stack: what to run, in which order, and how to tell that it is ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pipeline import settings as settings_table
from pipeline.local import kafka
from pipeline.settings import Settings


@dataclass(frozen=True)
class Part:
    """One supervised process. Without `probe` it is ready when it says so on its notify socket."""

    name: str
    command: tuple[str, ...]
    environ: dict[str, str]
    address: str = ""
    probe: Callable[[], bool] | None = None
    stop_grace_s: float = 6.0
    before: tuple[str, ...] = ()
    """Run to its end first, each time the part starts."""


@dataclass(frozen=True)
class Stage:
    """Parts that start together; `after` runs once all of them are ready, before the next stage, and again while it
    raises RetryableError."""

    parts: tuple[Part, ...]
    after: Callable[[], None] | None = None


def listeners(settings: Settings) -> dict[str, tuple[int, str]]:
    """Which part listens where: name → (port, the setting that moves it)."""
    return {
        "kafka": (settings.kafka_port, "REPLAY_KAFKA_PORT"),
        "warehouse": (settings.warehouse_port, "REPLAY_WAREHOUSE_PORT"),
        "capture": (settings.capture_port, "REPLAY_CAPTURE_PORT"),
        "api": (settings.api_port, "REPLAY_API_PORT"),
    }


def stages(settings: Settings, broker: kafka.Broker) -> tuple[Stage, ...]:
    """Stores first, then what fills and reads them."""
    environ = child_environ(settings)
    kafka_part = Part(
        "kafka",
        broker.command,
        dict(os.environ),
        address=f"127.0.0.1:{settings.kafka_port}",
        probe=lambda: kafka.answers(settings),
        before=broker.format,
    )
    warehouse = Part(
        "warehouse",
        (sys.executable, "-m", "pipeline.local.warehouse"),
        environ,
        address=f"http://127.0.0.1:{settings.warehouse_port}",
    )

    def ours(name: str, *arguments: str, **more: object) -> Part:
        return Part(name, (sys.executable, "-m", "pipeline", *arguments), environ, **more)  # type: ignore[arg-type]

    rest = (
        ours("worker", "worker"),
        ours("sink-warehouse", "sink", "warehouse"),
        ours("sink-objects", "sink", "objects"),
        ours(
            "capture",
            "capture",
            address=f"http://{settings.host}:{settings.capture_port}",
        ),
        ours(
            "api",
            "api",
            address=f"http://{settings.host}:{settings.api_port}",
        ),
    )
    return Stage((kafka_part, warehouse), after=lambda: _lay_out(settings)), Stage(rest)


def child_environ(settings: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(settings_table.PREFIX)}
    return {**kept, **settings_table.to_environ(settings)}


def _lay_out(settings: Settings) -> None:
    """Topics and tables: both idempotent."""
    from pipeline.storage.migrate import migrate
    from pipeline.topics import clients
    from pipeline.topics.catalogue import catalogue

    clients.apply(clients.admin(settings), catalogue(settings))
    migrate(settings)
