"""After its retention nothing of a session is left in either store, looked at byte by byte, and another's is whole."""

from __future__ import annotations

import time

from tests.integration.storage.stores import LONG_AGO_MS, TABLES, Client, Stores, a_session, said
from tests.stored import files_with
from tests.support import eventually

GONE_WITHIN_S = 90.0


def test_after_its_retention_no_byte_is_left_and_the_other_session_is_whole(stores: Stores, reader: Client) -> None:
    old, young = a_session(), a_session()
    stores.take_in(
        [
            said(old, 0, LONG_AGO_MS, "30d"),
            said(young, 1, LONG_AGO_MS, "1y"),
            said(old, 2, LONG_AGO_MS + 1, "30d"),
        ]
    )
    stores.take_in([said(young, 3, time.time_ns() // 1_000_000, "30d")])
    before = reader.get(f"/v1/sessions/{young}/recording").content
    assert before.count(b"says") == 6
    for session in (old, young):
        assert files_with(stores.rows, session)
        assert files_with(stores.objects, session)

    would = stores.replay_retain("--dry-run")
    assert len(files_with(stores.objects, old)) == 2  # an object and its manifest
    assert stores.replay_retain() == would
    assert files_with(stores.objects, old) == []
    stores.force_ttl()
    eventually(lambda: not files_with(stores.rows, old), within_s=GONE_WITHIN_S, why="old parts are let go of")

    assert {table: stores.count(table, old) for table in TABLES if table != "minutes"} == {
        "events": 0, "sessions": 0, "session_users": 0, "blocks": 0
    }  # fmt: skip
    assert stores.count("events", young) == 6
    assert reader.get(f"/v1/sessions/{young}/recording").content == before
    assert stores.replay_retain() == ""
