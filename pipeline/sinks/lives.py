"""The topics that an epoch's marks belong to, noted at its first start and compared ever after.

Marks, claims and object keys count source offsets. A topic that was made anew counts from 0 again: what it holds would be
skipped as done, or stored beside what has its coordinates already. So it is refused, by both sinks, until a new epoch is set.
"""

from __future__ import annotations

from pipeline.errors import FatalError
from pipeline.settings import Settings
from pipeline.storage.clickhouse import ClickHouse
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.identity import TopicIdentity, identities


class TopicLives:
    """The raw and the clean topic of this epoch, by the table `topics`."""

    def __init__(self, settings: Settings) -> None:
        topics = catalogue(settings)
        self._epoch = settings.epoch
        self._names = (topics.batches.name, topics.clean.name)
        self._warehouse = ClickHouse(settings)
        self._admin = clients.admin(settings)

    def end(self) -> None:
        self._warehouse.close()

    def check(self) -> None:
        """Notes the topics where the epoch knows none yet. Raises FatalError where one is not the epoch's, RetryableError
        where broker or warehouse is away."""
        for now in identities(self._admin, self._names):
            known = self._known(now.name)
            if not known:
                self._note(now)
                known = self._known(now.name)  # another sink may have been faster, on another cluster even
            if known != {now}:
                raise FatalError(
                    f"{now.name} is not the topic that epoch {self._epoch} began with: it was made anew, or REPLAY_KAFKA_BROKERS "
                    "names another cluster. Its offsets mean other records now. Name the old cluster, or give workers and "
                    f"sinks REPLAY_EPOCH={self._epoch + 1}"
                )

    def _known(self, name: str) -> set[TopicIdentity]:
        found = self._warehouse.rows(
            "SELECT name, topic_id, cluster_id FROM {db}.topics WHERE epoch = {epoch:UInt32} AND name = {name:String}",
            epoch=self._epoch,
            name=name,
        )
        return {TopicIdentity(*row) for row in found}

    def _note(self, now: TopicIdentity) -> None:
        self._warehouse.command(
            "INSERT INTO {db}.topics (epoch, name, topic_id, cluster_id) "
            "SELECT {epoch:UInt32}, {name:String}, {topic_id:String}, {cluster_id:String} "
            "WHERE NOT EXISTS (SELECT 1 FROM {db}.topics WHERE epoch = {epoch:UInt32} AND name = {name:String})",
            epoch=self._epoch,
            name=now.name,
            topic_id=now.topic_id,
            cluster_id=now.cluster_id,
        )
