"""`replay verify` and `replay reindex`: what they found on stdout, how far they are on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click
import msgspec

from pipeline.errors import ReplayError
from pipeline.settings import Settings

PROGRESS_EVERY_S = 5.0

pass_settings = click.make_pass_decorator(Settings)


@click.command("verify", short_help="Check that objects and index are whole and agree.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a finding, and the tally as the last line.")
@click.option(
    "--settle",
    "settle_s",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Before what looked wrong is looked at again: a sink's flush may have been under way.",
)
@pass_settings
def verify_command(settings: Settings, as_json: bool, settle_s: float) -> None:
    """Check every replay object against its hashes, its manifest and the index, and the index against the objects.

    Reads every byte of the bucket once, in little memory; sinks may go on. Prints a line a finding: what is wrong, the
    object, the block's number in it, why.

    \b
    hole        a row of the index without its bytes
    corrupt     a block's bytes are not what its hash says
    erased      a row of the index for a block that was erased
    orphan      a block, or a whole object, that is not in the index: see `replay reindex`
    doubled     a block that is in the index more than once
    differs     the index says something else than the object itself
    unreadable  an object without its trailer: cut short, changed, or not ours
    manifest    missing, broken or different: see `replay reindex`; or its object is gone
    overlap     two objects claim the same source offsets (a dead letter that was retried into the objects does, too)
    unknown     a key that is neither an object's nor a manifest's

    Exit code: 0 all is well, 1 something was found, 2 it could not be carried out.
    """
    from pipeline.storage.blobs import open_store
    from pipeline.storage.clickhouse import ClickHouse
    from pipeline.upkeep.verify import Tally, Verification

    def told(tally: Tally, key: str) -> str:
        return f"{tally.objects:,} objects, {tally.blocks:,} blocks, {tally.bytes / 1e9:.2f} GB; at {key}"

    warehouse = ClickHouse(settings)
    try:
        verification = Verification(
            open_store(settings),
            warehouse,
            now_s=int(time.time()),
            settle_s=settle_s,
            progress=_every(PROGRESS_EVERY_S, told),
        )
        for finding in verification.run():
            if as_json:
                click.echo(msgspec.json.encode(finding))
            else:
                block = "" if finding.n is None else f"#{finding.n}"
                click.echo(f"{finding.kind:<10} {finding.object}{block}  {finding.why}".rstrip())
    except ReplayError as error:
        click.echo(f"replay: {error}", err=True)
        sys.exit(2)
    finally:
        warehouse.close()
    tally = verification.tally
    if as_json:
        click.echo(msgspec.json.encode(tally))
    else:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.findings.items())) or "all is well"
        click.echo(
            f"{tally.objects:,} objects with {tally.bytes:,} bytes, {tally.blocks:,} indexed blocks; "
            f"{tally.expired_objects:,} objects past their retention: {found}"
        )
    sys.exit(1 if tally.findings else 0)


@click.command("reindex", short_help="Rebuild the index of replay objects from the bucket.")
@click.option(
    "--alone", is_flag=True, help="No object sink and no other reindex runs: many objects an insert, far faster."
)
@click.option("--json", "as_json", is_flag=True, help="What was done as a JSON object.")
@pass_settings
def reindex_command(settings: Settings, alone: bool, as_json: bool) -> None:
    """Put what is missing into the table `blocks`, from the objects' manifests, or from an object's own trailer where its
    manifest is gone or broken; such a manifest is written anew.

    Safe to run again, and beside sinks. Takes nothing out of the index. Exit code: 0 all objects are indexed, 1 some could
    not be read (they are named), or a store was away.
    """
    from pipeline.storage.blobs import open_store
    from pipeline.storage.clickhouse import ClickHouse
    from pipeline.upkeep.reindex import Rebuilt, reindex

    def told(rebuilt: Rebuilt, key: str) -> str:
        return f"{rebuilt.objects:,} objects, {rebuilt.blocks_added:,} blocks added; at {key}"

    warehouse = ClickHouse(settings)
    try:
        rebuilt = reindex(
            open_store(settings),
            warehouse,
            now_s=int(time.time()),
            alone=alone,
            progress=_every(PROGRESS_EVERY_S, told),
        )
    finally:
        warehouse.close()
    if as_json:
        click.echo(msgspec.json.encode(rebuilt))
    else:
        click.echo(
            f"{rebuilt.objects:,} objects with {rebuilt.blocks:,} blocks: {rebuilt.blocks_added:,} blocks added to the index, "
            f"{rebuilt.manifests_added:,} manifests written, {rebuilt.manifests_mended:,} mended; "
            f"{rebuilt.expired_objects:,} objects past their retention"
        )
        for key in rebuilt.unreadable:
            click.echo(f"unreadable {key}")
    sys.exit(1 if rebuilt.unreadable else 0)


def _every(seconds: float, told: Callable[..., str]) -> Callable[..., None]:
    """Says how far it is, on stderr, now and then."""
    last = time.monotonic()

    def progress(*state: object) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            click.echo(told(*state), err=True)

    return progress
