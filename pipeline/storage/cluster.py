"""The migrations' statements as a cluster of servers needs them. Pure: text in, texts out.

What belongs to sessions is sharded: a table `<name>_local` on every server, and over it a Distributed one that has the plain
name, so that queries and inserts say the same in both forms. The sinks' books (claims, erasures, topics and the like) lie
whole on every server: a guard must see all of them, and they are small.
"""

from __future__ import annotations

import re

from pipeline.errors import ConfigurationError

_SESSION = "cityHash64(tenant, session_id)"
#: Sharding keys. Rows that replace each other must meet on one server; any other table is a book.
SHARDED = {
    "events": _SESSION,
    "sessions": _SESSION,
    "session_users": _SESSION,
    "blocks": _SESSION,
    "minutes": "cityHash64(tenant)",
}

#: What the sinks rely on, said with every statement: an answered insert is in, on most replicas, and later reads see it.
SETTINGS = {
    "distributed_foreground_insert": 1,
    "insert_quorum": "auto",
    "insert_quorum_parallel": 0,
    "select_sequential_consistency": 1,
    "alter_sync": 2,
    "mutations_sync": 2,
}

_CLUSTER = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_CREATE_DATABASE = re.compile(r"CREATE DATABASE IF NOT EXISTS (\S+)")
_CREATE_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS (\S+?)\.(\w+)(?=\s)")
_ALTER = re.compile(r"ALTER TABLE (\S+?)\.(\w+)(?=\s)")
_COLUMN = re.compile(r"\b(?:ADD|DROP|MODIFY|RENAME) COLUMN\b")
_ENGINE = re.compile(r"ENGINE = (\w*MergeTree)(?:\(([^)]*)\))?")
_COMMENT = re.compile(r"^[ \t]*--.*\n?", re.M)
_WINDOW = "non_replicated_deduplication_window = 20000"
_REPLICATED_WINDOW = "replicated_deduplication_window = 20000, replicated_deduplication_window_seconds = 604800"


def render(statement: str, database: str, cluster: str) -> list[str]:
    """One statement of the single-server form → those of the cluster's, in order; itself where `cluster` is empty.

    Raises ConfigurationError for a name that can be no cluster's, and for a statement that has no cluster form.
    """
    if not cluster:
        return [statement]
    if not _CLUSTER.fullmatch(cluster):
        raise ConfigurationError("REPLAY_WAREHOUSE_CLUSTER must be the name of a cluster: letters, digits, _ . and -")
    statement = _COMMENT.sub("", statement).strip()
    on = f"ON CLUSTER `{cluster}`"
    if _CREATE_DATABASE.match(statement):
        return [_CREATE_DATABASE.sub(rf"CREATE DATABASE IF NOT EXISTS \1 {on}", statement)]
    if found := _ALTER.match(statement):
        above = [found[2]] if _COLUMN.search(statement) else []  # a Distributed table has columns, and nothing else
        names = [f"{found[2]}_local", *above] if found[2] in SHARDED else [found[2]]
        return [f"ALTER TABLE {found[1]}.{name} {on}{statement[found.end() :]}" for name in names]
    found, engine = _CREATE_TABLE.match(statement), _ENGINE.search(statement)
    if not found or not engine:
        raise ConfigurationError(f"this statement has no cluster form: {statement.splitlines()[0]}")
    name = found[2]
    stored = f"{name}_local" if name in SHARDED else name
    shard, replica = ("/{shard}", "{replica}") if name in SHARDED else ("", "{shard}-{replica}")
    arguments = f"'/clickhouse/tables/{database}/{stored}{shard}', '{replica}'"
    replicated = f"ENGINE = Replicated{engine[1]}({', '.join(each for each in (arguments, engine[2]) if each)})"
    made = [
        f"CREATE TABLE IF NOT EXISTS {found[1]}.{stored} {on}"
        + statement[found.end() : engine.start()]
        + replicated
        + statement[engine.end() :].replace(_WINDOW, _REPLICATED_WINDOW)
    ]
    if name in SHARDED:
        made.append(
            f"CREATE TABLE IF NOT EXISTS {found[1]}.{name} {on} AS {found[1]}.{stored} "
            f"ENGINE = Distributed('{cluster}', '{database}', '{stored}', {SHARDED[name]})"
        )
    return made
