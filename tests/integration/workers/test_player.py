"""A redacted recording still plays: in rrweb-player, in a real browser, beside the same recording as it was captured."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import settings
from pipeline.model.events import SessionEvent
from tests.canaries import left_in
from tests.recordings import cleaned, events_of, manifest
from tests.support import need

PLAYER = Path(__file__).with_name("player")
INSTALL_LIMIT_S = 120
PLAY_LIMIT_S = 240
RRWEB = {each.name: each for each in manifest() if each.source != "portable"}
COVERED = ("password", "email", "card", "phone")

each_recording = pytest.mark.parametrize("name", RRWEB)


@dataclass(frozen=True)
class Played:
    """What the browser showed of one recording, as captured and as redacted: see play.mjs."""

    sent: dict[str, Any]
    left: dict[str, Any]


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder that has the player and the browser's driver, as locked; installed once into the cache."""
    need(shutil.which("node") and shutil.which("npm"), "Node.js with npm")
    lock = PLAYER / "package-lock.json"
    made = settings.load().cache / "player" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if not made.is_dir():
        made.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=made.parent))
        for file in (lock, PLAYER / "package.json"):
            shutil.copy(file, part)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=part, check=True, capture_output=True, timeout=INSTALL_LIMIT_S,
        )  # fmt: skip
        part.rename(made)
    return made


@pytest.fixture(scope="module")
def played(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    chromium = shutil.which("chromium")
    need(chromium, "the browser chromium")
    folder = tmp_path_factory.mktemp("recordings")
    for name in RRWEB:
        _write(folder / f"{name}.sent.json", events_of(name))
        _write(folder / f"{name}.left.json", cleaned(name))
    ran = subprocess.run(
        ["node", PLAYER / "play.mjs", folder, chromium],
        cwd=modules, capture_output=True, text=True, timeout=PLAY_LIMIT_S, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    seen = {each["file"]: each for each in json.loads(ran.stdout)}
    return {name: Played(seen[f"{name}.sent.json"], seen[f"{name}.left.json"]) for name in RRWEB}


def _write(path: Path, events: Iterable[SessionEvent]) -> None:
    path.write_bytes(msgspec.json.encode(list(events)))


@each_recording
def test_redacted_recording_plays_to_its_end_without_a_new_error(played: dict[str, Played], name: str) -> None:
    both = played[name]
    assert both.left["errors"] == both.sent["errors"]
    assert both.left["total_ms"] == both.sent["total_ms"]
    assert both.left["finished"]


@each_recording
def test_redacted_recording_shows_the_same_elements_at_every_time(played: dict[str, Played], name: str) -> None:
    both = played[name]
    for sent, left in zip(both.sent["views"], both.left["views"], strict=True):
        assert (left["at_ms"], left["nodes"], left["tags"]) == (sent["at_ms"], sent["nodes"], sent["tags"])
        assert left["nodes"] > 10, "a page was rebuilt at all"


@each_recording
def test_no_canary_can_be_read_on_the_screen(played: dict[str, Played], name: str) -> None:
    secrets = [canary for kind, canary in RRWEB[name].typed.items() if kind in COVERED]
    assert [left_in(each["text"].encode(), secrets) for each in played[name].left["views"]] == [[], [], []]


def test_canaries_can_be_read_on_the_screen_where_nothing_was_redacted(played: dict[str, Played]) -> None:
    name = "rrweb-browse-login-checkout"
    last = played[name].sent["views"][-1]["text"].encode()
    assert left_in(last, [RRWEB[name].typed[kind] for kind in ("email", "card", "phone")]) == [
        RRWEB[name].typed[kind] for kind in ("email", "card", "phone")
    ]
