"""Dead letters back to where they came from: the worker's onto the raw topic, a sink's into that sink's store.

A sink's letter does not go through the front: the worker has seen it, and the other store has it already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pipeline.errors import MalformedError, PoisonError
from pipeline.model.batches import CleanBatch
from pipeline.settings import Settings
from pipeline.sinks.objects import ObjectStore
from pipeline.sinks.warehouse import WarehouseStore
from pipeline.storage.blobs import open_store
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics import dead_letters
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.dead_letters import Letter
from pipeline.topics.registry import schema_ids


def retry(settings: Settings, chosen: Iterable[Letter]) -> Counter[str]:
    """How many of each stage went back. Letters stay until they are purged, and one that is retried twice is stored once.

    Raises MalformedError for one that still cannot be stored or must not be; those before it in its stage are done.
    """
    letters: dict[str, list[Letter]] = {}
    for each in chosen:
        letters.setdefault(each.letter.stage, []).append(each)
    done: Counter[str] = Counter()
    if workers := letters.pop("worker", []):
        done["worker"] = dead_letters.retry(settings, workers)
    decode = Codecs(catalogue(settings), schema_ids(settings)).clean.decode
    for stage, found in letters.items():
        with _store(settings, stage) as store:
            for each in found:
                try:
                    batch: CleanBatch = decode(each.letter.value)
                    _must_not_be_erased(settings, each, batch)
                    store.retry(batch)
                    if isinstance(store, ObjectStore):
                        _take_back_if_erased(settings, each, batch, store)
                except PoisonError as poison:
                    raise MalformedError(
                        f"the letter at offset {each.offset} still cannot be stored: {poison}"
                    ) from poison
                done[stage] += 1
    return done


@contextmanager
def _store(settings: Settings, stage: str) -> Iterator[WarehouseStore | ObjectStore]:
    if stage not in {"warehouse", "objects"}:
        raise MalformedError(f"no store is known for letters of stage {stage}")
    store = WarehouseStore(settings) if stage == "warehouse" else ObjectStore(settings, open_store(settings))
    try:
        yield store
    finally:
        store.end()


def _take_back_if_erased(settings: Settings, each: Letter, batch: CleanBatch, store: ObjectStore) -> None:
    """An erasure that came between the look and the write found nothing; one that comes after this look finds the index row."""
    try:
        _must_not_be_erased(settings, each, batch)
    except MalformedError:
        store.take_back(batch)
        raise


def _must_not_be_erased(settings: Settings, each: Letter, batch: CleanBatch) -> None:
    """The sinks see to that by the worker, which empties what comes late of an erased session; a letter was made before."""
    warehouse = ClickHouse(settings)
    try:
        erased = warehouse.value(
            "SELECT count() FROM {db}.erasures WHERE tenant = {tenant:String} AND session_id = {session:String} "
            "AND epoch = {epoch:UInt32} AND source_partition = {partition:UInt32} AND source_offset >= {offset:UInt64}",
            tenant=batch.tenant,
            session=batch.session_id,
            epoch=batch.epoch,
            partition=batch.source_partition,
            offset=batch.source_offset,
        )
    finally:
        warehouse.close()
    if erased:
        raise MalformedError(f"the session of the letter at offset {each.offset} was erased: purge the letter")
