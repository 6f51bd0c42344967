"""`replay redact` and `replay rules check`: what the rules would do, told by kinds and paths, never by values."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from pipeline.errors import MalformedError
from pipeline.model.events import SessionRecording
from pipeline.workers.redact.events import Redactor
from pipeline.workers.redact.rulefile import load
from pipeline.workers.redact.rules import Redaction, RuleBook
from pipeline.workers.redact.text import redact_text
from pipeline.workers.redact.typed import Typed

_FILE = click.Path(path_type=Path, dir_okay=False)


def _book(path: Path | None) -> RuleBook:
    return load(path, lambda: b"a key to look with") if path else RuleBook()


@click.command("redact", short_help="Redact a recording, or explain what would be.")
@click.option("--rules", "path", type=_FILE, help="A rule file; without it the built-in rules.")
@click.option("--tenant", default="default", show_default=True, help="Whose rules.")
@click.option(
    "--explain", is_flag=True, help="Kinds and JSON paths of what would be changed, instead of the recording."
)
def redact(path: Path | None, tenant: str, explain: bool) -> None:
    """A recording on stdin as it would leave the workers, on stdout."""
    rules = _book(path).of(tenant)
    try:
        recording = msgspec.json.decode(sys.stdin.buffer.read(), type=SessionRecording)
        counts: Counter[str] = Counter()
        left = Redactor(rules, Typed(), counts).clean(recording.events)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedError(f"stdin is no recording that can be read ({type(error).__name__})") from None
    if not explain:
        click.echo(msgspec.json.encode(msgspec.structs.replace(recording, events=left)).decode())
        return
    for index, (before, after) in enumerate(zip(recording.events, left, strict=True)):
        was, now = (msgspec.json.decode(each.data) for each in (before, after))
        for where, kinds in _changes(was, now, f"$.events[{index}].data", rules):
            click.echo(f"{where}\t{kinds}")
    for name, count in sorted(counts.items()):
        click.echo(f"{name}\t{count}", err=True)


def _changes(was: Any, now: Any, path: str, rules: Redaction) -> Iterator[tuple[str, str]]:
    """(path with keys as they leave, kinds) of each changed leaf."""
    if isinstance(was, dict) and isinstance(now, dict) and len(was) == len(now):
        for old, new in zip(was, now, strict=True):
            yield from _changes(was[old], now[new], f"{path}.{new}", rules)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (old, new) in enumerate(zip(was, now, strict=True)):
            yield from _changes(old, new, f"{path}[{index}]", rules)
    elif was != now:
        kinds: Counter[str] = Counter()
        if isinstance(was, str):
            redact_text(was, rules, kinds)
        yield path, ", ".join(sorted(kinds)) or "by its key or field"


@click.group("rules", short_help="Check a file of redaction rules.")
def rules_group() -> None:
    """Rule files of redaction."""


@rules_group.command("check")
@click.argument("path", type=_FILE)
def check(path: Path) -> None:
    """Compiles a rule file; exit code 1, with the line, where it does not."""
    book = _book(path)
    click.echo(f"{path}: {len(book.common.detectors)} detectors, {len(book.tenants)} tenants with rules of their own")
