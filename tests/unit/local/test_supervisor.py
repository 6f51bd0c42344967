"""The supervisor over small real processes: order, readiness, back-off, stop, and what it says of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.errors import ConfigurationError, FatalError, RetryableError
from pipeline.local import supervisor
from pipeline.local.parts import Part, Stage
from pipeline.local.status import PartStatus, StackFile
from pipeline.local.supervisor import Supervisor
from tests.support import eventually

READY = "from pipeline.observe.ready import notify_ready as ready\nimport os, signal, subprocess, sys, time\n"
WAIT = "\nwhile True: time.sleep(60)\n"


def part(name: str, code: str, *arguments: object, grace_s: float = 5.0, **more: object) -> Part:
    command = (sys.executable, "-c", READY + code, *map(str, arguments))
    return Part(name, command, dict(os.environ), stop_grace_s=grace_s, **more)  # type: ignore[arg-type]


def steady(name: str, code: str = "", *arguments: object, **more: float) -> Part:
    return part(name, code + "\nready()" + WAIT, *arguments, **more)


class Run:
    """One run of a supervisor; `then` happens on another thread once all is ready, and SIGTERM follows it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said: list[str] = []
        self.warned: list[str] = []

    def __call__(self, *stages: Stage, then: Callable[[], object] = lambda: None) -> None:
        failed: list[BaseException] = []

        def beside() -> None:
            try:
                then()
            except BaseException as error:
                failed.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=beside)
        Supervisor(self.home, say=self.said.append, warn=self.warned.append).run(stages, on_ready=thread.start)
        if thread.ident is not None:
            thread.join()
        if failed:
            raise failed[0]

    def part(self, name: str) -> PartStatus:
        return next(each for each in StackFile(self.home).read() if each.name == name)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_stage_starts_when_the_one_before_is_ready_and_its_after_has_run(run: Run, tmp_path: Path) -> None:
    story = tmp_path / "story"
    note = "\nwith open(sys.argv[1], 'a') as story: story.write(sys.argv[2])\n"
    first = part("first", "time.sleep(0.3)" + note + "ready()" + WAIT, story, "first ")
    second = part("second", note + "ready()" + WAIT, story, "second ")

    def after() -> None:
        with story.open("a") as out:
            out.write("after ")

    run(Stage((first,), after=after), Stage((second,)))
    assert story.read_text() == "first after second "


def test_each_part_is_told_of_once_when_it_is_ready(run: Run) -> None:
    run(Stage((steady("one"), steady("two"))))
    assert sorted(line.split()[0] for line in run.said) == ["one", "two"]
    assert run.warned == []


def test_an_after_that_may_succeed_later_is_tried_again(run: Run) -> None:
    tries = []

    def after() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise RetryableError("the broker is away")

    run(Stage((steady("one"),), after=after))
    assert len(tries) == 3


def test_an_after_that_cannot_succeed_ends_the_start_and_the_parts(run: Run, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def after() -> None:
        raise ConfigurationError("wrong partition count")

    with pytest.raises(ConfigurationError, match="wrong partition count"):
        run(Stage((steady("one", "open(sys.argv[1], 'w').write(str(os.getpid()))", pid_file),), after=after))
    assert gone(int(pid_file.read_text()))


def test_a_signal_is_heard_while_an_after_hangs(run: Run, tmp_path: Path) -> None:
    began = time.monotonic()

    def after() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    run(Stage((steady("one"),), after=after))
    assert time.monotonic() - began < 10


def test_a_part_that_never_starts_is_given_up_with_the_end_of_its_log(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(supervisor, "BACKOFF_MAX_S", 0.02)
    with pytest.raises(FatalError, match=r"broken does not start:\n\s+no such file: the_reason"):
        run(Stage((part("broken", "sys.exit('no such file: the_reason')"),)))
    assert len(run.warned) == supervisor.DEATHS_AT_START_MAX
    assert all("exit code 1" in line for line in run.warned)


def test_a_part_that_is_never_ready_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "START_LIMIT_S", 0.5)
    with pytest.raises(FatalError, match=r"not ready within .* silent"):
        run(Stage((part("silent", WAIT),)))


def test_a_part_that_dies_is_started_again_and_is_not_ready_meanwhile(run: Run, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = "\nwhile os.path.exists(sys.argv[1]): time.sleep(0.01)\nready()" + WAIT

    def then() -> None:
        before = run.part("one").pid
        assert before is not None
        assert run.part("supervisor").ready
        gate.touch()
        os.kill(before, signal.SIGKILL)
        started = eventually(lambda: run.part("one").pid not in {None, before}, within_s=10, why="it runs again")
        assert started
        assert not run.part("one").ready
        assert not run.part("supervisor").ready
        gate.unlink()
        eventually(lambda: run.part("one").ready and run.part("supervisor").ready, within_s=10, why="it is ready again")

    run(Stage((part("one", code, gate),)), then=then)
    assert ["SIGKILL" in line for line in run.warned] == [True]
    assert run.said[-1].split()[:3] == ["one", "is", "back"]


def test_the_back_off_doubles_up_to_its_limit(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_MAX_S", 0.8)
    flag = tmp_path / "dies"
    code = "\nif os.path.exists(sys.argv[1]): sys.exit(3)\nready()" + WAIT

    def then() -> None:
        flag.touch()
        os.kill(run.part("one").pid or 0, signal.SIGKILL)
        eventually(lambda: len(run.warned) >= 5, within_s=20, why="five deaths")

    run(Stage((part("one", code, flag),)), then=then)
    waits = [line.split("again in ")[1].split()[0] for line in run.warned[:5]]
    assert waits == ["0.2", "0.4", "0.8", "0.8", "0.8"]


def test_a_part_that_ignores_sigterm_is_killed_after_its_grace(run: Run) -> None:
    pids: list[int] = []
    deaf = steady("deaf", "signal.signal(signal.SIGTERM, signal.SIG_IGN)", grace_s=0.3)
    run(Stage((deaf, steady("other"))), then=lambda: pids.append(run.part("deaf").pid or 0))
    assert gone(pids[0])
    assert run.warned == ["  deaf            did not stop in time: killed"]


def test_all_parts_ignoring_sigterm_still_end_within_the_limit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_LIMIT_S", 1.0)
    deaf = [steady(name, "signal.signal(signal.SIGTERM, signal.SIG_IGN)") for name in ("capture", "worker", "kafka")]
    stopping: list[float] = []
    run(Stage(tuple(deaf)), then=lambda: stopping.append(time.monotonic()))
    assert time.monotonic() - stopping[0] < 3.0


def test_what_is_in_front_stops_before_what_it_needs(run: Run, tmp_path: Path) -> None:
    story = tmp_path / "story"
    code = (
        "\ndef ended(*_):\n with open(sys.argv[1], 'a') as story: story.write(sys.argv[2] + ' ')\n os._exit(0)\n"
        "signal.signal(signal.SIGTERM, ended)"
    )
    names = ("kafka", "sink-warehouse", "worker", "capture")
    run(Stage(tuple(steady(name, code, story, name) for name in names)))
    assert story.read_text().split() == ["capture", "worker", "sink-warehouse", "kafka"]


CHILD = "\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\nopen(sys.argv[1], 'w').write(str(child.pid))"


@pytest.mark.parametrize("how", ["stop", "death"])
def test_children_of_a_part_end_with_it(run: Run, tmp_path: Path, how: str) -> None:
    file = tmp_path / "grandchild"

    def then() -> None:
        first = int(file.read_text())
        if how == "death":
            os.kill(run.part("one").pid or 0, signal.SIGKILL)
            eventually(lambda: gone(first), within_s=5, why="the dead part's child is gone")

    run(Stage((steady("one", CHILD, file),)), then=then)
    assert gone(int(file.read_text()))


def test_what_comes_before_a_part_is_run_first_and_its_failure_is_the_parts(run: Run, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    touch = (sys.executable, "-c", "import sys; open(sys.argv[1], 'x')", mark)
    run(Stage((part("one", "open(sys.argv[1])\nready()" + WAIT, mark, before=touch),)))
    assert run.warned == []
    with pytest.raises(FatalError, match="FileExistsError"):
        run(Stage((part("one", "ready()" + WAIT, before=touch),)))


def test_nothing_runs_by_the_status_file_after_a_clean_stop(run: Run) -> None:
    run(Stage((steady("one"),)))
    assert StackFile(run.home).read() == []


def test_the_status_file_believes_no_pid_that_is_somebody_elses(tmp_path: Path) -> None:
    StackFile(tmp_path).write([PartStatus("one", os.getpid(), True, "here")])
    assert StackFile(tmp_path).read() == [PartStatus("one", os.getpid(), True, "here")]
    (row,) = json.loads((tmp_path / "stack.json").read_text())
    (tmp_path / "stack.json").write_text(json.dumps([{**row, "created": row["created"] - 100}]))
    assert StackFile(tmp_path).read() == [PartStatus("one", None, False, "here")]
