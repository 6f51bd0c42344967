"""A server process hears SIGTERM whenever it comes."""

from __future__ import annotations

import subprocess
import sys

from pipeline.local.ports import free_ports

EARLY_SIGNAL = """
import os, signal, sys
import uvicorn
from pipeline.observe.serving import serve

async def app(scope, receive, send): ...

real = uvicorn.Server.serve
def early(self, *args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    return real(self, *args, **kwargs)
uvicorn.Server.serve = early
serve(app, host="127.0.0.1", port=int(sys.argv[1]), lifespan=False)
print("closed")
"""


def test_sigterm_before_the_server_listens_is_not_lost() -> None:
    (port,) = free_ports(1)
    done = subprocess.run(
        [sys.executable, "-c", EARLY_SIGNAL, str(port)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "closed"), done.stderr
