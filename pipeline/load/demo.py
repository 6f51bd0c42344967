"""`replay demo`: the main job end to end on bundled real recordings, followed to the event, checked, and shown.

Everything is real: broker, workers, engine, objects. Ids are new and times are rebased each run, so it can run again and
again on the same home. It exits non-zero when anything is missing, twice, or not where it should be.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.errors import ReplayError
from pipeline.keys import KeyFile
from pipeline.load import traffic
from pipeline.load.arrivals import (
    CleanSums,
    FreshnessWatch,
    Lines,
    Rows,
    Warehouse,
    clean_sums,
    freshness_ms,
    object_lines,
    quantile,
    session_updates,
)
from pipeline.load.recordings import Bundled, bundled
from pipeline.load.senders import Sender, Sent
from pipeline.load.traffic import Expected
from pipeline.local.stack import Stack
from pipeline.settings import Settings

Found = TypeVar("Found")

COPIES = 3
ARRIVAL_LIMIT_S = 120.0
LOOK_EVERY_S = 0.3
TYPED_SECRET = "CANARY-PW-"  # how every password that was typed in the recordings begins


@dataclass(frozen=True)
class Arrived:
    """All that was found of a run, at every stage."""

    sent: Sent
    expected: Expected
    clean: CleanSums
    parts: int
    rows: Rows
    lines: Lines
    fresh_ms: list[int]


@dataclass(frozen=True)
class Check:
    """One statement about the run that holds or does not."""

    says: str
    holds: bool


def checks(run: Arrived) -> list[Check]:
    """Every statement that must hold; pure. Expectations come from what was sent, not from the workers."""
    clean, rows, lines, sent = run.clean, run.rows, run.lines, run.expected
    accounted = clean.stored + clean.throttled + clean.repeated + clean.erased + clean.dead_lettered
    never_throttled = {kind: n for kind, n in sent.by_type.items() if kind not in traffic.THROTTLED_TYPES}
    rows_whole = {kind: n for kind, n in rows.by_type.items() if kind not in traffic.THROTTLED_TYPES}
    return [
        Check(f"accepted {run.sent.events:,} events = sent {sent.sent:,}", run.sent.events == sent.sent),
        Check(f"every accepted event reached the workers ({clean.received:,})", clean.received == sent.sent),
        Check(
            f"in {sent.sent:,} = stored {clean.stored:,} + throttled {clean.throttled:,} + repeated {clean.repeated:,} "
            f"+ erased {clean.erased:,} + dead-lettered {clean.dead_lettered:,}",
            accounted == sent.sent,
        ),
        Check(
            f"repeats: {clean.repeated:,} of {sent.repeated:,} that were sent twice", clean.repeated == sent.repeated
        ),
        Check(
            f"dead letters: {clean.dead_lettered:,} of {sent.dead_lettered:,}",
            clean.dead_lettered == sent.dead_lettered,
        ),
        Check(f"rows in ClickHouse: {rows.events:,}, none missing", rows.events == clean.stored),
        Check("no row twice", rows.events == rows.distinct),
        Check("what is never throttled arrived whole, type by type", rows_whole == never_throttled),
        Check(f"lines in replay objects: {lines.events:,}, none missing", lines.events == clean.stored),
        Check("rows and lines agree, type by type", dict(lines.by_type) == rows.by_type),
        Check(f"the index accounts for every line ({rows.blocks:,} blocks)", rows.block_events == lines.events),
        Check(f"session parts: {rows.sessions:,} of {run.parts:,}", rows.sessions == run.parts),
        Check("no password that was typed is in an input or a form", lines.found_secrets == 0),
    ]


def demo(settings: Settings) -> bool:
    """Runs it on this home, printing as it goes. True where every check holds."""
    console = Console()
    run_id = f"demo-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    bundle = bundled()
    events = sum(len(each.recording.events) for each in bundle)
    console.print(
        f"[bold]portable-replay demo[/bold] {len(bundle)} recordings × {COPIES}, {events * COPIES:,} events, run {run_id}",
        soft_wrap=True,
    )
    console.print("starting the embedded stack: Kafka, warehouse, worker, sinks, capture, API …", soft_wrap=True)
    started = time.monotonic()
    with Stack(settings) as stack:
        console.print(f"ready in {time.monotonic() - started:.1f} s", soft_wrap=True)
        run = _drive(stack.settings, bundle, run_id, console)
    _show(console, run, settings, run_id)
    return all(check.holds for check in checks(run))


def _drive(settings: Settings, bundle: list[Bundled], run_id: str, console: Console) -> Arrived:
    plan = traffic.plan(bundle, run_id=run_id, now_ms=time.time_ns() // 1_000_000, copies=COPIES)
    expected = traffic.expected(plan)
    keys = KeyFile(settings.keys).first()
    watch = FreshnessWatch(settings, run_id)
    watch.start()
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} events"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        sending = progress.add_task("sent and acked", total=expected.sent)
        sender = Sender(settings, tenant=keys.tenant, write_key=keys.write)
        try:
            sent = sender.send(plan, progress=lambda count: progress.advance(sending, count))
        finally:
            sender.close()
        through = progress.add_task("through the workers", total=expected.sent)
        clean = _wait(
            lambda: _clean(settings, run_id, progress, through), lambda found: found.received >= expected.sent
        )
        stored = progress.add_task("rows in ClickHouse", total=clean.stored)
        blocks = progress.add_task("lines in objects", total=clean.stored)
        warehouse = Warehouse(settings)

        def look() -> Rows:
            found = warehouse.rows(run_id)
            progress.update(stored, completed=found.events)
            progress.update(blocks, completed=found.block_events)
            return found

        parts = len(session_updates(settings, run_id))
        rows = _wait(
            look,
            lambda found: (
                found.events >= clean.stored and found.block_events >= clean.stored and found.sessions >= parts
            ),
        )
    watch.stop()
    lines = object_lines(settings, warehouse.object_keys(run_id), run_id, [TYPED_SECRET])
    return Arrived(sent, expected, clean, parts, rows, lines, freshness_ms(clean.received_at, watch.seen_at))


def _clean(settings: Settings, run_id: str, progress: Progress, task: object) -> CleanSums:
    found = clean_sums(settings, run_id)
    progress.update(task, completed=found.received)  # type: ignore[arg-type]
    return found


def _wait(look: Callable[[], Found], enough: Callable[[Found], bool]) -> Found:
    """Looks until it is enough or the time is up, and returns what was seen last: the checks say what is missing."""
    until = time.monotonic() + ARRIVAL_LIMIT_S
    while True:
        try:
            found = look()
            if enough(found) or time.monotonic() > until:
                return found
        except ReplayError:
            if time.monotonic() > until:
                raise
        time.sleep(LOOK_EVERY_S)


def _show(console: Console, run: Arrived, settings: Settings, run_id: str) -> None:
    clean, rows, lines = run.clean, run.rows, run.lines
    table = Table(title="What went in, and what came out where", title_justify="left")
    table.add_column("stage")
    table.add_column("what")
    table.add_column("events", justify="right")
    by_way = run.sent.by_way
    table.add_row("accepted", "over HTTP, POST /v1/batches", f"{by_way.get('http', 0):,}")
    table.add_row("", "over HTTP, POST /v1/recordings", f"{by_way.get('import', 0):,}")
    table.add_row("", "over Kafka, by a service", f"{by_way.get('kafka', 0):,}")
    table.add_row("", "over Kafka, broken on purpose", f"{by_way.get('poison', 0):,}")
    table.add_row("", "[bold]in[/bold]", f"[bold]{run.sent.events:,}[/bold]", end_section=True)
    table.add_row("workers", "stored", f"{clean.stored:,}")
    table.add_row("", "throttled", f"{clean.throttled:,}")
    table.add_row("", "repeated", f"{clean.repeated:,}")
    table.add_row("", "erased", f"{clean.erased:,}")
    table.add_row("", "dead-lettered", f"{clean.dead_lettered:,}")
    table.add_row(
        "",
        f"redactions ({', '.join(sorted(clean.redacted)) or 'none'})",
        f"{clean.redacted.total():,}",
        end_section=True,
    )
    table.add_row("ClickHouse", f"rows in events; {rows.sessions:,} session parts", f"{rows.events:,}")
    table.add_row(
        "objects",
        f"lines in {lines.objects:,} objects, {rows.blocks:,} blocks, {lines.bytes / 1024:,.0f} KiB",
        f"{lines.events:,}",
    )
    console.print(table)
    fresh = run.fresh_ms
    console.print(
        f"freshness, received to queryable: p50 {quantile(fresh, 0.5):,} ms, p99 {quantile(fresh, 0.99):,} ms ({len(fresh):,} batches)",
        soft_wrap=True,
    )
    for check in checks(run):
        mark = "[green]✓[/green] " if check.holds else "[bold red]✗[/bold red] "
        console.print(mark + check.says, highlight=False, soft_wrap=True)
    first = f"{run_id}-portable-spa-live-1"
    console.print(
        f"\nLook at it: data is kept in {settings.home}. Start the stack with `replay up`, then\n"
        f"  replay sessions\n  replay show {first}\n"
        f"  curl 'http://127.0.0.1:{settings.warehouse_port}/' --data-binary \"SELECT type, count() FROM replay.events GROUP BY type\"\n"
        f"  zstd -dc $(find {settings.home}/objects -name '*.jsonl.zst' | head -1) | jq -c .",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
