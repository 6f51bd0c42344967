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
    port: int | None = None
    port_setting: str = ""
    probe: Callable[[], bool] | None = None
    stop_grace_s: float = 6.0


@dataclass(frozen=True)
class Stage:
    """Parts that start together; `after` runs once all of them are ready, before the next stage."""

    parts: tuple[Part, ...]
    after: Callable[[], None] | None = None


def stages(settings: Settings, *, quiet: bool = False) -> tuple[Stage, ...]:
    """Stores first, then what fills and reads them. Fetches the broker's jars where they are missing."""
    environ = child_environ(settings)
    broker = Part(
        "kafka",
        tuple(kafka.prepare(settings, quiet=quiet)),
        dict(os.environ),
        address=f"127.0.0.1:{settings.kafka_port}",
        port=settings.kafka_port,
        port_setting="REPLAY_KAFKA_PORT",
        probe=lambda: kafka.answers(settings),
    )
    warehouse = Part(
        "warehouse",
        (sys.executable, "-m", "pipeline.local.warehouse"),
        environ,
        address=f"http://127.0.0.1:{settings.warehouse_port}",
        port=settings.warehouse_port,
        port_setting="REPLAY_WAREHOUSE_PORT",
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
            port=settings.capture_port,
            port_setting="REPLAY_CAPTURE_PORT",
        ),
        ours(
            "api",
            "api",
            address=f"http://{settings.host}:{settings.api_port}",
            port=settings.api_port,
            port_setting="REPLAY_API_PORT",
        ),
    )
    return Stage((broker, warehouse), after=lambda: _lay_out(settings)), Stage(rest)


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
