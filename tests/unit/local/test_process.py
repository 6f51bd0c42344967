"""No process outlives its supervisor, whenever that is killed: the part, its children, and one that is just starting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")

SUPERVISOR = """
import os, psutil, signal, sys
from pathlib import Path
from pipeline.local.parts import Part, Stage
from pipeline.local.supervisor import Supervisor
home = Path(sys.argv[1])
code = '''
import os, subprocess, sys, time
from pipeline.observe.ready import notify_ready
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
notify_ready()
time.sleep(600)
'''
part = Part("one", (sys.executable, "-c", code, str(home / "pids")), dict(os.environ))

def on_ready():
    everybody = psutil.Process().children(recursive=True)
    (home / "everybody").write_text(" ".join(str(each.pid) for each in everybody))
    os.kill(os.getpid(), signal.SIGKILL)

Supervisor(home, say=print, warn=print).run((Stage((part,)),), on_ready=on_ready)
"""

STARTER = """
import os, signal, sys
from pathlib import Path
from pipeline.local import process
home = Path(sys.argv[1])
code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
running = process.start([sys.executable, "-c", code, str(home / "ran")], dict(os.environ), home / "log")
os.kill(running.pid, signal.SIGSTOP)
(home / "pid").write_text(str(running.pid))
os.kill(os.getpid(), signal.SIGKILL)
"""


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_supervisor_leaves_neither_parts_nor_their_children(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SUPERVISOR, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    pids = {int(word) for name in ("pids", "everybody") for word in (tmp_path / name).read_text().split()}
    assert len(pids) == 3, "the part, its child and the guard"
    eventually(lambda: all(gone(pid) for pid in pids), within_s=5, why="all three are gone")


def test_a_part_whose_supervisor_dies_before_it_asked_the_kernel_never_becomes_its_program(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", STARTER, str(tmp_path)], check=False, timeout=60)
    pid = int((tmp_path / "pid").read_text())
    if not gone(pid):
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: gone(pid), within_s=10, why="the shim has ended")
    assert not (tmp_path / "ran").exists()
