"""`replay retain`: what may no longer be kept goes."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from urllib.parse import urlsplit

import click

from pipeline.model.retention import parse_classes
from pipeline.observe import logs
from pipeline.settings import Settings
from pipeline.storage.blobs import open_store
from pipeline.storage.clickhouse import ClickHouse
from pipeline.storage.pins import Pins
from pipeline.storage.retain import classes, expired, lifecycle, retain


@click.command("retain", short_help="Remove replay objects whose retention is over.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--lifecycle", "as_rules", is_flag=True, help="Print lifecycle rules for the bucket instead, as JSON.")
@click.pass_obj
def retain_command(settings: Settings, dry_run: bool, as_rules: bool) -> None:
    """Remove replay objects whose retention is over, for stores without a lifecycle: once a day will do.

    Rows of the warehouse go by their TTL. Pinned sessions stay, and what came of them since they were pinned is pinned too.
    """
    logs.configure(settings.log_level, part="retain")
    store = open_store(settings)
    if as_rules:
        url = urlsplit(settings.objects)
        folder = url.path.strip("/") if url.scheme == "s3" else ""
        click.echo(
            json.dumps(
                lifecycle(
                    {settings.retention_class, *parse_classes(settings.retention_classes).values(), *classes(store)},
                    folder,
                ),
                indent=2,
            )
        )
        return
    now_s = int(time.time())
    warehouse = ClickHouse(settings)
    objects: dict[str, int] = defaultdict(int)
    size: dict[str, int] = defaultdict(int)
    try:
        if not dry_run:
            Pins(warehouse, store).complete()
        for each in expired(store, now_s) if dry_run else retain(store, warehouse, now_s):
            objects[each.retention] += 1
            size[each.retention] += each.size
            click.echo(f"{each.key}\t{each.size}")
    finally:
        warehouse.close()
        verb = "would go" if dry_run else "gone"
        for name in sorted(objects):
            click.echo(f"{name}: {objects[name]:,} objects, {size[name]:,} bytes {verb}", err=True)
    if not objects:
        click.echo("nothing to remove", err=True)
