"""The one table of settings: environment name, type, default, unit, help.

`replay settings`, every `--help` and the README's table are printed from here. A setting's environment name is
`REPLAY_` and the field's name in capitals. This module knows no other module's business: it parses and hands out.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigurationError

PREFIX = "REPLAY_"
SECRET_PLACEHOLDER = "(set)"


def _setting(default: Any, help: str, *, unit: str = "", secret: bool = False) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "unit": unit, "secret": secret})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process. Built once, at the edge, by `load`; handed down by argument."""

    # Where things are
    home: Path = _setting(Path(".replay"), "data, logs and keys of the embedded stack")
    cache: Path = _setting(
        Path("~/.cache/portable-replay"), "downloaded broker jars, shared by all homes; outside the tree"
    )
    maven_repository: str = _setting("", "a mirror to fetch the broker's jars from; empty: Maven Central")
    host: str = _setting("127.0.0.1", "address the HTTP servers bind to")
    capture_port: int = _setting(8000, "capture")
    api_port: int = _setting(8001, "API and pages")
    warehouse_port: int = _setting(8123, "embedded warehouse, ClickHouse's HTTP protocol")
    kafka_port: int = _setting(9092, "embedded broker; its controller takes a free port")

    # Kafka
    kafka_brokers: str = _setting("", "bootstrap servers; empty: the embedded broker on REPLAY_KAFKA_PORT")
    schema_registry_url: str = _setting("", "Confluent-compatible registry; empty: the pinned ids in schemas/ids.json")
    topic_prefix: str = _setting("replay.", "put before every topic's name")
    topic_partitions: int = _setting(4, "partitions of batches, clean, sessions and state; fixed at a topic's birth")
    topic_replication: int = _setting(1, "replication factor of every topic")
    epoch: int = _setting(
        1, "counts recreations of replay.batches and reprocessing runs; part of every event's identity"
    )
    batch_bytes_max: int = _setting(8 << 20, "largest record on replay.batches, before compression", unit="bytes")

    # Capture
    keys_file: Path | None = _setting(None, "JSON file of tenants and keys; empty: keys.json in REPLAY_HOME")
    body_bytes_max: int = _setting(25 << 20, "largest request body as sent", unit="bytes")
    decoded_bytes_max: int = _setting(100 << 20, "largest request body after decompression", unit="bytes")
    batch_events_max: int = _setting(10_000, "events in one batch of POST /v1/batches", unit="events")
    ack_timeout_ms: int = _setting(10_000, "how long capture waits for Kafka's ack before it answers 503", unit="ms")

    # Workers
    worker_group: str = _setting("replay-workers", "consumer group of the workers")
    mousemove_gap_ms: int = _setting(50, "least time between two kept mousemove events of a window", unit="ms")
    scroll_gap_ms: int = _setting(100, "least time between two kept scroll events of a window", unit="ms")
    throttle: str = _setting(
        "", "gaps in ms of other types: console=20,5=100,3.7=50 (rrweb by type, its increments by source); empty: none"
    )
    session_bytes_per_s: int = _setting(
        1_000_000,
        "a session that sends more for long loses what may be dropped, and is marked; 0: no limit",
        unit="bytes",
    )
    session_burst_bytes: int = _setting(
        64 << 20, "what a session may send at once before that limit holds; 0: no limit", unit="bytes"
    )
    session_gap_ms: int = _setting(1_800_000, "inactivity above this starts the session's next part", unit="ms")
    session_length_ms: int = _setting(86_400_000, "a part is at most this long", unit="ms")
    session_grace_ms: int = _setting(86_400_000, "how long a quiet session's state is held", unit="ms")
    session_memory_ms: int = _setting(
        2_592_000_000,
        "how long it is known that a session was there: one that comes back does not begin part 1 anew",
        unit="ms",
    )
    event_age_max_ms: int = _setting(
        604_800_000, "a live event older than this when its batch comes in is a dead letter", unit="ms"
    )
    event_ahead_max_ms: int = _setting(
        86_400_000, "a live event further than this in the future is a dead letter", unit="ms"
    )
    dead_letters_in_a_row_max: int = _setting(
        50,
        "more unusable records in a row pause the worker, or end a sink, instead of filling the dead letters; 0: no limit",
        unit="records",
    )
    dead_letters_percent_max: int = _setting(
        50, "a greater share of unreadable ones among the last 200 records pauses the worker; 0: no limit", unit="%"
    )
    redact_rules: Path | None = _setting(None, "YAML file of redaction rules; empty: the built-in ones")
    retention_class: str = _setting("30d", "retention class of what is recorded: <days>d or <years>y")
    retention_classes: str = _setting("", "classes of single tenants, acme=1y,rival=90d; all others have the one above")

    # Warehouse
    warehouse_url: str = _setting(
        "", "ClickHouse over HTTP, http(s)://user:password@host:port; empty: the embedded one", secret=True
    )
    warehouse_database: str = _setting("replay", "database of all tables")
    warehouse_cluster: str = _setting(
        "", "cluster of ClickHouse servers: Replicated and Distributed tables, sharded by session; empty: one server"
    )
    warehouse_flush_rows: int = _setting(100_000, "rows in one insert at most", unit="rows")
    warehouse_flush_bytes: int = _setting(64 << 20, "payload bytes in one insert at most", unit="bytes")
    warehouse_flush_age_ms: int = _setting(1_000, "age of the oldest waiting row at most", unit="ms")

    # Objects
    objects_url: str = _setting("", "s3://bucket/prefix or file:///folder; empty: objects/ in REPLAY_HOME")
    objects_endpoint: str = _setting("", "S3 endpoint other than AWS; credentials come from boto3's standard chain")
    objects_addressing: str = _setting(
        "", "path or virtual (bucket in the host name); empty: path where an endpoint is set, else boto3's choice"
    )
    objects_sse: str = _setting("", "server-side encryption of objects: AES256 or aws:kms; empty: the bucket's own")
    objects_kms_key: str = _setting("", "key id or ARN for aws:kms; empty: the account's default key")
    objects_conditional_put: int = _setting(
        1, "0: the store has no conditional PUT, and you see to it that only one sink ever writes a partition"
    )
    objects_flush_bytes: int = _setting(
        32 << 20, "payload bytes in one object at most, before compression", unit="bytes"
    )
    objects_flush_blocks: int = _setting(10_000, "blocks in one object at most", unit="blocks")
    objects_flush_age_ms: int = _setting(10_000, "age of the oldest waiting block at most", unit="ms")

    # Both sinks, the logs
    sink_group: str = _setting("replay-sink", "consumer group of the sinks, followed by -warehouse or -objects")
    log_level: str = _setting("info", "debug, info, warning or error")

    @property
    def kafka(self) -> str:
        return self.kafka_brokers or f"127.0.0.1:{self.kafka_port}"

    @property
    def warehouse(self) -> str:
        return self.warehouse_url or f"http://default@127.0.0.1:{self.warehouse_port}"

    @property
    def objects(self) -> str:
        return self.objects_url or (self.home.absolute() / "objects").as_uri()

    @property
    def keys(self) -> Path:
        return self.keys_file or self.home / "keys.json"

    @property
    def clean_bytes_max(self) -> int:
        """Clean's limit is twice raw's: redaction can lengthen."""
        return 2 * self.batch_bytes_max


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads `REPLAY_…`. Raises ConfigurationError for an unknown name or a value that does not parse."""
    fields = {PREFIX + f.name.upper(): f for f in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        field = fields.get(name)
        if field is None:
            raise ConfigurationError(f"{name} is not a setting; `replay settings` prints those that are")
        try:
            values[field.name] = _parse(str(field.type), text)
        except ValueError:
            raise ConfigurationError(f"{name} must be {_article(str(field.type))}") from None
    for name in ("home", "cache", "keys_file", "redact_rules"):
        if values.get(name) is not None:
            values[name] = values[name].expanduser()
    values.setdefault("cache", Settings.cache.expanduser())
    return Settings(**values)


def to_environ(settings: Settings) -> dict[str, str]:
    """The inverse of `load`: what a child process must be given to see the same settings. Paths are absolute."""
    found = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if (value != field.default or isinstance(value, Path)) and value is not None:
            found[PREFIX + field.name.upper()] = str(value.absolute() if isinstance(value, Path) else value)
    return found


@dataclass(frozen=True)
class SettingRow:
    name: str
    value: str
    default: str
    unit: str
    help: str


def table(settings: Settings) -> list[SettingRow]:
    """One row a setting, in the order of the class; a secret's value is never in it."""
    rows = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        shown = SECRET_PLACEHOLDER if field.metadata["secret"] and value else _show(value)
        rows.append(
            SettingRow(
                PREFIX + field.name.upper(), shown, _show(field.default), field.metadata["unit"], field.metadata["help"]
            )
        )
    return rows


def _show(value: Any) -> str:
    return "" if value is None else str(value)


def _parse(type_name: str, text: str) -> Any:
    if type_name == "int":
        return int(text)
    if type_name.startswith("Path"):
        return Path(text) if text else None
    return text


def _article(type_name: str) -> str:
    return {"int": "a whole number", "str": "a text"}.get(type_name, "a path")
