"""Carries a schedule out against a running stack, while recordings flow. An action that did nothing is an error."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import psutil

from pipeline.local import process
from pipeline.local.parts import child_environ
from pipeline.local.stack import Stack
from pipeline.storage.blocks import OBJECT_SUFFIX, read_manifest
from tests.chaos.disk import SmallDisk
from tests.chaos.proxy import FaultProxy
from tests.chaos.schedule import Action
from tests.e2e.flow import Flow
from tests.support import eventually

BACK_LIMIT_S = 90.0
FLOW_LIMIT_S = 120.0
JOIN_LIMIT_S = 90.0
STOP_LIMIT_S = 15.0
EFFECT_LIMIT_S = 60.0
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
_DIED = re.compile(r"^ +(\S+) +ended with exit code (\d+)", re.M)


@dataclass
class Joined:
    """A worker beside the stack's own: its process, and where it says that it has got its partitions."""

    popen: Popen[bytes]
    socket: process.ReadySocket


@dataclass
class Chaos:
    """One run. Workers that joined are its own processes and end with it."""

    stack: Stack
    flow: Flow
    proxies: Mapping[str, FaultProxy]
    """By the store behind each."""
    disk: SmallDisk | None
    objects: Path
    say: Callable[[str], None]
    done: list[Action] = field(default_factory=list)
    replaced: int = 0
    """Joined workers that had ended by themselves (a fenced zombie does) and were started again, as a supervisor would."""
    _joined: list[Joined] = field(default_factory=list)

    def run(self, actions: list[Action]) -> None:
        try:
            for number, action in enumerate(actions, 1):
                self._wait_for_flow(action.after_batches)
                self._replace_ended()
                began = time.monotonic()
                self._do(action)
                self.done.append(action)
                self.say(f"{number:>4}/{len(actions)}  {action}: {time.monotonic() - began:.1f} s")
        finally:
            for worker in self._joined:
                self._end(worker, signal.SIGTERM)

    def ended_by_themselves(self) -> dict[str, int]:
        """Parts that ended with an exit code of their own making, by name; one told to stop may end with 0 or 128 + 15."""
        found: dict[str, int] = {}
        for name, code in _DIED.findall(self.stack.log.read_text()):
            if int(code) not in {0, 130, 143}:
                found[name] = found.get(name, 0) + 1
        return found

    def _do(self, action: Action) -> None:
        if action.kind in SIGNALS:
            self._end_parts(action.parts, SIGNALS[action.kind])
        elif action.kind == "freeze":
            self._freeze(action)
        elif action.kind == "join":
            self._joined.append(self._started())
        elif action.kind == "fault":
            self._fault(action)
        elif action.kind == "objects-away":
            with self._objects_away():
                self._put_off("sink-objects", "object directory", for_s=action.for_s)
        elif action.kind == "disk-full":
            self._disk_full(action.for_s)
        else:
            how = signal.SIGKILL if action.kind == "crash-joined" else signal.SIGTERM
            self._end(self._joined.pop(0), how)

    def _wait_for_flow(self, batches: int) -> None:
        before = self.flow.batches
        eventually(
            lambda: self.flow.batches >= before + batches or self.flow.failed,
            within_s=FLOW_LIMIT_S,
            why="recordings flow",
        )
        assert self.flow.failed is None, f"the flow ended: {self.flow.failed!r}"

    # signals

    def _end_parts(self, parts: tuple[str, ...], how: signal.Signals) -> None:
        old = {part: self.stack.kill(part, how) for part in parts}
        for part, pid in old.items():
            self._is_back(part, other_than=pid)

    def _is_back(self, part: str, *, other_than: int | None = None) -> None:
        eventually(
            lambda: any(each.name == part and each.ready and each.pid != other_than for each in self.stack.status()),
            within_s=BACK_LIMIT_S,
            why=f"{part} is back",
        )

    def _freeze(self, action: Action) -> None:
        """The process sleeps, and wakes to a world that went on; a part that then ends itself is started again."""
        (part,) = action.parts
        pid = self.stack.kill(part, signal.SIGSTOP)
        eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, within_s=5, why=f"{part} sleeps")
        time.sleep(action.for_s)  # the outage itself, not a wait for something
        os.kill(pid, signal.SIGCONT)
        self._is_back(part)

    # workers that come and go

    def _started(self) -> Joined:
        """A worker that has been given its share of the partitions."""
        log = self.stack.log.with_name("joined.log")
        socket = process.ReadySocket()
        environ = {**child_environ(self.stack.settings), "NOTIFY_SOCKET": socket.address}
        worker = Joined(process.start([sys.executable, "-m", "pipeline", "worker"], environ, log), socket)
        eventually(
            lambda: socket.told() or worker.popen.poll() is not None, within_s=JOIN_LIMIT_S, why="a worker joins"
        )
        return worker

    def _replace_ended(self) -> None:
        for n, worker in enumerate(self._joined):
            if worker.popen.poll() is not None:
                self.replaced += 1
                worker.socket.close()
                self._joined[n] = self._started()

    @staticmethod
    def _end(worker: Joined, how: signal.Signals) -> None:
        if worker.popen.poll() is None:
            worker.popen.send_signal(how)
        try:
            worker.popen.wait(STOP_LIMIT_S)
        except TimeoutExpired:
            worker.popen.kill()
            worker.popen.wait()
            raise AssertionError(f"a worker told to stop did not within {STOP_LIMIT_S:.0f} s") from None
        finally:
            worker.socket.close()

    # stores that fail

    def _fault(self, action: Action) -> None:
        """Requests are struck for a while, one at the least; a sink may die in the middle of it."""
        assert action.fault is not None
        store, *killed = action.parts
        proxy = self.proxies[store]
        before = proxy.struck[action.fault]
        with proxy.faulty(action.fault):
            time.sleep(action.for_s / 2)  # the outage itself
            old = {part: self.stack.kill(part) for part in killed}
            time.sleep(action.for_s / 2)
            eventually(
                lambda: proxy.struck[action.fault] > before, within_s=EFFECT_LIMIT_S, why=f"{action} strikes a request"
            )
        for part, pid in old.items():
            self._is_back(part, other_than=pid)

    @contextmanager
    def _objects_away(self) -> Iterator[None]:
        """The folder of the objects cannot be written: a plain file stands where it was."""
        aside = self.objects.with_name("objects-aside")
        self.objects.rename(aside)
        self.objects.write_text("not a folder")
        try:
            yield
        finally:
            self.objects.unlink()
            aside.rename(self.objects)

    def _disk_full(self, for_s: float) -> None:
        assert self.disk is not None
        with self.disk.full():
            self._put_off("sink-objects", "No space left on device", for_s=for_s)
            for each in self.objects.rglob(f"*{OBJECT_SUFFIX}"):
                read_manifest(each.read_bytes())  # no half object is visible

    def _put_off(self, part: str, why: str, *, for_s: float) -> None:
        """The outage lasts `for_s`, and until the sink has said why it cannot flush."""
        log = self.stack.log.with_name(f"{part}.log")
        before = log.stat().st_size
        time.sleep(for_s)  # the outage itself
        eventually(
            lambda: any(
                "flush_put_off" in line and why in line for line in log.read_bytes()[before:].decode().splitlines()
            ),
            within_s=EFFECT_LIMIT_S,
            why=f"{part} says that a flush was put off: {why}",
        )
