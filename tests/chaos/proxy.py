"""A loopback HTTP proxy before a store that makes it answer errors, late, or not at all, as told.

It takes a request whole, decides, and speaks to the store with the same bytes: what is done and what is lost is thereby
known exactly. Time-outs are the client's own.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args

Fault = Literal[
    "answers-500", "answers-503", "exception", "reset", "silent", "request-cut", "request-late", "answer-lost",
    "answer-late",
]  # fmt: skip
FAULTS: tuple[Fault, ...] = get_args(Fault)
"""Before anything is done: an error of a balancer, one of ClickHouse, a reset, silence until the client gives up.
Half done: the store gets half the request. Done: the answer is lost by a reset, or never comes; or the request comes late,
when the client has given it up and perhaps tried again."""

SHARE = 0.5
"""How many of the requests a fault strikes: some get through, so that every step of a flush is struck at some time."""
STORE_LIMIT_S = 60.0
EXCEPTIONS = {241: "MEMORY_LIMIT_EXCEEDED", 252: "TOO_MANY_PARTS", 202: "TOO_MANY_SIMULTANEOUS_QUERIES", 242: "TABLE_IS_READ_ONLY"}  # fmt: skip
_OWN_FRAMING = frozenset({"transfer-encoding", "content-length", "connection", "keep-alive", "expect"})


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Strike:
    """What happens to one request. `applied` runs when the store has done it, before the client hears of it; `late_s` is how
    long after the client gave up a late request comes."""

    fault: Fault | None = None
    applied: Callable[[], None] = _nothing
    late_s: float = 0.0


class FaultProxy:
    """Listens on a free port and passes on to `port` of the loopback, until closed. Thread-safe."""

    def __init__(self, port: int, *, seed: int, own_host: bool = True) -> None:
        """`own_host`: the store hears the Host that the client named, as S3's signatures need it; else its own."""
        self._store_port = port
        self.host = None if own_host else f"127.0.0.1:{port}"
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._share = SHARE
        self.struck: Counter[str] = Counter()
        """Requests struck, by fault."""
        self._under_way = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, name="fault-proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def faulty(self, fault: Fault, *, share: float = SHARE) -> Iterator[None]:
        """Meanwhile that share of all requests is struck."""
        with self._lock:
            self._fault, self._share = fault, share
        try:
            yield
        finally:
            with self._lock:
                self._fault = None

    def next_strike(self) -> Strike:
        """What happens to the request that has just come; counted."""
        with self._lock:
            if self._fault is None or self._random.random() >= self._share:
                return Strike()
            self.struck[self._fault] += 1
            return Strike(self._fault)

    @property
    def idle(self) -> bool:
        """No request is under way, a late one included."""
        return self._under_way == 0

    @contextmanager
    def under_way(self) -> Iterator[None]:
        with self._lock:
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def an_exception(self) -> int:
        with self._lock:
            return self._random.choice(list(EXCEPTIONS))

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._store_port, timeout=STORE_LIMIT_S)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_any(self) -> None:
        body = self._body()
        proxy: FaultProxy = self.server.proxy  # type: ignore[attr-defined]
        with proxy.under_way():
            self._answer(proxy, body, proxy.next_strike())

    def _answer(self, proxy: FaultProxy, body: bytes, strike: Strike) -> None:
        fault = strike.fault
        if fault == "answers-500":
            self._say(500, {}, b"Internal Server Error")
        elif fault == "answers-503":
            self._say(503, {"Retry-After": "1"}, b"Service Unavailable")
        elif fault == "exception":
            code = proxy.an_exception()
            told = f"Code: {code}. DB::Exception: played by the tests. ({EXCEPTIONS[code]})"
            self._say(500, {"X-ClickHouse-Exception-Code": str(code)}, told.encode())
        elif fault == "reset":
            self._reset()
        elif fault == "silent":
            self._stay_silent()
        else:
            if fault == "request-late":
                self._stay_silent()
                time.sleep(strike.late_s)  # the lateness itself
            self._pass_on(proxy, body, strike)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_any

    def _pass_on(self, proxy: FaultProxy, body: bytes, strike: Strike) -> None:
        fault = strike.fault
        store = proxy.connection()
        try:
            store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() == "host":
                    store.putheader("Host", proxy.host or value)
                elif name.lower() not in _OWN_FRAMING:
                    store.putheader(name, value)
            store.putheader("Content-Length", str(len(body)))
            store.endheaders()
            store.send(body[: len(body) // 2] if fault == "request-cut" else body)
            if fault == "request-cut":
                self._reset()
                return
            answer = store.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._reset()  # the store itself is away
            return
        finally:
            store.close()
        strike.applied()
        if fault == "answer-lost":
            self._reset()
        elif fault == "answer-late":
            self._stay_silent()
        elif fault != "request-late":
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN_FRAMING}
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._say(answer.status, headers, content, length=length)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(chunks)

    def _say(self, status: int, headers: dict[str, str], body: bytes, *, length: str | None = None) -> None:
        try:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status not in {204, 304}:
                self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client was killed meanwhile

    def _stay_silent(self) -> None:
        """Until the client closes: it sends nothing more before it has an answer."""
        self.close_connection = True
        try:
            self.connection.recv(1)
        except OSError:
            return

    def _reset(self) -> None:
        """RST instead of FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            return  # the client was killed in the middle of its request

    def log_message(self, *_: object) -> None:
        """Says nothing."""
