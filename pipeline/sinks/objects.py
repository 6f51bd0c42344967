"""replay.clean → replay objects, and their index in ClickHouse. Order of a flush: bytes, manifest, index rows, offset.

The object's key holds only the *first* source offset it claims, so that of two sinks with different ideas of a range one
wins the conditional PUT and the other adopts the winner's range, which the object itself carries. Each retention class has
its own objects; a commit happens only where all classes meet, else a crash would forget how far each class had come.
"""

from __future__ import annotations

import structlog

from pipeline.errors import FatalError, PoisonError, RetryableError
from pipeline.model.batches import CleanBatch
from pipeline.model.blocks import Manifest
from pipeline.settings import Settings
from pipeline.sinks.consume import CleanReader
from pipeline.sinks.delivery import NOTHING_DONE, Done, FlushLimits, NeedMore, Taken
from pipeline.sinks.lives import TopicLives
from pipeline.storage.blobs import BlobStore, MissingBlobError, open_store, require_conditional_put
from pipeline.storage.blocks import Place, encode_manifest, manifest_key, object_key, pack, read_manifest
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.index import BlockIndex
from pipeline.topics.catalogue import catalogue
from pipeline.topics.commits import Committed

log = structlog.get_logger()


class ObjectStore:
    """See `pipeline.sinks.consume.Store`."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._topic = catalogue(settings).batches.name
        self._epoch = settings.epoch
        self._blobs = blobs
        self._warehouse = ClickHouse(settings)
        self._index = BlockIndex(self._warehouse)
        self._probed = False

    def open(self, partition: int, committed: Committed | None) -> int:
        """The first one tries the store. Raises ConfigurationError where it has no conditional PUT."""
        if not self._probed:
            require_conditional_put(self._blobs)
            self._probed = True
        return committed.mark if committed else NOTHING_DONE

    def flush(self, partition: int, mark: int, batches: list[Taken]) -> Done | NeedMore:
        """Writes one object a class (more where ranges of before are adopted) until all classes have reached the goal."""
        place = Place(self._topic, self._epoch, partition)
        goal = batches[-1].batch.source_last_offset
        full = [each.batch for each in batches if each.batch.event_count]
        for retention in sorted({batch.retention for batch in full}):
            reached = mark
            while mine := [batch for batch in full if batch.retention == retention and batch.source_offset > reached]:
                packed = pack(place, retention, goal, mine)
                manifest = packed.manifest
                if not self._blobs.put_if_absent(manifest.object, packed.body):
                    manifest = self._adopt(manifest.object)
                self._finish(manifest)
                if manifest.last < mine[0].source_offset:
                    raise FatalError(f"object {manifest.object} says that it ends before it begins")
                reached = manifest.last
                if reached > goal:
                    return NeedMore(reached)
        return Done(goal)

    def retry(self, batch: CleanBatch) -> None:
        """Stores a batch that was a dead letter, in an object of its own: no other begins with its offset. Raises
        PoisonError where it is one still."""
        place = Place(self._topic, batch.epoch, batch.source_partition)
        packed = pack(place, batch.retention, batch.source_offset, [batch])
        manifest = packed.manifest
        if not self._blobs.put_if_absent(manifest.object, packed.body):
            manifest = self._adopt(manifest.object)
        self._finish(manifest)

    def take_back(self, batch: CleanBatch) -> None:
        """Undoes `retry` of a batch whose session was erased meanwhile: its index row was refused."""
        place = Place(self._topic, batch.epoch, batch.source_partition)
        key = object_key(place, batch.retention, batch.source_offset, batch.source_at)
        for each in (key, manifest_key(key)):
            self._blobs.delete(each)

    def close(self, partition: int) -> None:
        """Nothing is kept between flushes."""

    def end(self) -> None:
        self._index.close()
        self._warehouse.close()

    def _adopt(self, key: str) -> Manifest:
        try:
            body, _ = self._blobs.get(key)
        except MissingBlobError:
            raise RetryableError(f"object {key} was there and is gone again") from None
        try:
            manifest = read_manifest(body)
        except PoisonError as poison:
            raise FatalError(
                f"object {key} cannot be read ({poison}): put the right bytes back, or delete it to have it written anew"
            ) from poison
        if manifest.object != key:
            raise FatalError(f"object {key} says it is another one: {manifest.object}")
        log.info("object_adopted", object=key, first=manifest.first, last=manifest.last)
        return manifest

    def _finish(self, manifest: Manifest) -> None:
        """Winner or loser: whoever comes completes manifest and index."""
        self._blobs.put_if_absent(manifest_key(manifest.object), encode_manifest(manifest))
        self._index.insert(manifest)


def run(settings: Settings) -> None:
    """`replay sink objects`: until SIGTERM."""
    store = ObjectStore(settings, open_store(settings))
    limits = FlushLimits(
        blocks=settings.objects_flush_blocks,
        payload_bytes=settings.objects_flush_bytes,
        age_ms=settings.objects_flush_age_ms,
    )
    lives = TopicLives(settings)
    try:
        CleanReader(settings, name="objects", store=store, limits=limits, same_topics=lives.check).run()
    finally:
        lives.end()
        store.end()
