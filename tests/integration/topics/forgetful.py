"""A wire before a real broker that makes it name no brokers at all in its metadata, as one does while it shuts down.

It passes frames on (a length of four bytes, then that many) and rewrites the list of brokers in the answers to Metadata
requests, of version 9 and above: one broker, reached through this wire, or none.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

METADATA_KEY = 3
_ONLY_BROKER = 1


class ForgetfulWire:
    """Listens on a free port of the loopback until closed."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.forgets = False
        """Whether answers name no broker from now on."""
        self.forgot = 0
        """Answers that named none."""
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._server, *self._open):
            _shut(each)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self._broker_port))
            self._open += [client, broker]
            asked: dict[int, int] = {}
            for source, sink, pump in ((client, broker, self._ask), (broker, client, self._answer)):
                threading.Thread(target=_pumped, args=(pump, source, sink, asked), daemon=True).start()

    @staticmethod
    def _ask(frame: bytes, asked: dict[int, int]) -> bytes:
        key, version, correlation = struct.unpack(">hhi", frame[:8])
        if key == METADATA_KEY:
            asked[correlation] = version
        return frame

    def _answer(self, frame: bytes, asked: dict[int, int]) -> bytes:
        version = asked.pop(struct.unpack(">i", frame[:4])[0], None)
        if version is None:
            return frame
        assert version >= 9, "only the compact encoding is understood here"
        start = 4 + 1 + 4  # correlation, no tags, throttle time
        end = _after_brokers(frame, start)
        if self.forgets:
            self.forgot += 1
            return frame[:start] + b"\x01" + frame[end:]
        host = b"127.0.0.1"
        named = struct.pack(">i", _ONLY_BROKER) + bytes([len(host) + 1]) + host + struct.pack(">i", self.port) + b"\0\0"
        return frame[:start] + b"\x02" + named + frame[end:]


def _pumped(pump: object, source: socket.socket, sink: socket.socket, asked: dict[int, int]) -> None:
    assert callable(pump)
    frames = source.makefile("rb")
    try:
        while len(head := frames.read(4)) == 4:
            frame = pump(frames.read(struct.unpack(">i", head)[0]), asked)
            sink.sendall(struct.pack(">i", len(frame)) + frame)
    except OSError:
        pass
    finally:
        _shut(source)
        _shut(sink)


def _after_brokers(frame: bytes, at: int) -> int:
    """Where the array of brokers ends: each has an id, a host, a port, a rack or none, and no tags."""
    count, at = _varint(frame, at)
    for _ in range(count - 1):
        host, at = _varint(frame, at + 4)
        rack, at = _varint(frame, at + host - 1 + 4)
        tags, at = _varint(frame, at + max(0, rack - 1))
        assert tags == 0
    return at


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (frame[at] & 0x7F) << shift
        shift += 7
        at += 1
        if frame[at - 1] < 0x80:
            return number, at


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
