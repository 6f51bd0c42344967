"""`replay up`: starts the parts in order, keeps them running, stops them cleanly. One supervisor a home.

A part that dies is started again after a back-off; what it said last is in its log. The supervisor works in one thread:
it starts children, reads their readiness, writes `stack.json`, and sleeps in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click

from pipeline.errors import ConfigurationError, FatalError, RetryableError
from pipeline.keys import KeyFile
from pipeline.local import kafka, process
from pipeline.local.guard import Guard, end_group
from pipeline.local.parts import Part, Stage, listeners, stages
from pipeline.local.ports import is_taken
from pipeline.local.status import PartStatus, StackFile
from pipeline.settings import Settings

TICK_S = 0.05
START_LIMIT_S = 90.0
STOP_LIMIT_S = 9.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LEFTOVERS_LIMIT_S = 10.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
STEADY_AFTER_S = 30.0
"""A part alive this long has its back-off forgotten."""
DEATHS_AT_START_MAX = 5
LOG_BYTES_MAX = 10 << 20
LOG_TAIL_LINES = 12


@dataclass
class _Child:
    """A part and its running process."""

    part: Part
    log: Path
    popen: subprocess.Popen[bytes] | None = None
    socket: process.ReadySocket | None = None
    ready: bool = False
    was_ready: bool = False
    started_at: float = 0.0
    deaths: int = 0
    next_start_at: float = 0.0
    backoff_s: float = field(default=BACKOFF_FIRST_S)

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None


class Supervisor:
    """Runs stages of parts for one home."""

    def __init__(self, home: Path, *, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """`say` is told of the good path, `warn` of a part that died or had to be killed."""
        self._home = home
        self._say = say
        self._warn = warn
        self._guard = Guard()
        self._stack_file = StackFile(home)
        self._children: list[_Child] = []
        self._stopping = False
        self._shown: list[PartStatus] = []

    def run(self, plan: tuple[Stage, ...], *, on_ready: Callable[[], None]) -> None:
        """Starts all stages, calls `on_ready`, supervises until SIGTERM, SIGHUP or Ctrl-C, stops all. Main thread only.

        Raises FatalError where a part does not start; what ran is stopped then, too.
        """
        heard = [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]  # nohup ignores one
        previous = {each: signal.signal(each, self._stop_soon) for each in heard}
        try:
            for stage in plan:
                self._start_stage(stage)
                if self._stopping:
                    return
            on_ready()
            while not self._stopping:
                self._tick()
                time.sleep(TICK_S)
        finally:
            self._stop_all()
            for each, handler in previous.items():
                signal.signal(each, handler)

    def _stop_soon(self, *_: object) -> None:
        self._stopping = True

    def _start_stage(self, stage: Stage) -> None:
        began = time.monotonic()
        fresh = [_Child(part, self._log_of(part)) for part in stage.parts]
        self._children += fresh
        for child in fresh:
            self._start(child)
        announced: set[str] = set()
        while not self._stopping and not all(child.ready for child in fresh):
            self._tick()
            for child in fresh:
                if child.ready and child.part.name not in announced:
                    announced.add(child.part.name)
                    self._say(
                        f"  {child.part.name:<15} ready in {time.monotonic() - child.started_at:4.1f} s  {child.part.address}"
                    )
                if not child.ready and child.deaths >= DEATHS_AT_START_MAX:
                    raise FatalError(
                        f"{child.part.name} does not start:\n{tail(child.log)}\nThe whole log: {child.log}"
                    )
            if time.monotonic() - began > START_LIMIT_S:
                late = [child.part.name for child in fresh if not child.ready]
                raise FatalError(
                    f"not ready within {START_LIMIT_S:.0f} s: {', '.join(late)}; see {self._home / 'logs'}"
                )
            time.sleep(TICK_S)
        if stage.after is not None and not self._stopping:
            self._finish_stage(stage.after, began + START_LIMIT_S)

    def _finish_stage(self, after: Callable[[], None], until: float) -> None:
        """`after` in a thread of its own: meanwhile parts are supervised and a signal is heard."""
        while not self._stopping:
            failed: list[BaseException] = []
            thread = threading.Thread(target=_catching, args=(after, failed), daemon=True)
            thread.start()
            while thread.is_alive() and not self._stopping:
                self._tick()
                time.sleep(TICK_S)
            if self._stopping or not failed:
                return
            if not isinstance(failed[0], RetryableError) or time.monotonic() > until:
                raise failed[0]

    def _tick(self) -> None:
        """Reaps, restarts, reads readiness, writes the status where it changed."""
        now = time.monotonic()
        for child in self._children:
            if child.popen is not None and child.popen.poll() is not None:
                self._bury(child, now)
            if child.popen is None and now >= child.next_start_at:
                self._start(child)
            if child.alive and not child.ready:
                child.ready = child.part.probe() if child.part.probe else bool(child.socket and child.socket.told())
                if child.ready and child.was_ready:
                    self._say(f"  {child.part.name:<15} is back after {now - child.started_at:.1f} s")
                child.was_ready |= child.ready
            if child.ready and now - child.started_at > STEADY_AFTER_S:
                child.backoff_s = BACKOFF_FIRST_S
        self._show()

    def _show(self) -> None:
        """Tells the guard and `stack.json` what runs, where that has changed."""
        self._guard.watch(child.popen.pid for child in self._children if child.popen is not None)
        status = self._status()
        if status != self._shown:
            self._stack_file.write(status)
            self._shown = status

    def _start(self, child: _Child) -> None:
        if child.socket is not None:
            child.socket.close()
        child.socket = process.ReadySocket()
        environ = {**child.part.environ, "NOTIFY_SOCKET": child.socket.address}
        child.popen = process.start(child.part.command, environ, child.log, before=child.part.before)
        child.ready = False
        child.started_at = time.monotonic()
        self._show()

    def _bury(self, child: _Child, now: float) -> None:
        assert child.popen is not None
        how = _how_it_ended(child.popen.returncode)
        end_group(child.popen.pid)  # what it had started must not go on beside its successor
        child.popen, child.ready = None, False
        child.deaths += 1
        child.next_start_at = now + child.backoff_s
        self._warn(f"  {child.part.name:<15} {how}; starting it again in {child.backoff_s:.1f} s (log: {child.log})")
        child.backoff_s = min(BACKOFF_MAX_S, 2 * child.backoff_s)

    def _stop_all(self) -> None:
        """Front first, stores last, all within STOP_LIMIT_S; what does not listen is killed."""
        began = time.monotonic()
        order = ("capture", "api"), ("worker",), ("sink-warehouse", "sink-objects"), ("warehouse", "kafka")
        named = {name for names in order for name in names}
        others = tuple(child.part.name for child in self._children if child.part.name not in named)
        for names in (others, *order):
            some = [child for child in self._children if child.part.name in names and child.alive]
            self._stop_some(some, began)
        for child in self._children:
            if child.socket is not None:
                child.socket.close()
        self._guard.close()
        self._stack_file.remove()

    def _stop_some(self, some: list[_Child], began: float) -> None:
        for child in some:
            child.ready = False
            if child.popen:
                child.popen.terminate()
        self._show()
        for child in some:
            assert child.popen is not None
            left = min(child.part.stop_grace_s, began + STOP_LIMIT_S - time.monotonic())
            try:
                child.popen.wait(max(0.1, left))
            except subprocess.TimeoutExpired:
                self._warn(f"  {child.part.name:<15} did not stop in time: killed")
            end_group(child.popen.pid)
            child.popen.wait()

    def _status(self) -> list[PartStatus]:
        own = PartStatus("supervisor", os.getpid(), all(child.ready for child in self._children), "")
        return [own] + [
            PartStatus(child.part.name, child.popen.pid if child.popen else None, child.ready, child.part.address)
            for child in self._children
        ]

    def _log_of(self, part: Part) -> Path:
        folder = self._home / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{part.name}.log"
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(folder / f"{part.name}.log.1")
        return log


def up(
    settings: Settings,
    *,
    quiet: bool = False,
    plan: Callable[[Settings, kafka.Broker], tuple[Stage, ...]] = stages,
) -> None:
    """Runs the embedded stack in the foreground. Raises ConfigurationError where the home or a port is taken."""

    def say(line: str) -> None:
        if not quiet:
            click.echo(line)

    _must_be_embedded(settings)
    home = settings.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("a+") as lock:
        _own(lock, home)
        began = time.monotonic()
        _end_leftovers(home)
        _ports_must_be_free(settings)
        planned = plan(settings, kafka.arrange(settings, quiet=quiet))
        KeyFile(settings.keys).ensure()
        say(f"portable-replay in {home}")

        def on_ready() -> None:
            say(
                f"ready in {time.monotonic() - began:.1f} s. Keys: `replay keys`; sessions: `replay sessions`; "
                "Ctrl-C stops everything, data is kept."
            )

        Supervisor(home, say=say, warn=lambda line: click.echo(line, err=True)).run(planned, on_ready=on_ready)
        say("stopped")


def _end_leftovers(home: Path) -> None:
    """After kill -9 of a supervisor its parts are on their way out: waits until they are gone, with their ports."""
    until = time.monotonic() + LEFTOVERS_LIMIT_S
    while left := [part for part in StackFile(home).read() if part.pid is not None]:
        for part in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(part.pid or 0, signal.SIGKILL)
        if time.monotonic() > until:
            raise FatalError(f"processes of an earlier stack do not end: {', '.join(str(part.pid) for part in left)}")
        time.sleep(TICK_S)


def _must_be_embedded(settings: Settings) -> None:
    """Outside services and embedded ones at once would leave half the parts talking to the wrong one."""
    for name, value in (
        ("REPLAY_KAFKA_BROKERS", settings.kafka_brokers),
        ("REPLAY_WAREHOUSE_URL", settings.warehouse_url),
    ):
        if value:
            raise ConfigurationError(
                f"{name} names an outside service, and `replay up` runs its own: unset it, or start the parts one by one"
            )


def _own(lock, home: Path) -> None:  # type: ignore[no-untyped-def]
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        raise ConfigurationError(
            f"a stack already runs in {home} (pid {lock.read().strip() or 'unknown'}); "
            "stop it, or name another home with REPLAY_HOME and other ports"
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()


def _ports_must_be_free(settings: Settings) -> None:
    wanted = listeners(settings)
    faults = [
        f"port {port} for {name} is in use ({setting} moves it)"
        for name, (port, setting) in wanted.items()
        if is_taken(port)
    ]
    for name, (port, setting) in wanted.items():
        twins = [other for other, (its, _) in wanted.items() if its == port]
        if twins[0] == name and len(twins) > 1:
            faults.append(f"port {port} is set for {' and '.join(twins)} ({setting} moves one)")
    if faults:
        raise ConfigurationError("; ".join(faults))


def _catching(work: Callable[[], None], failed: list[BaseException]) -> None:
    try:
        work()
    except BaseException as error:  # raised again by who waits
        failed.append(error)


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, indented."""
    if not log.exists():
        return "    (no log)"
    return "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])


def _how_it_ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
