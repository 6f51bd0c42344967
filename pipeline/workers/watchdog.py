"""A worker that is stuck says where, and ends: the supervisor starts another, which begins at what was committed.

`alive` is called by a timer of the event loop, so a loop that is blocked stops calling it; and it does not put the end off
for a chunk that has been in work too long. Python's fault handler then writes the stack of every thread to stderr, which
holds places and no values, and ends the process at once, before anything can be acked.
"""

from __future__ import annotations

import faulthandler
import time

STUCK_AFTER_S = 180.0
"""Above the longest that a healthy chunk may take: loading state (120 s) and one flush (25 s)."""

STOP_WITHIN_S = 28.0
"""A worker told to stop may finish a flush (25 s); below the 30 s after which orchestrators kill."""


class Watchdog:
    """One a process. For the event loop's thread."""

    def __init__(self, stuck_after_s: float = STUCK_AFTER_S, stop_within_s: float = STOP_WITHIN_S) -> None:
        self._stuck_after_s, self._stop_within_s = stuck_after_s, stop_within_s
        self._stopping = False
        self._busy_since: float | None = None

    def busy(self) -> None:
        """A chunk's work begins."""
        self._busy_since = time.monotonic()

    def idle(self) -> None:
        """It ended, or waits on purpose."""
        self._busy_since = None

    def alive(self) -> None:
        """The event loop runs; the end is put off, unless a chunk has been in work for too long."""
        if self._stopping:
            return
        if self._busy_since is None or time.monotonic() - self._busy_since < self._stuck_after_s:
            faulthandler.dump_traceback_later(self._stuck_after_s, exit=True)

    def stopping(self) -> None:
        """We were told to stop: without a broker the clients would wait for it for more than a minute. What was not
        committed is done again by whoever comes next, as after any end."""
        self._stopping = True
        faulthandler.dump_traceback_later(self._stop_within_s, exit=True)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()
