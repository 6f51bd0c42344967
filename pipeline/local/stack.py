"""The embedded stack for scripts: the demo, tests and benchmarks start it as a user does, as `replay up`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pipeline.errors import FatalError
from pipeline.local import process
from pipeline.local.parts import child_environ
from pipeline.local.status import PartStatus, status
from pipeline.local.supervisor import tail
from pipeline.settings import Settings

UP = (sys.executable, "-m", "pipeline", "up", "--quiet")
READY_LIMIT_S = 120.0
STOP_LIMIT_S = 15.0
LOOK_EVERY_S = 0.05


class Stack:
    """`replay up --quiet` as a child process, or another `command` that calls `supervisor.up`; ready when entered,
    stopped when left."""

    def __init__(self, settings: Settings, *, command: Sequence[str] = UP) -> None:
        self.settings = settings
        self._command = command
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stack:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        return self.settings.home.absolute() / "logs" / "supervisor.log"

    def start(self) -> None:
        """Call it from the main thread: where this process dies, however it dies, the stack ends with it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self._popen = process.start(self._command, child_environ(self.settings), self.log)

    def wait_ready(self, limit_s: float = READY_LIMIT_S) -> None:
        """Until every part is ready. Raises FatalError with the end of the log where that does not come."""
        until = time.monotonic() + limit_s
        while True:
            if self._popen is None or self._popen.poll() is not None:
                raise FatalError(f"the stack did not start:\n{tail(self.log)}")
            parts = self.status()
            ours = any(part.name == "supervisor" and part.pid == self._popen.pid for part in parts)
            if ours and all(part.ready for part in parts) and any(part.name == "api" for part in parts):
                return
            if time.monotonic() > until:
                late = [part.name for part in parts if not part.ready] or ["supervisor"]
                logs = "\n".join(tail(self.log.with_name(f"{name}.log")) for name in late)
                raise FatalError(f"not ready within {limit_s:.0f} s: {', '.join(late)}\n{logs}")
            time.sleep(LOOK_EVERY_S)

    def status(self) -> list[PartStatus]:
        return status(self.settings)

    def pid(self, part: str) -> int | None:
        return next((each.pid for each in self.status() if each.name == part), None)

    def kill(self, part: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Sends a signal to a part's process and returns its pid."""
        pid = self.pid(part)
        if pid is None:
            raise FatalError(f"{part} does not run")
        os.kill(pid, how)
        return pid

    def stop(self) -> None:
        """SIGTERM to the supervisor; waits for it to stop everything."""
        if self._popen is None or self._popen.poll() is not None:
            return
        self._popen.terminate()
        try:
            self._popen.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
