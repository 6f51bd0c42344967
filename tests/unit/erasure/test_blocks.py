"""An object without a session: of the same length, the neighbours where they were, readable by every zstd reader."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.erasure.blocks import Session, erase, holds
from pipeline.errors import PoisonError
from pipeline.storage.blocks import PackedObject, Place, pack, read_block, read_manifest
from tests.support import need
from tests.unit.sinks.clean import AUGUST_MS, batch

PLACE = Place("replay.batches", 1, 3)
SESSIONS = [("acme", "s1"), ("acme", "s2"), ("rival", "s1"), ("acme", "s3")]
ZSTD = b"\x28\xb5\x2f\xfd"
ERASED = b"\x50\x2a\x4d\x18"


def word(session: Session) -> str:
    return f"said-in-{session[0]}-{session[1]}"


def packed(sessions: list[Session] = SESSIONS) -> PackedObject:
    batches = [
        batch(n, [("click", AUGUST_MS + n, {"text": word(each)})] * 3, tenant=each[0], session_id=each[1])
        for n, each in enumerate([*sessions, *sessions])
    ]
    return pack(PLACE, "30d", len(batches), batches)


def plain(body: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()


@given(st.sets(st.sampled_from(SESSIONS), min_size=1))
def test_erased_sessions_are_gone_and_all_others_are_where_they_were(gone: set[Session]) -> None:
    whole = packed()
    erased = erase(whole.body, gone)
    assert erased is not None
    assert len(erased.body) == len(whole.body)
    lines = [json.loads(line) for line in plain(erased.body).splitlines()]
    assert {(each["tenant"], each["session_id"]) for each in lines} == set(SESSIONS) - gone
    for block in whole.manifest.blocks:
        frame = erased.body[block.byte_start : block.byte_start + block.byte_length]
        if (block.tenant, block.session_id) in gone:
            assert frame.startswith(ERASED)
            assert not any(frame[8:])
        else:
            assert read_block(frame, block.sha256) == read_block(
                whole.body[block.byte_start : block.byte_start + block.byte_length], block.sha256
            )
    kept = read_manifest(erased.body)
    assert kept == erased.manifest
    assert {(each.tenant, each.session_id) for each in kept.blocks} == set(SESSIONS) - gone
    assert (kept.first, kept.last, kept.object) == (
        whole.manifest.first,
        whole.manifest.last,
        whole.manifest.object,
    )


@given(st.sets(st.sampled_from(SESSIONS), min_size=1))
def test_counts_are_those_of_the_manifest(gone: set[Session]) -> None:
    whole = packed()
    erased = erase(whole.body, gone)
    assert erased is not None
    for session in SESSIONS:
        mine = [each for each in whole.manifest.blocks if (each.tenant, each.session_id) == session]
        assert erased.blocks[session] == (len(mine) if session in gone else 0)
        assert erased.bytes[session] == (sum(each.byte_length for each in mine) if session in gone else 0)


def test_not_even_the_ids_are_left() -> None:
    erased = erase(packed([("acme", "s1"), ("acme", "unmistakable")]).body, {("acme", "unmistakable")})
    assert erased is not None
    assert b"unmistakable" not in erased.body


def test_again_finds_nothing() -> None:
    once = erase(packed().body, {SESSIONS[0]})
    assert once is not None
    assert erase(once.body, {SESSIONS[0]}) is None
    assert not holds(once.body, {SESSIONS[0]})
    assert holds(once.body, {SESSIONS[1]})


def test_one_after_another_is_as_together() -> None:
    one = erase(packed().body, {SESSIONS[0]})
    assert one is not None
    both, together = erase(one.body, {SESSIONS[1]}), erase(packed().body, set(SESSIONS[:2]))
    assert both is not None
    assert together is not None
    assert both.body == together.body


def test_same_id_in_another_tenant_stays() -> None:
    erased = erase(packed().body, {("rival", "s1")})
    assert erased is not None
    assert word(("acme", "s1")).encode() in plain(erased.body)
    assert word(("rival", "s1")).encode() not in plain(erased.body)


@pytest.mark.parametrize("body", [b"", b"no object", packed().body[:-1], packed().body + b"x"])
def test_what_is_no_object_is_not_touched(body: bytes) -> None:
    with pytest.raises(PoisonError):
        erase(body, set(SESSIONS))


def test_zstd_itself_reads_it(tmp_path: Path) -> None:
    need(shutil.which("zstd"), "the zstd command")
    erased = erase(packed().body, {SESSIONS[0], SESSIONS[3]})
    assert erased is not None
    (tmp_path / "o.jsonl.zst").write_bytes(erased.body)
    out = subprocess.run(["zstd", "-dc", str(tmp_path / "o.jsonl.zst")], capture_output=True, check=True).stdout
    assert out == plain(erased.body)


def test_pyarrow_reads_it(tmp_path: Path) -> None:
    erased = erase(packed().body, {SESSIONS[0], SESSIONS[3]})
    assert erased is not None
    (tmp_path / "o.jsonl.zst").write_bytes(erased.body)
    with pa.input_stream(str(tmp_path / "o.jsonl.zst"), compression="zstd") as stream:
        assert stream.read() == plain(erased.body)
