"""Tells whoever started this process that it is ready, by the service manager's notify protocol (sd_notify(3)).

`replay up` listens, and so does systemd with Type=notify. Without NOTIFY_SOCKET it does nothing.
"""

from __future__ import annotations

import os
import socket


def notify_ready(environ: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Sends READY=1 once. A listener that has gone away is no reason to stop."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
        try:
            notice.sendto(b"READY=1", address)
        except OSError:
            return
