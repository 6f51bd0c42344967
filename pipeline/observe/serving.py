"""Serves one ASGI application until SIGTERM or Ctrl-C, telling that it is ready once it listens."""

from __future__ import annotations

import signal
from typing import Any

import uvicorn

from pipeline.observe.ready import notify_ready

SHUTDOWN_S = 5
"""How long requests in flight may take to finish after SIGTERM."""


class _Server(uvicorn.Server):
    """Hears a signal that comes before uvicorn's own handlers are in place."""

    told_to_stop = False

    def stop_soon(self, *_: object) -> None:
        self.told_to_stop = True

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.told_to_stop:
            self.should_exit = True
        elif self.started:
            notify_ready()


def serve(app: Any, *, host: str, port: int, lifespan: bool = True) -> None:
    """Blocks until it is told to stop and requests in flight are answered (at most SHUTDOWN_S).

    No access log: it would hold query strings, and keys travel in them.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on" if lifespan else "off",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = _Server(config)
    for each in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it is done: it must not end us, we still have to close
        signal.signal(each, server.stop_soon)
    server.run()
