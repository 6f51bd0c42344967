"""The command `replay`: reads settings, starts a part or asks one, prints. No decision is taken here."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from typing import Any

import click

from pipeline import settings as settings_table
from pipeline.errors import ReplayError
from pipeline.keys import DEFAULT_TENANT, KeyFile, Role
from pipeline.observe import logs
from pipeline.query.terminal import sessions_command, show_command
from pipeline.settings import Settings
from pipeline.sinks.terminal import dead_letters_group
from pipeline.storage.terminal import retain_command
from pipeline.upkeep.terminal import reindex_command, verify_command
from pipeline.workers.redact.terminal import redact, rules_group

pass_settings = click.make_pass_decorator(Settings)


class _Group(click.Group):
    """Our errors end with one line and exit code 1, not with a stack."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ReplayError as error:
            click.echo(f"replay: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(ctx: click.Context) -> None:
    """The open session-replay pipeline: recorder batches onto Kafka; throttled, redacted and sessionized by workers;
    into ClickHouse for queries and into open replay objects.

    `replay up` runs everything here; each part also runs alone against outside services. Every setting is an
    environment variable REPLAY_…: `replay settings` prints the table.
    """
    ctx.obj = settings_table.load()


@main.command("settings")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
@pass_settings
def show_settings(settings: Settings, as_json: bool) -> None:
    """Every setting: name, value now, default, unit, what it is."""
    rows = settings_table.table(settings)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        unit = f" {row.unit}" if row.unit else ""
        changed = "" if row.value == row.default else f"  (default {row.default or 'empty'})"
        click.echo(f"{row.name}={row.value}{unit if row.value else ''}{changed}\n    {row.help}")


def _run(part: str, settings: Settings) -> None:
    """One part in the foreground until SIGTERM or Ctrl-C."""
    logs.configure(settings.log_level, part=part)
    if part == "capture":
        from pipeline.capture.server import run
    elif part == "api":
        from pipeline.query.server import run
    elif part == "worker":
        from pipeline.workers.app import run
    elif part == "sink-warehouse":
        from pipeline.sinks.warehouse import run
    else:
        from pipeline.sinks.objects import run
    run(settings)


@main.command(short_help="Run the HTTP front.")
@pass_settings
def capture(settings: Settings) -> None:
    """The HTTP front: POST /v1/batches and /v1/recordings, onto replay.batches."""
    _run("capture", settings)


@main.command()
@pass_settings
def api(settings: Settings) -> None:
    """The query API: sessions and recordings over HTTP. Carries out the erasures that were asked for."""
    _run("api", settings)


@main.command(short_help="Run a worker: throttle, redact, sessionize.")
@pass_settings
def worker(settings: Settings) -> None:
    """Throttle, redact, sessionize: replay.batches → replay.clean, replay.sessions."""
    _run("worker", settings)


@main.group()
def sink() -> None:
    """Readers of replay.clean that fill the stores."""


@sink.command("warehouse")
@pass_settings
def sink_warehouse(settings: Settings) -> None:
    """replay.clean and replay.sessions → ClickHouse."""
    _run("sink-warehouse", settings)


@sink.command("objects")
@pass_settings
def sink_objects(settings: Settings) -> None:
    """replay.clean → replay objects in S3 or a folder, and their index in ClickHouse."""
    _run("sink-objects", settings)


@main.group()
def topics() -> None:
    """The topics of the catalogue."""


@topics.command("apply")
@pass_settings
def topics_apply(settings: Settings) -> None:
    """Create missing topics and put drifted settings right. Idempotent."""
    from pipeline.topics import clients
    from pipeline.topics.catalogue import catalogue

    for applied in clients.apply(clients.admin(settings), catalogue(settings)):
        click.echo(f"{applied.topic}\t{applied.action}")


@main.command(short_help="Run the whole stack on this machine.")
@click.option("--quiet", is_flag=True, help="Say nothing unless something is wrong.")
@pass_settings
def up(settings: Settings, quiet: bool) -> None:
    """The whole stack on this machine, in the foreground: Kafka, warehouse, worker, sinks, capture, API.

    Ctrl-C stops it cleanly; data, logs and keys stay in REPLAY_HOME.
    """
    from pipeline.local.supervisor import up as run_stack

    logs.configure(settings.log_level, part="supervisor")
    run_stack(settings, quiet=quiet)


@main.command(short_help="Show the parts of the embedded stack.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array: name, pid, ready, address.")
@pass_settings
def status(settings: Settings, as_json: bool) -> None:
    """The parts of the embedded stack: pid, readiness, address. Exit code 0 also while parts are down."""
    from pipeline.local.status import status as stack_status

    parts = stack_status(settings)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(part) for part in parts]))
        return
    if not parts:
        click.echo(f"nothing runs in {settings.home}; `replay up` starts it")
    for part in parts:
        state = "ready" if part.ready else "starting" if part.pid else "down"
        click.echo(f"{part.name:<15} {part.pid or '-':>8}  {state:<9} {part.address}")


@main.group(invoke_without_command=True, short_help="Show the stack's keys, or add one.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON object: tenant, write, read, admin.")
@click.pass_context
def keys(ctx: click.Context, as_json: bool) -> None:
    """The keys of the embedded stack, made at random on its first start."""
    if ctx.invoked_subcommand is not None:
        return
    found = KeyFile(ctx.obj.keys).first()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return
    for name, value in dataclasses.asdict(found).items():
        click.echo(f"{name:<7} {value}")


@keys.command("add")
@click.option("--write", help="A key that may send recordings.")
@click.option("--read", help="A key that may query.")
@click.option("--admin", help="A key that may query and delete.")
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose key it is.")
@pass_settings
def keys_add(settings: Settings, write: str | None, read: str | None, admin: str | None, tenant: str) -> None:
    """Bring a key of your own; running servers honour it when this returns."""
    given: dict[Role, str | None] = {"write": write, "read": read, "admin": admin}
    if not any(given.values()):
        raise click.UsageError("name a key: --write, --read or --admin")
    file = KeyFile(settings.keys)
    for role, key in given.items():
        if key:
            file.add(role, key, tenant)
            click.echo(f"{role} key added for tenant {tenant}")


@main.command(short_help="Create or update the tables in ClickHouse.")
@pass_settings
def migrate(settings: Settings) -> None:
    """Create or bring up to date the tables in ClickHouse. Each numbered migration runs once and is recorded."""
    from pipeline.storage.migrate import migrate as run_migrations

    applied = run_migrations(settings)
    click.echo("\n".join(applied) if applied else "nothing to do")


main.add_command(dead_letters_group)
main.add_command(retain_command)
main.add_command(sessions_command)
main.add_command(show_command)
main.add_command(verify_command)
main.add_command(reindex_command)


@main.command(short_help="Run the main job end to end and check it.")
@pass_settings
def demo(settings: Settings) -> None:
    """The main job, end to end, on bundled real recordings: sends, follows, checks, shows. Exit code 0 if all adds up."""
    from pipeline.load.demo import demo as run_demo

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for each in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: the stack is stopped on the way out
        signal.signal(each, interrupt)
    if not run_demo(settings):
        sys.exit(1)


main.add_command(redact)
main.add_command(rules_group)


if __name__ == "__main__":
    sys.exit(main())
