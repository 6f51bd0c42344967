"""Recordings that flow into a running stack, over and over, from clients that retry."""

from __future__ import annotations

import math
import threading
import time

from pipeline.keys import KeyFile
from pipeline.load import traffic
from pipeline.load.recordings import bundled
from pipeline.load.senders import Sender
from pipeline.settings import Settings
from tests.e2e import accounts

ROUNDS_MAX = 400


class Flow:
    """Sends the bundled recordings over and over until told to stop, as clients that retry."""

    def __init__(self, settings: Settings, *, batches_per_s: float = math.inf) -> None:
        """Never faster than that: a long run's account must be told in a bearable time."""
        self._gap_s = 1 / batches_per_s
        keys = KeyFile(settings.keys).first()
        self._sender = Sender(settings, tenant=keys.tenant, write_key=keys.write)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flow")
        self.failed: BaseException | None = None
        self.accepted: set[tuple[str, str]] = set()
        """(session_id, batch_id) of every batch that was acknowledged; imports are named by the server, so not here."""

    @property
    def batches(self) -> int:
        return self._sender.sent.batches

    @property
    def events(self) -> int:
        return self._sender.sent.events

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(accounts.ARRIVAL_LIMIT_S)
        self._sender.close()

    def _run(self) -> None:
        bundle = bundled()
        try:
            for number in range(ROUNDS_MAX):
                if self._stop.is_set():
                    return
                now = time.time_ns() // 1_000_000
                plan = traffic.plan(bundle, run_id=f"flow{number}", now_ms=now, copies=1)
                self._sender.send(plan, progress=lambda _: time.sleep(self._gap_s))
                self.accepted |= {(each.session_id, each.batch_id) for each in plan if each.way in {"http", "kafka"}}
        except BaseException as error:
            self.failed = error
