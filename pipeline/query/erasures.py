"""Erasure over HTTP, with an admin key: asked for, and looked after.

DELETE /v1/sessions/{id}     a session, all its parts
DELETE /v1/users/{id}        every session that the user was ever seen in
GET    /v1/erasures/{id}     how far it is, and the certificate once it is done
"""

from __future__ import annotations

import json
import time
from typing import Any

from pipeline.erasure.requests import Kind, Request, Requests, iso
from pipeline.errors import MalformedError, NotFoundError
from pipeline.model.admission import ANONYMOUS, USER_ID_CHARS_MAX
from pipeline.query.sessions import parse_id
from pipeline.storage.clickhouse import ClickHouse


def ask(warehouse: ClickHouse, tenant: str, kind: Kind, subject: str, *, key: str) -> dict[str, Any]:
    """What was asked for, as `told` has it. Raises MalformedError where it is nothing that can be erased."""
    if kind == "session":
        wanted = parse_id(subject)
        if wanted.part is not None:
            raise MalformedError("a session is erased whole: leave out ~ and the part", path="id")
        subject = wanted.session_id
    elif not 1 <= len(subject) <= USER_ID_CHARS_MAX or subject == ANONYMOUS:
        raise MalformedError(f"the id of one user is wanted, 1 to {USER_ID_CHARS_MAX} characters", path="id")
    now_ms = time.time_ns() // 1_000_000
    return told(Requests(warehouse).ask(tenant, kind, subject, key=key, now_ms=now_ms))


def look_up(warehouse: ClickHouse, tenant: str, request_id: str) -> dict[str, Any]:
    """Raises NotFoundError."""
    found = Requests(warehouse).get(tenant, request_id)
    if found is None:
        raise NotFoundError("there is no erasure by this id")
    return told(found)


def told(request: Request) -> dict[str, Any]:
    """A request as the API gives it; what the certificate adds is there once it is done."""
    return {
        "id": request.id,
        "status": request.status,
        "asked": {
            "kind": request.kind,
            "subject": request.subject,
            "by": request.asked_by,
            "at": iso(request.asked_at),
        },
        "waits_for": request.waits_for or None,
        "certificate": json.loads(request.certificate) if request.status == "done" else None,
    }
