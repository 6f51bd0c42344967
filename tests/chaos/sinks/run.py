"""Carries one round out: everything is on the topics from early on, sinks run as processes of their own and are struck; in the
end all that was struck lives again, everything must arrive, and the stores must hold what was drawn."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired

from confluent_kafka import Producer

from pipeline.errors import RetryableError
from pipeline.local import process
from pipeline.local.parts import child_environ
from pipeline.model.batches import session_key
from pipeline.settings import Settings
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.migrate import migrate
from pipeline.topics import clients
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs
from pipeline.topics.registry import schema_ids
from tests import s3, services
from tests.chaos.sinks import account, draw, log
from tests.chaos.sinks.wire import Member, Sink, StruckWire
from tests.services import Service
from tests.support import eventually

START_LIMIT_S = 60.0
ROUND_LIMIT_S = 90.0
STOP_LIMIT_S = 15.0
LATE_LIMIT_S = 10.0
LOOK_EVERY_S = 0.05
ASK_EVERY_S = 0.5
"""The stores, whether all has arrived: each question costs them time."""
PORTIONS = 5
PORTION_S = 0.4
"""The topics grow while the sinks work: flushes come by age as well as by size."""
LIVES_MAX = 40
BUCKET = "replays"
SINKS: tuple[Sink, ...] = ("warehouse", "objects")
TABLES = ("events", "blocks", "claims", "sessions", "session_users", "minutes")


@dataclass(frozen=True)
class World:
    """What rounds share: a broker that lives, and stores that each round may kill."""

    broker: Settings
    engine: Settings
    warehouse: Service
    s3: s3.Server
    objects: Service

    @property
    def stores(self) -> tuple[Service, Service]:
        return self.warehouse, self.objects


@contextmanager
def world(folder: Path, broker: Settings) -> Iterator[World]:
    engine, warehouse = services.warehouse(folder / "engine")
    server, objects = services.s3_server(folder / "s3")
    with warehouse.running(), objects.running():
        server.make_bucket(BUCKET)
        yield World(broker, engine, warehouse, server, objects)


class Running:
    """One round under way."""

    def __init__(self, world: World, planned: draw.Round, folder: Path) -> None:
        self._world, self._planned, self._folder = world, planned, folder
        self._rng = random.Random(f"run {planned.seed}")
        self.settings = _settings(world, planned, folder)
        self._log = log.draw(planned.seed, planned.partitions)
        self._portions = 0
        self._members: list[Member] = []
        self.lives: Counter[str] = Counter()
        self._to_forget = False
        self._warehouse = ClickHouse(self.settings)
        ports = {"rows": world.engine.warehouse_port, "index": world.engine.warehouse_port, "objects": world.s3.port}
        self._wires = {
            name: StruckWire(
                ports[name],
                world.objects if name == "objects" else world.warehouse,
                [strike for strike in planned.strikes if strike.wire == name],
                own_host=name == "objects",
            )
            for name in draw.WIRES
        }

    def run(self) -> None:
        """Raises AssertionError where the stores do not hold what was drawn, or not in time."""
        try:
            self._play()
            self._stop()
            account.must_be_exact(self.settings, self._log)
        finally:
            self._end()

    def _play(self) -> None:
        migrate(self.settings)
        clients.apply(clients.admin(self.settings), catalogue(self.settings))
        producer = clients.producer(self.settings, client_id="test")
        for sink in SINKS:
            self._start(sink)
        for member in self._members:
            eventually(lambda: member.is_ready, within_s=START_LIMIT_S, why=f"{member.sink} starts")  # noqa: B023
        for wire in self._wires.values():
            wire.arm()
        began = asked_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now - asked_at >= ASK_EVERY_S:
                asked_at = now
                if self._over():
                    return
            assert now - began < ROUND_LIMIT_S, f"not within {ROUND_LIMIT_S:.0f} s: {self._lacks()}"
            if self._portions < PORTIONS and now - began >= self._portions * PORTION_S:
                self._write(producer)
            self._revive()
            time.sleep(LOOK_EVERY_S)

    def _over(self) -> bool:
        return (
            self._portions == PORTIONS
            and not any(wire.waiting for wire in self._wires.values())
            and not any(member.sleeps for member in self._members)
            and not self._lacks()
        )

    def _lacks(self) -> str:
        """What is not there yet; empty when all is."""
        left = [str(strike) for wire in self._wires.values() for strike in wire.waiting]
        if left or self._portions < PORTIONS:
            return f"strikes that wait: {left}"
        try:
            return account.lacks(self._warehouse, self._log)
        except RetryableError as error:
            return str(error)

    def _write(self, producer: Producer) -> None:
        """The next portion of every partition's records."""
        topics = catalogue(self.settings)
        codecs = Codecs(topics, schema_ids(self.settings))
        for number, each in enumerate(self._log):
            for batch in _portion(each.written, self._portions):
                key = session_key(batch.tenant, batch.session_id)
                producer.produce(topics.clean.name, codecs.clean.encode(batch), key, number)
            for update in _portion(each.updates, self._portions):
                key = session_key(update.tenant, update.session_id)
                value = codecs.sessions.encode(update)
                producer.produce(topics.sessions.name, value, key, number)
        assert producer.flush(30) == 0
        self._portions += 1

    # processes

    def _start(self, sink: Sink) -> None:
        """A new life of a sink: each with limits of its own, so that no two cut the same ranges."""
        self.lives[sink] += 1
        assert self.lives[sink] < LIVES_MAX, f"{sink} ends again and again"
        member = Member(sink)
        wire = self._wires["rows" if sink == "warehouse" else "index"].opened(member)
        its = dataclasses.replace(
            self.settings,
            warehouse_url=wire.url.replace("//", "//default@"),
            objects_endpoint=self._wires["objects"].opened(member).url,
            warehouse_flush_rows=self._rng.randint(30, 80),
            warehouse_flush_age_ms=self._rng.randint(50, 400),
            objects_flush_blocks=self._rng.randint(8, 24),
            objects_flush_age_ms=self._rng.randint(50, 400),
        )
        command = [sys.executable, "-m", "tests.chaos.sinks.member", "sink", sink]
        environ = {**child_environ(its), **self._world.s3.environ, "NOTIFY_SOCKET": member.ready.address}
        member.popen = process.start(command, environ, self._folder / f"sink-{sink}.log")
        self._members.append(member)

    def _revive(self) -> None:
        """What a supervisor does; and who sleeps wakes when its time is over and another has taken over."""
        for store in self._world.stores:
            if not store.runs:
                store.launch()
                self._to_forget = True
        self._forget_tokens()
        for member in list(self._members):
            assert member.popen is not None
            if member.popen.poll() is not None:
                self._members.remove(member)
                member.ready.close()
                self._to_forget |= all(end.idle for end in member.proxies)
                if not self._others(member):
                    self._start(member.sink)
            elif member.sleeps:
                others = self._others(member)
                if not others:
                    self._start(member.sink)
                elif time.monotonic() > member.sleeps + member.for_s and (others[0].is_ready or self._slept_in(member)):
                    member.wake()

    def _others(self, member: Member) -> list[Member]:
        return [each for each in self._members if each.sink == member.sink and each is not member]

    @staticmethod
    def _slept_in(member: Member) -> bool:
        return member.sleeps is not None and time.monotonic() > member.sleeps + 10

    def _forget_tokens(self) -> None:
        """As if so many blocks had gone in meanwhile, after somebody died, that the dedup window knows nothing of before: no
        sink relies on it alone."""
        if not self._to_forget:
            return
        with contextlib.suppress(RetryableError):
            for table in TABLES:
                for window in (0, 20_000):
                    self._warehouse.command(
                        f"ALTER TABLE {{db}}.{table} MODIFY SETTING non_replicated_deduplication_window = {window}"
                    )
            self._to_forget = False

    def _stop(self) -> None:
        """All end as they are told; late requests come in before the account."""
        for member in self._members:
            member.send(signal.SIGTERM)
        for member in self._members:
            assert member.popen is not None
            try:
                member.popen.wait(STOP_LIMIT_S)
            except TimeoutExpired:
                raise AssertionError(f"a sink told to stop did not within {STOP_LIMIT_S:.0f} s") from None
        until = time.monotonic() + LATE_LIMIT_S
        while not all(wire.idle for wire in self._wires.values()):
            assert time.monotonic() < until, "a request is under way for ever"
            time.sleep(LOOK_EVERY_S)
        for store in self._world.stores:
            store.ensure()

    def _end(self) -> None:
        """Nothing of the round is left but its folder."""
        for member in self._members:
            assert member.popen is not None
            member.popen.kill()
            member.popen.wait()
            member.ready.close()
        for wire in self._wires.values():
            wire.close()
        for store in self._world.stores:
            store.ensure()
        self._warehouse.command("DROP DATABASE {db}")
        self._warehouse.close()
        admin = clients.admin(self.settings)
        for future in admin.delete_topics([topic.name for topic in catalogue(self.settings)]).values():
            future.result()


def run(world: World, seed: int, folder: Path) -> str:
    """Plays the round of this seed and tells of it in one line; `folder` gets what it leaves."""
    planned = draw.draw(seed)
    folder.mkdir(parents=True)
    (folder / "round.txt").write_text("\n".join([str(planned), *map(str, planned.strikes)]) + "\n")
    began = time.monotonic()
    with _in_environ(world.s3.environ):
        running = Running(world, planned, folder)
        running.run()
    strikes = "; ".join(f"{strike.wire} {strike.blow}" for strike in planned.strikes)
    where = "S3" if planned.in_s3 else "a directory"
    return (
        f"SEED={seed}: {planned.partitions} partition(s), objects in {where}, {time.monotonic() - began:.1f} s, "
        f"lives {dict(running.lives)}: {strikes}"
    )


def _settings(world: World, planned: draw.Round, folder: Path) -> Settings:
    word = f"r{planned.seed}-{secrets.token_hex(3)}"
    url = f"s3://{BUCKET}/{word}" if planned.in_s3 else (folder / "objects").absolute().as_uri()
    return dataclasses.replace(
        world.broker,
        home=folder,
        topic_prefix=f"{word}.",
        topic_partitions=planned.partitions,
        sink_group=word,
        epoch=log.EPOCH,
        warehouse_port=world.engine.warehouse_port,
        warehouse_database=word.replace("-", "_"),
        objects_url=url,
        objects_endpoint=world.s3.endpoint,
        log_level="debug",
    )


def _portion(records: tuple, n: int) -> tuple:
    size = -(-len(records) // PORTIONS)
    return records[n * size : (n + 1) * size]


@contextmanager
def _in_environ(given: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
