"""A blob store in a directory: a blob is a file, written beside, synced, and linked into place.

link(2) fails where the name exists, which makes it the conditional PUT; the ETag is the content's hash. A replacement
holds the folder's lock between its look and its rename, so that two writers of one machine cannot both match.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from pipeline.errors import RetryableError
from pipeline.storage.blobs import LEFT_OVER_AFTER_S, MissingBlobError

_TEMPORARY = ".writing-"
SWEPT_AT_ONCE = 1_000


class DirectoryStore:
    """See `BlobStore`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._swept: Path | None = None

    def put_if_absent(self, key: str, body: bytes) -> bool:
        path = self._path(key)
        won = False
        if not os.path.exists(path):
            with self._written(path, body) as written, suppress(FileExistsError):
                os.link(written, path)
                won = True
        try:
            # The loser syncs too: the winner may have died before, and who is told "it is there" builds on it.
            _sync_folder(path.parent)
        except OSError as error:
            raise _retryable("write", error) from error
        return won

    def replace_if_match(self, key: str, body: bytes, etag: str) -> bool:
        path = self._path(key)
        with self._written(path, body) as written, _locked(path.parent):
            try:
                now = path.read_bytes()
            except FileNotFoundError:
                return False
            if _etag(now) != etag:
                return False
            written.replace(path)
            _sync_folder(path.parent)
        return True

    def get(self, key: str) -> tuple[bytes, str]:
        try:
            body = self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise MissingBlobError(key) from None
        except OSError as error:
            raise _retryable("read", error) from error
        return body, _etag(body)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        try:
            with self._path(key).open("rb") as file:
                file.seek(start)
                return file.read(max(length, 0))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise MissingBlobError(key) from None
        except OSError as error:
            raise _retryable("read", error) from error

    def keys(self, prefix: str) -> Iterator[str]:
        return (key for key in self._files(prefix) if not _name(key).startswith("."))

    def sizes(self, prefix: str, after: str = "") -> Iterator[tuple[str, int]]:
        for key in self._files(prefix, after):
            if not _name(key).startswith("."):
                with suppress(FileNotFoundError):  # deleted since it was listed
                    yield key, (self._root / key).stat().st_size

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            with _locked(path.parent):
                path.unlink(missing_ok=True)
                _sync_folder(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _retryable("delete", error) from error

    def purge_versions(self, key: str) -> None:
        """A replaced file is gone with its last reader."""

    def sweep(self, prefix: str) -> int:
        left = [key for key in self._files(prefix) if _name(key).startswith(_TEMPORARY)]
        return sum(_removed_if_left(self._root / key) for key in left)

    def _files(self, prefix: str, after: str = "", folder: str = "") -> Iterator[str]:
        """Every file whose path begins with `prefix` and comes after `after`, temporary ones too, in order; folders are
        read as they are come to. A folder counts as its name with the `/`, or `a-b` would come after `a/b`."""
        try:
            with os.scandir(self._root / folder) as found:
                names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in found)
        except (FileNotFoundError, NotADirectoryError):
            return  # a folder that is not there has no keys
        except OSError as error:
            raise _retryable("list", error) from error
        for name in names:
            key = folder + name
            if not name.endswith("/"):
                if key.startswith(prefix) and key > after:
                    yield key
            elif (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
                yield from self._files(prefix, after, key)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or any(part in {"", ".", ".."} or part.startswith(".") for part in parts):
            raise ValueError("a key is a path of plain names")
        return self._root.joinpath(*parts)

    def _sweep(self, folder: Path) -> None:
        """Removes what killed writers left in the folder; looked at once as long as writes go to the same folder."""
        if folder == self._swept:
            return
        self._swept = folder
        for path in islice(folder.glob(f"{_TEMPORARY}*"), SWEPT_AT_ONCE):
            _removed_if_left(path)

    @contextmanager
    def _written(self, path: Path, body: bytes) -> Iterator[Path]:
        """`body` on disk under a temporary name in the same folder; gone afterwards unless it was renamed."""
        written: Path | None = None
        try:
            _make_folder(path.parent)
            self._sweep(path.parent)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY)
            written = Path(name)
            with os.fdopen(handle, "wb") as out:
                out.write(body)
                out.flush()
                os.fsync(out.fileno())
            yield written
        except OSError as error:
            raise _retryable("write", error) from error
        finally:
            if written is not None:
                written.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it so that a power cut does not take them away again."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _removed_if_left(path: Path) -> bool:
    try:
        if path.stat().st_mtime >= time.time() - LEFT_OVER_AFTER_S:
            return False
        path.unlink()
    except FileNotFoundError:
        return False  # another writer's sweep, or its own end
    return True


def _name(key: str) -> str:
    return key.rpartition("/")[2]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _retryable(verb: str, error: OSError) -> RetryableError:
    return RetryableError(f"the object directory cannot {verb} ({os.strerror(error.errno or 0)})")
