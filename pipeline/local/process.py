"""A child process that cannot outlive its parent, and the socket on which it says that it is ready.

On Linux the kernel itself ends an orphan: the shim asks for SIGKILL at the parent's death (prctl(2), PR_SET_PDEATHSIG),
makes sure that the parent had not died before, and becomes the program by exec, so the pid is the program's own.
A part's own children are the guard's business (`guard`). Crash safety is what the stack is built on; an orphan that lingers with its files open would be the greater harm.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str],
    environ: dict[str, str],
    log: Path,
    cwd: Path | None = None,
    *,
    before: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Starts `command` as the leader of a session and group of its own, output appended to `log`.

    `before` is run to its end first, under the same pid's wing; where it fails, its exit code is the process's.
    Call it from the main thread only: the death signal is tied to the thread that forked.
    """
    with log.open("ab") as out:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pipeline.local.process",
                str(os.getpid()),
                str(len(before)),
                *before,
                *command,
            ],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
        )


class ReadySocket:
    """Where one child's READY=1 arrives (sd_notify(3)). Its path is short: a unix socket's is at most 104 bytes."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="replay-")
        self.address = str(Path(self._folder.name) / "ready")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    def told(self) -> bool:
        """Whether READY=1 came since the last call; never blocks."""
        try:
            return b"READY=1" in self._socket.recv(4096)
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._socket.close()
        self._folder.cleanup()


def _become(parent: int, before: list[str], command: list[str]) -> None:
    _end_with(parent)
    if before:
        shim = os.getpid()
        code = subprocess.run(before, check=False, preexec_fn=lambda: _end_with(shim)).returncode
        if code:
            sys.exit(code if code > 0 else 1)
    os.execvp(command[0], command)


def _end_with(parent: int) -> None:
    """Asks the kernel first, looks for the parent then: whenever it dies, one of the two sees it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")


if __name__ == "__main__":
    _count = int(sys.argv[2])
    _become(int(sys.argv[1]), sys.argv[3 : 3 + _count], sys.argv[3 + _count :])
