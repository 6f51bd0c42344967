"""Files of a lock from a repository on loopback: whole and right, or not there at all."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import settings as settings_table
from pipeline.errors import ConfigurationError
from pipeline.local import jars
from pipeline.local.jars import LockedFile
from pipeline.local.ports import free_ports
from pipeline.settings import Settings

BODIES = {f"org/example/part-{n}.jar": bytes([n]) * (10_000 + n) for n in range(4)}


class Repository:
    """Serves `bodies`; `cut` names paths whose answer breaks off in the middle; `asked` is what was asked for."""

    def __init__(self) -> None:
        self.bodies = dict(BODIES)
        self.cut: set[str] = set()
        self.asked: list[str] = []
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.removeprefix("/maven2/")
                repository.asked.append(path)
                body = repository.bodies.get(path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if path in repository.cut else body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/maven2/"


@pytest.fixture
def repository() -> Iterator[Repository]:
    found = Repository()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def settings(repository: Repository) -> Settings:
    return dataclasses.replace(settings_table.load({}), maven_repository=repository.url)


@pytest.fixture
def files(tmp_path: Path) -> list[LockedFile]:
    lock = tmp_path / "some.lock"
    lock.write_text(
        "".join(f"{path} {hashlib.sha256(body).hexdigest()} {len(body)}\n" for path, body in BODIES.items())
    )
    return jars.read_lock(lock)


def test_every_file_of_the_lock_is_fetched_once(
    repository: Repository, settings: Settings, files: list[LockedFile], tmp_path: Path
) -> None:
    found = jars.fetch(settings, files, tmp_path / "cache", quiet=True)
    assert [path.read_bytes() for path in found] == list(BODIES.values())
    assert sorted(repository.asked) == sorted(BODIES)
    assert jars.fetch(settings, files, tmp_path / "cache", quiet=True) == found
    assert len(repository.asked) == len(BODIES)


@pytest.mark.parametrize("damage", [b"", b"\1" * 9_999, b"\2" * 10_001])
def test_a_download_that_is_not_what_the_lock_pins_is_refused_and_not_kept(
    repository: Repository, settings: Settings, files: list[LockedFile], tmp_path: Path, damage: bytes
) -> None:
    repository.bodies["org/example/part-1.jar"] = damage
    with pytest.raises(ConfigurationError, match=r"part-1\.jar is not what the lock pins"):
        jars.fetch(settings, files, tmp_path / "cache", quiet=True)
    assert not [each for each in (tmp_path / "cache").iterdir() if "part-1" in each.name]


def test_an_interrupted_download_goes_on_with_the_files_that_are_missing(
    repository: Repository, settings: Settings, files: list[LockedFile], tmp_path: Path
) -> None:
    repository.cut = {"org/example/part-3.jar"}
    with pytest.raises(ConfigurationError, match=r"cannot be reached for org/example/part-3\.jar"):
        jars.fetch(settings, files, tmp_path / "cache", quiet=True)
    there = {each.name for each in (tmp_path / "cache").iterdir()}
    assert "part-3.jar" not in there
    assert all(name.startswith("part-") for name in there), "no half file stays"
    repository.cut, repository.asked = set(), []
    found = jars.fetch(settings, files, tmp_path / "cache", quiet=True)
    assert [path.read_bytes() for path in found] == list(BODIES.values())
    assert {path.rpartition("/")[2] for path in repository.asked} == {path.name for path in found} - there


@pytest.mark.parametrize("content", [b"", b"\2" * 5_000, b"\0" * 10_002], ids=["empty", "short", "right size"])
def test_a_damaged_file_of_the_cache_is_fetched_again(
    settings: Settings, files: list[LockedFile], tmp_path: Path, content: bytes
) -> None:
    damaged = jars.fetch(settings, files, tmp_path / "cache", quiet=True)[2]
    damaged.write_bytes(content)
    jars.fetch(settings, files, tmp_path / "cache", quiet=True)
    assert damaged.read_bytes() == BODIES["org/example/part-2.jar"]


def test_a_repository_without_a_file_is_named_with_what_to_do(
    repository: Repository, settings: Settings, files: list[LockedFile], tmp_path: Path
) -> None:
    del repository.bodies["org/example/part-0.jar"]
    with pytest.raises(ConfigurationError, match=r"answered 404 for org/example/part-0\.jar; set REPLAY_MAVEN_"):
        jars.fetch(settings, files, tmp_path / "cache", quiet=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/maven2", "ftp://127.0.0.1/maven2", "http://[bad/maven2"])
def test_a_repository_that_cannot_be_reached_says_what_to_do(
    settings: Settings, files: list[LockedFile], tmp_path: Path, url: str
) -> None:
    away = dataclasses.replace(settings, maven_repository=url.format(port=free_ports(1)[0]))
    with pytest.raises(ConfigurationError, match=r"cannot be reached .* REPLAY_MAVEN_REPOSITORY .* HTTPS_PROXY"):
        jars.fetch(away, files, tmp_path / "cache", quiet=True)


def test_the_brokers_lock_pins_every_file_once_by_hash_and_size() -> None:
    files = jars.read_lock()
    assert len({each.name for each in files}) == len(files) > 40
    assert all(len(each.sha256) == 64 and each.size_bytes > 0 for each in files)
    assert any(each.name == "kafka_2.13-4.4.0.jar" for each in files)
