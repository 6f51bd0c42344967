"""Pinned, checksummed files from a Maven repository, fetched once into the cache that all homes share.

A lock file has a line a file: the path inside the repository, its sha256, its size in bytes. `python -m pipeline.local.jars`
makes the broker's lock anew (it resolves with jgo, downloads, and hashes).
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from pipeline.errors import ConfigurationError
from pipeline.settings import Settings

LOCK = Path(__file__).with_name("kafka.lock")
COORDINATES = (
    "org.apache.kafka:kafka_2.13:4.4.0",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",
)
DOWNLOADS_AT_ONCE = 6
TIMEOUT_S = 60.0
CHUNK_BYTES = 256 << 10


@dataclass(frozen=True)
class LockedFile:
    """One file of a lock: where it is in the repository, and what it must be."""

    path: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def read_lock(lock: Path = LOCK) -> list[LockedFile]:
    found = []
    for line in lock.read_text().splitlines():
        path, sha256, size = line.split()
        found.append(LockedFile(path, sha256, int(size)))
    return found


def fetch(settings: Settings, files: list[LockedFile], folder: Path, *, quiet: bool = False) -> list[Path]:
    """The files in `folder`, downloading those that are missing or damaged; shows a progress bar unless `quiet`.

    Each file appears whole or not at all, so an interrupted download is taken up where it was by the next call.
    Raises ConfigurationError where the repository cannot be reached or a file is not what the lock says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [each for each in files if not _is_there(folder / each.name, each)]
    if missing:
        _download(settings, missing, folder, quiet=quiet)
    return [folder / each.name for each in files]


def _is_there(path: Path, file: LockedFile) -> bool:
    """The hash each time: 43 MB take 75 ms, and a damaged jar of the right size would fail in ways nobody understands."""
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    with path.open("rb") as body:
        return hashlib.file_digest(body, "sha256").hexdigest() == file.sha256


def _download(settings: Settings, missing: list[LockedFile], folder: Path, *, quiet: bool) -> None:
    total = sum(each.size_bytes for each in missing)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, disable=quiet) as progress,
        httpx.Client(timeout=TIMEOUT_S, follow_redirects=True) as client,
        ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
    ):
        task = progress.add_task(f"fetching {len(missing)} files", total=total)
        jobs = [
            pool.submit(_fetch_one, client, _repository(settings), each, folder, lambda n: progress.advance(task, n))
            for each in missing
        ]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch_one(
    client: httpx.Client, repository: str, file: LockedFile, folder: Path, told: Callable[[int], None]
) -> None:
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{file.name}-")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as out, client.stream("GET", f"{repository}/{file.path}") as answer:
            if answer.status_code != httpx.codes.OK:
                raise ConfigurationError(
                    f"the Maven repository answered {answer.status_code} for {file.path}; {_ADVICE}"
                )
            for chunk in answer.iter_bytes(CHUNK_BYTES):
                out.write(chunk)
                digest.update(chunk)
                told(len(chunk))
        if digest.hexdigest() != file.sha256:
            raise ConfigurationError(
                f"{file.path} is not what the lock pins: sha256 {digest.hexdigest()}; it was not kept. "
                "A mirror or proxy may have changed it: set REPLAY_MAVEN_REPOSITORY to another"
            )
        part.replace(folder / file.name)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"the Maven repository cannot be reached for {file.path} ({type(error).__name__}); {_ADVICE}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


_ADVICE = "set REPLAY_MAVEN_REPOSITORY to a mirror, or HTTPS_PROXY, and run again: what was fetched is kept"


def _repository(settings: Settings) -> str:
    if settings.maven_repository:
        return settings.maven_repository.rstrip("/")
    from jgo.constants import MAVEN_CENTRAL_URL

    return str(MAVEN_CENTRAL_URL).rstrip("/")


def _make_lock() -> None:
    """Resolves COORDINATES and writes LOCK. `!` keeps jgo from mixing in another version's dependencies."""
    import jgo

    environment = jgo.build("+".join(f"{each}!" for each in COORDINATES))
    repository = Path.home() / ".m2" / "repository"
    lines = []
    for jar in environment.all_jars:
        name = Path(str(jar)).name
        (path,) = repository.rglob(name)
        body = path.read_bytes()
        lines.append(f"{path.relative_to(repository).as_posix()} {hashlib.sha256(body).hexdigest()} {len(body)}")
    LOCK.write_text("\n".join(sorted(lines)) + "\n")
    print(f"{LOCK.name}: {len(lines)} files", file=sys.stderr)


if __name__ == "__main__":
    _make_lock()
