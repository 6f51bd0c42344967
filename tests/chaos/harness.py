"""Carries a schedule out against a running stack, while recordings flow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.local.parts import child_environ
from pipeline.local.stack import Stack
from tests.chaos.schedule import Action
from tests.e2e.flow import Flow
from tests.support import eventually

BACK_LIMIT_S = 90.0
FLOW_LIMIT_S = 120.0
JOINED_MAX = 2
STOP_LIMIT_S = 15.0
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}


class Chaos:
    """One run. Extra workers that joined are its own processes and end with it."""

    def __init__(self, stack: Stack, flow: Flow, *, say: Callable[[str], None]) -> None:
        self._stack, self._flow, self._say = stack, flow, say
        self._joined: list[subprocess.Popen[bytes]] = []

    def run(self, actions: list[Action]) -> None:
        try:
            for number, action in enumerate(actions, 1):
                self._wait_for_flow(action.after_batches)
                self._say(f"{number:>4}/{len(actions)}  {action.kind:<13} {action.part}")
                self._do(action)
        finally:
            for worker in self._joined:
                self._end(worker, signal.SIGTERM)

    def _do(self, action: Action) -> None:
        if action.kind in SIGNALS:
            self._end_part(action.part, SIGNALS[action.kind])
        elif action.kind == "freeze":
            self._freeze(action)
        elif action.kind == "join":
            self._join()
        elif action.kind == "objects-away":
            self._objects_away(action.for_s)
        elif self._joined:
            how = signal.SIGKILL if action.kind == "crash-joined" else signal.SIGTERM
            self._end(self._joined.pop(0), how)

    def _wait_for_flow(self, batches: int) -> None:
        before = self._flow.batches
        eventually(
            lambda: self._flow.batches >= before + batches or self._flow.failed,
            within_s=FLOW_LIMIT_S,
            why="recordings flow",
        )
        assert self._flow.failed is None, f"the flow ended: {self._flow.failed!r}"

    def _end_part(self, part: str, how: signal.Signals) -> None:
        old = self._stack.kill(part, how)
        self._is_back(part, other_than=old)

    def _is_back(self, part: str, *, other_than: int | None = None) -> None:
        eventually(
            lambda: any(each.name == part and each.ready and each.pid != other_than for each in self._stack.status()),
            within_s=BACK_LIMIT_S,
            why=f"{part} is back",
        )

    def _freeze(self, action: Action) -> None:
        """The process sleeps, and wakes to a world that went on; a part that then ends itself is started again."""
        pid = self._stack.kill(action.part, signal.SIGSTOP)
        time.sleep(action.for_s)  # the outage itself, not a wait for something
        os.kill(pid, signal.SIGCONT)
        self._is_back(action.part)

    def _join(self) -> None:
        if len(self._joined) >= JOINED_MAX:
            self._end(self._joined.pop(0), signal.SIGTERM)
        log = self._stack.log.with_name(f"joined-{len(self._joined)}.log")
        with log.open("ab") as out:
            self._joined.append(
                subprocess.Popen(
                    [sys.executable, "-m", "pipeline", "worker"],
                    env=child_environ(self._stack.settings),
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            )

    def _objects_away(self, for_s: float) -> None:
        """The folder of the objects cannot be written: a plain file stands where it was."""
        folder = Path(self._stack.settings.home) / "objects"
        if not folder.is_dir():
            return
        aside = folder.with_name("objects-aside")
        folder.rename(aside)
        folder.write_text("not a folder")
        time.sleep(for_s)  # the outage itself
        folder.unlink()
        aside.rename(folder)

    @staticmethod
    def _end(worker: subprocess.Popen[bytes], how: signal.Signals) -> None:
        if worker.poll() is None:
            worker.send_signal(how)
        try:
            worker.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
