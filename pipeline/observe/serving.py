"""Serves one ASGI application until SIGTERM or Ctrl-C, telling that it is ready once it listens."""

from __future__ import annotations

import signal
from typing import Any

import uvicorn

from pipeline.observe.ready import notify_ready

SHUTDOWN_S = 5
"""How long requests in flight may take to finish after SIGTERM."""


class _Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            notify_ready()


def serve(app: Any, *, host: str, port: int, lifespan: bool = True) -> None:
    """Blocks until it is told to stop and requests in flight are answered (at most SHUTDOWN_S).

    No access log: it would hold query strings, and keys travel in them.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: None)  # uvicorn raises the signal again when it is done; we still have to close
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
    _Server(config).run()
