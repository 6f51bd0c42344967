"""`replay dead-letters …`: the operator's view of replay.dead_letters."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from pipeline.errors import NotFoundError
from pipeline.settings import Settings
from pipeline.topics import dead_letters
from pipeline.topics.dead_letters import Letter

_WHERE = {"worker": "on the raw topic again", "warehouse": "in the warehouse", "objects": "in the object store"}

pass_settings = click.make_pass_decorator(Settings)


@click.group("dead-letters", short_help="List, show, retry or purge what failed.")
def dead_letters_group() -> None:
    """What could not be processed: list it, look at one, send it back, delete it.

    A letter is named by its offset in replay.dead_letters. It holds the bytes as they were sent, unredacted.
    """


@dead_letters_group.command("list")
@click.option("--reason", help="Only letters of this reason, such as bad_payload.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@pass_settings
def list_letters(settings: Settings, reason: str | None, as_json: bool) -> None:
    """Every letter, oldest first: offset, time, reason, where it stood, size."""
    for each in dead_letters.letters(settings, reason=reason):
        click.echo(json.dumps(_told(each)) if as_json else _line(each))


@dead_letters_group.command("show")
@click.argument("offset", type=click.IntRange(min=0))
@click.option(
    "--value", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write the raw bytes to this file."
)
@pass_settings
def show_letter(settings: Settings, offset: int, value: Path | None) -> None:
    """One letter whole, as JSON; its bytes only where --value names a file for them."""
    found = dead_letters.letter(settings, offset)
    if value is not None:
        value.write_bytes(found.letter.value)
    click.echo(json.dumps(_told(found), indent=2))


@dead_letters_group.command("retry")
@click.argument("offsets", nargs=-1, type=click.IntRange(min=0))
@click.option("--all", "everything", is_flag=True, help="Every letter.")
@click.option("--reason", help="Every letter of this reason.")
@pass_settings
def retry_letters(settings: Settings, offsets: tuple[int, ...], everything: bool, reason: str | None) -> None:
    """Put letters back: the worker's onto replay.batches, a sink's into its store. They stay here until they are purged;
    what had arrived is a repeat."""
    if (bool(offsets), everything, reason is not None).count(True) != 1:
        raise click.UsageError("name offsets, or --all, or --reason")
    chosen = [each for each in dead_letters.letters(settings, reason=reason) if not offsets or each.offset in offsets]
    missing = sorted(set(offsets) - {each.offset for each in chosen})
    if missing:
        raise NotFoundError(f"there is no dead letter at offset {', '.join(map(str, missing))}")
    from pipeline.sinks.retry import retry  # the stores' clients are slow to import

    for stage, count in retry(settings, chosen).items():
        click.echo(f"{count} letters are {_WHERE[stage]}")


@dead_letters_group.command("purge")
@click.option("--through", type=click.IntRange(min=0), help="Up to and with this offset.")
@click.option("--all", "everything", is_flag=True, help="Every letter there is now.")
@pass_settings
def purge_letters(settings: Settings, through: int | None, everything: bool) -> None:
    """Delete letters for good."""
    if (through is None) is not everything:
        raise click.UsageError("say --through OFFSET or --all")
    click.echo(f"the oldest letter kept has offset {dead_letters.purge(settings, through=through)} or above")


def _told(found: Letter) -> dict[str, Any]:
    """Everything but the bytes; the key names a session, so it is shown."""
    fields = msgspec.structs.asdict(found.letter)
    value, key = fields.pop("value"), fields.pop("key")
    return {
        "offset": found.offset,
        **fields,
        "key": key.decode(errors="replace") if key else None,
        "value_bytes": len(value),
    }


def _line(found: Letter) -> str:
    dead = found.letter
    at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(dead.source_at // 1000))
    where = f"{dead.source_topic} {dead.source_partition}@{dead.source_offset}"
    return f"{found.offset:>8}  {at}  {dead.stage:<9} {dead.reason:<15} {where:<28} {len(dead.value):>9} bytes  {dead.detail}"
