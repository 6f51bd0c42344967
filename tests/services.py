"""Real services as processes of a test's own: the broker, the embedded warehouse, the S3 server. They can be killed and started again."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline import settings as settings_table
from pipeline.local import kafka, process
from pipeline.local.parts import child_environ
from pipeline.local.ports import free_ports, is_taken
from pipeline.settings import Settings
from tests import s3
from tests.support import eventually

START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0


class Service:
    """One process, on the same data in each of its lives."""

    def __init__(self, command: Sequence[str], environ: dict[str, str], log: Path, answers: Callable[[], bool]) -> None:
        self._command, self._environ, self._log, self._answers = command, environ, log, answers
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers. From the main thread only (see `process.start`)."""
        self.launch()
        eventually(lambda: self._answers() or not self.runs, within_s=START_LIMIT_S, why=f"{self._log.stem} answers")
        assert self.runs, f"{self._log.stem} ended before it answered: {self._log} says why"

    def ensure(self) -> None:
        """It answers when this returns."""
        if not (self.runs and self._answers()):
            self.kill()
            self.start()

    def launch(self) -> None:
        """Does not wait for it."""
        self._running = process.start(self._command, self._environ, self._log)

    @property
    def runs(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def send(self, how: signal.Signals) -> None:
        """From any thread; nothing happens where it does not run."""
        if self._running is not None:
            self._running.send_signal(how)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.send(signal.SIGKILL)
        if self._running is not None:
            self._running.wait()

    def stop(self) -> None:
        """SIGTERM; killed where it does not end."""
        self.send(signal.SIGTERM)
        try:
            if self._running is not None:
                self._running.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            self.start()
            yield
        finally:
            self.stop()


def broker(home: Path) -> tuple[Settings, Service]:
    """On a free port; the settings say which."""
    (port,) = free_ports(1)
    settings = dataclasses.replace(settings_table.load(), home=home, kafka_port=port)
    command = kafka.prepare(settings, quiet=True)
    return settings, Service(command, dict(os.environ), home.with_suffix(".log"), lambda: kafka.answers(settings))


def warehouse(home: Path) -> tuple[Settings, Service]:
    """On a free port; the settings say which."""
    (port,) = free_ports(1)
    settings = dataclasses.replace(settings_table.load(), home=home, warehouse_port=port)
    home.mkdir()
    command = [sys.executable, "-m", "pipeline.local.warehouse"]
    return settings, Service(command, child_environ(settings), home.with_suffix(".log"), lambda: is_taken(port))


def s3_server(folder: Path) -> tuple[s3.Server, Service]:
    server = s3.a_server()
    return server, Service(server.command(folder), dict(os.environ), folder.with_suffix(".log"), server.answers)
