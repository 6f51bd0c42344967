"""Where a round's strikes meet the requests of the sinks."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Literal

from pipeline.local import process
from tests.chaos import proxy
from tests.chaos.sinks.draw import Strike
from tests.services import Service

SLEEP_LIMIT_S = 20.0
Sink = Literal["warehouse", "objects"]


@dataclass
class Member:
    """One sink process, and the wires that are its alone."""

    sink: Sink
    ready: process.ReadySocket = field(default_factory=process.ReadySocket)
    proxies: list[proxy.FaultProxy] = field(default_factory=list)
    popen: Popen[bytes] | None = None
    sleeps: float | None = None
    """Since when it is stopped; it wakes once `for_s` is over and a successor is there."""
    for_s: float = 0.0
    awake: threading.Event = field(default_factory=threading.Event)

    _is_ready: bool = False

    @property
    def is_ready(self) -> bool:
        """It has been given its partitions."""
        self._is_ready = self._is_ready or self.ready.told()
        return self._is_ready

    def send(self, how: signal.Signals) -> None:
        assert self.popen is not None
        self.popen.send_signal(how)

    def sleep(self, for_s: float) -> None:
        self.awake.clear()
        self.for_s, self.sleeps = for_s, time.monotonic()
        self.send(signal.SIGSTOP)

    def wake(self) -> None:
        self.sleeps = None
        self.send(signal.SIGCONT)
        self.awake.set()


class StruckWire:
    """All requests of one sink's processes to one store, counted together; the strikes are met one after the other."""

    def __init__(self, port: int, store: Service, strikes: Sequence[Strike], *, own_host: bool) -> None:
        self._port, self._store, self._own_host = port, store, own_host
        self._lock = threading.Lock()
        self._waiting = list(strikes)
        self._armed = False
        self._seen = 0
        self._ends: list[_End] = []

    @property
    def waiting(self) -> list[Strike]:
        return list(self._waiting)

    def arm(self) -> None:
        """From now on requests count."""
        self._armed = True

    def opened(self, member: Member) -> proxy.FaultProxy:
        """The member's own end of it."""
        end = _End(self, member, self._port, own_host=self._own_host)
        member.proxies.append(end)
        self._ends.append(end)
        return end

    @property
    def idle(self) -> bool:
        return all(end.idle for end in self._ends)

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def met(self, member: Member) -> proxy.Strike:
        """What happens to the request that a member has just sent."""
        with self._lock:
            if not self._waiting or not self._armed:
                return proxy.Strike()
            strike = self._waiting[0]
            self._seen += 1
            if self._seen < strike.at:
                return proxy.Strike()
            if self._seen == strike.at + strike.hits - 1:
                self._waiting.pop(0)
                self._seen = 0
        return self._carried_out(strike, member)

    def _carried_out(self, strike: Strike, member: Member) -> proxy.Strike:
        kind = strike.blow.kind
        if kind == "fault":
            return proxy.Strike(strike.blow.fault, late_s=strike.for_s)
        if kind == "kill":
            return _killed(strike, member)
        if kind == "freeze":
            return _put_to_sleep(strike, member)
        if kind == "terminate":
            member.send(signal.SIGTERM)
            return proxy.Strike()
        return self._store_ended(strike, signal.SIGKILL if kind == "store-killed" else signal.SIGTERM)

    def _store_ended(self, strike: Strike, how: signal.Signals) -> proxy.Strike:
        if strike.blow.when == "after":
            return proxy.Strike("answer-lost", applied=lambda: self._store.send(how))
        if strike.blow.when == "during":
            threading.Timer(strike.for_s, self._store.send, (how,)).start()
        else:
            self._store.send(how)
        return proxy.Strike()


def _killed(strike: Strike, member: Member) -> proxy.Strike:
    if strike.blow.when == "after":
        return proxy.Strike("answer-lost", applied=lambda: member.send(signal.SIGKILL))
    member.send(signal.SIGKILL)
    if strike.blow.when == "before":
        return proxy.Strike("reset")
    return proxy.Strike("request-late", late_s=strike.for_s)


def _put_to_sleep(strike: Strike, member: Member) -> proxy.Strike:
    if strike.blow.when == "after":
        return proxy.Strike(applied=lambda: member.sleep(strike.for_s))
    member.sleep(strike.for_s)
    member.awake.wait(SLEEP_LIMIT_S)  # its request comes when it wakes
    return proxy.Strike()


class _End(proxy.FaultProxy):
    def __init__(self, wire: StruckWire, member: Member, port: int, *, own_host: bool) -> None:
        super().__init__(port, seed=0, own_host=own_host)
        self._wire, self._member = wire, member

    def next_strike(self) -> proxy.Strike:
        return self._wire.met(self._member)
