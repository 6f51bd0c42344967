"""A pinned session outlives its retention, whole; unpinned it goes as if it had never been pinned. Looked at byte by byte."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from pipeline.sinks import rows
from pipeline.storage import blocks
from pipeline.storage.pins import Pins
from tests.integration.sinks.crashes import CrashError, Dying
from tests.integration.storage.stores import LONG_AGO_MS, TENANT, Client, Stores, a_session, said
from tests.stored import files_with
from tests.support import eventually

GONE_WITHIN_S = 90.0
SOON_S = 15
PINNED_UNTIL_S = 2**32 - 2
STEPS_MAX = 40


def pin(admin: Client, session: str, pinned: bool) -> dict[str, object]:
    answer = admin.patch(f"/v1/sessions/{session}", json={"pinned": pinned})
    assert answer.status_code == 200, answer.text
    return answer.json()


def recording(reader: Client, session: str) -> bytes:
    return reader.get(f"/v1/sessions/{session}/recording").content


def ends(stores: Stores, session: str) -> dict[str, set[int]]:
    """When the session's rows go, by table, in seconds since 1970."""
    sql = "SELECT DISTINCT toUnixTimestamp(expires_at) FROM {{db}}.{} WHERE session_id = {{s:String}}"
    tables = ("events", "sessions", "session_users")
    return {table: {end for (end,) in stores.warehouse.rows(sql.format(table), s=session)} for table in tables}


def copies(stores: Stores) -> list[str]:
    return [key for key in stores.blobs.keys("replays/v1/retention=pinned/") if key.endswith(".zst")]


def test_a_pinned_session_outlives_its_retention_and_goes_when_it_is_unpinned(
    stores: Stores, reader: Client, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, other = a_session(), a_session()
    soon = int(time.time()) + SOON_S
    for module in (rows, blocks):  # as if the last day ended soon
        monkeypatch.setattr(module, "expires_at_s", lambda *_: soon)
    stores.take_in([said(session, n, LONG_AGO_MS + n, "30d") for n, session in enumerate((kept, other, kept, other))])
    before = recording(reader, kept)
    assert before.count(b"says") == 6

    assert pin(admin, kept, True) == {"session_id": kept, "pinned": True, "blocks": 1, "missing_blocks": 0}
    assert recording(reader, kept) == before  # source and copy are both there, and count once
    assert time.time() < soon
    eventually(lambda: time.time() > soon, within_s=2 * SOON_S, why="the day is over")
    stores.replay_retain()
    stores.force_ttl()
    eventually(lambda: stores.left(other) == [], within_s=GONE_WITHIN_S, why="the other session is gone")
    assert recording(reader, kept) == before
    assert {table: stores.count(table, kept) for table in ("events", "sessions", "session_users")} == {
        "events": 6, "sessions": 1, "session_users": 1
    }  # fmt: skip
    assert {key.split("/")[2] for key in stores.blobs.keys("replays/")} == {"retention=pinned"}

    assert pin(admin, kept, False)["pinned"] is False
    assert files_with(stores.objects, kept) == []
    stores.force_ttl()
    eventually(lambda: stores.left(kept) == [], within_s=GONE_WITHIN_S, why="the unpinned session is gone")


def test_a_session_may_be_unpinned_and_pinned_again_while_it_lives(
    stores: Stores, reader: Client, admin: Client
) -> None:
    session = a_session()
    stores.take_in([said(session, 0, LONG_AGO_MS, "1y"), said(session, 1, LONG_AGO_MS, "2y")])
    before, natural = recording(reader, session), ends(stores, session)
    for _ in range(2):
        for _ in range(2):
            assert pin(admin, session, True)["blocks"] == 2
        assert recording(reader, session) == before
        assert len(copies(stores)) == 2
        pinned = ends(stores, session)
        assert all(found == {PINNED_UNTIL_S} for found in pinned.values())
        for _ in range(2):
            pin(admin, session, False)
        assert recording(reader, session) == before
        assert copies(stores) == []
        assert ends(stores, session) == {table: {max(found)} for table, found in natural.items()}
    assert stores.warehouse.value("SELECT count() FROM {db}.pins") == 0


def test_what_comes_after_the_pin_is_pinned_by_the_next_retain(stores: Stores, reader: Client, admin: Client) -> None:
    session = a_session()
    stores.take_in([said(session, 0, LONG_AGO_MS, "1y")])
    pin(admin, session, True)
    stores.take_in([said(session, 1, LONG_AGO_MS + 1, "1y")])
    before = recording(reader, session)
    assert before.count(b"says") == 6
    stores.replay_retain()
    assert len(copies(stores)) == 2
    assert recording(reader, session) == before
    assert all(found == {PINNED_UNTIL_S} for found in ends(stores, session).values())


def test_what_has_expired_cannot_be_pinned(stores: Stores, admin: Client) -> None:
    session = a_session()
    stores.take_in([said(session, 0, LONG_AGO_MS, "30d")])
    assert admin.patch(f"/v1/sessions/{session}", json={"pinned": True}).status_code == 404


@pytest.mark.parametrize(("pinned", "answer_lost"), [(True, False), (True, True), (False, False)])
def test_a_crash_at_any_step_is_mended(stores: Stores, reader: Client, pinned: bool, answer_lost: bool) -> None:
    sessions = [a_session() for _ in range(STEPS_MAX)]
    stores.take_in([said(session, n, LONG_AGO_MS, "1y") for n, session in enumerate(sessions)])
    real = Pins(stores.warehouse, stores.blobs)
    for at, session in enumerate(sessions, 1):
        before, natural = recording(reader, session), ends(stores, session)
        if not pinned:
            real.change(TENANT, session, pinned=True)
        steps = Dying(None, at, answer_lost=answer_lost)
        dying = Pins(Shared(steps, stores.warehouse), Shared(steps, stores.blobs))  # type: ignore[arg-type]
        try:
            dying.change(TENANT, session, pinned=pinned)
        except CrashError:
            real.complete()
        else:
            assert at > 8
            return
        noted = stores.warehouse.value("SELECT count() FROM {db}.pins FINAL WHERE session_id = {s:String}", s=session)
        assert recording(reader, session) == before
        assert copies_of(stores, at - 1) == noted
        assert ends(stores, session) == ({table: {PINNED_UNTIL_S} for table in natural} if noted else natural)
        real.change(TENANT, session, pinned=False)
    pytest.fail("there are more steps than sessions")


def copies_of(stores: Stores, block: int) -> int:
    """Copies of one block of the one object, with their manifests."""
    keys = [key for key in stores.blobs.keys("replays/v1/retention=pinned/") if f"-b{block}." in key]
    assert len(keys) in (0, 2)
    return len(keys) // 2


class Shared:
    """A real thing whose calls count down the steps of another too."""

    def __init__(self, steps: Dying, real: object) -> None:
        self._steps, self._real = steps, real

    def __getattr__(self, name: str) -> object:
        self._steps._real = self._real
        return getattr(self._steps, name)


def test_an_erased_session_is_not_copied(stores: Stores, admin: Client) -> None:
    session = a_session()
    stores.take_in([said(session, 0, LONG_AGO_MS, "1y"), said(a_session(), 1, LONG_AGO_MS, "1y")])
    stores.take_in([said(session, 2, LONG_AGO_MS, "1y")])
    erased = {"tenant": [TENANT], "session_id": [session], "epoch": [1], "source_partition": [0], "source_offset": [1]}
    stores.warehouse.insert("erasures", pa.table(erased))
    assert pin(admin, session, True)["blocks"] == 1
    assert ["-2-b0" in key for key in copies(stores)] == [True]


def test_a_session_that_is_erased_while_it_is_copied_leaves_no_copy(stores: Stores) -> None:
    session = a_session()
    stores.take_in([said(session, 0, LONG_AGO_MS, "1y")])
    erased = {"tenant": [TENANT], "session_id": [session], "epoch": [1], "source_partition": [0], "source_offset": [1]}

    class ErasedMeanwhile:
        """The store, as a copy finds it whose eraser has passed between index and bytes."""

        def __getattr__(self, name: str) -> object:
            return getattr(stores.blobs, name)

        def put_if_absent(self, key: str, body: bytes) -> bool:
            stores.warehouse.insert("erasures", pa.table(erased))
            return stores.blobs.put_if_absent(key, body)

    Pins(stores.warehouse, ErasedMeanwhile()).change(TENANT, session, pinned=True)  # type: ignore[arg-type]
    assert list(stores.blobs.keys("replays/v1/retention=pinned/")) == []


def test_a_block_that_cannot_be_read_is_told_and_the_others_are_kept(stores: Stores, admin: Client) -> None:
    session = a_session()
    for n in range(2):
        stores.take_in([said(session, n, LONG_AGO_MS, "1y")])
    stores.blobs.delete(next(key for key in stores.blobs.keys("replays/") if key.endswith("-0.jsonl.zst")))
    assert pin(admin, session, True) == {"session_id": session, "pinned": True, "blocks": 1, "missing_blocks": 1}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("nobody", b'{"pinned":true}', 404),
        ("s1~1", b'{"pinned":true}', 400),
        ("s1", b'{"pinned":1}', 400),
        ("s1", b'{"pinned":true,"x":1}', 400),
        ("s1", b"", 400),
        ("s1", b"\xff" * 2_000, 413),
    ],
)
def test_what_cannot_be_pinned_is_refused(admin: Client, path: str, body: bytes, status: int) -> None:
    assert admin.patch(f"/v1/sessions/{path}", content=body).status_code == status


def test_a_read_key_may_not_pin(reader: Client) -> None:
    assert reader.patch("/v1/sessions/s1", json={"pinned": True}).status_code == 401
