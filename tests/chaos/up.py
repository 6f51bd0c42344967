"""`replay up` for chaos: the sinks speak to the warehouse through a fault proxy, and a second object sink writes to S3,
through another one, indexed in a database of its own. Both object stores must end up with the same lines."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys

from pipeline import settings as settings_table
from pipeline.errors import RetryableError
from pipeline.local import kafka, supervisor
from pipeline.local.parts import Part, Stage, child_environ, stages
from pipeline.local.ports import is_taken
from pipeline.settings import Settings
from pipeline.storage.migrate import migrate
from tests import s3

BACKOFF_MAX_S = 1.0
"""The supervisor's: parts die much more often here than anywhere else."""
BUCKET = "replays"


def command(wires: Wires) -> list[str]:
    """For `Stack`; the S3 server's credentials go by the environment."""
    return [
        sys.executable,
        "-m",
        "tests.chaos.up",
        wires.warehouse_url,
        wires.s3_url,
        str(wires.s3.port),
        wires.s3.binary,
    ]


@dataclasses.dataclass(frozen=True)
class Wires:
    """Where the fault proxies listen, and the S3 server behind one of them."""

    warehouse_url: str
    s3_url: str
    s3: s3.Server


def with_s3(settings: Settings, endpoint: str) -> Settings:
    """What the second object sink sees, if it asks the warehouse directly."""
    return dataclasses.replace(
        settings,
        sink_group="replay-sink-s3",
        warehouse_database=f"{settings.warehouse_database}_s3",
        objects_url=f"s3://{BUCKET}/some/prefix",
        objects_endpoint=endpoint,
    )


def plan(wires: Wires, settings: Settings, broker: kafka.Broker) -> tuple[Stage, ...]:
    """The stack's own stages with a wire cut open."""
    services, ours = stages(settings, broker)
    mirror = with_s3(settings, wires.s3_url)
    object_store = Part(
        "object-store",
        wires.s3.command(settings.home.absolute() / "s3"),
        dict(os.environ),
        probe=lambda: is_taken(wires.s3.port),
    )

    def lay_out() -> None:
        if services.after is not None:
            services.after()
        migrate(mirror)
        if not wires.s3.answers():
            raise RetryableError("the S3 server does not answer yet")
        wires.s3.make_bucket(BUCKET)

    def behind(part: Part, its: Settings) -> Part:
        environ = child_environ(dataclasses.replace(its, warehouse_url=wires.warehouse_url.replace("//", "//default@")))
        return dataclasses.replace(
            part, environ=environ, command=(sys.executable, "-m", "tests.chaos.sink", *part.command[3:])
        )

    parts = [behind(part, settings) if part.name.startswith("sink-") else part for part in ours.parts]
    objects = next(part for part in ours.parts if part.name == "sink-objects")
    parts.append(dataclasses.replace(behind(objects, mirror), name="sink-objects-s3"))
    return Stage((*services.parts, object_store), after=lay_out), Stage(tuple(parts))


def main() -> None:
    warehouse_url, s3_url, port, binary = sys.argv[1:]
    server = s3.Server(binary, int(port), os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    supervisor.BACKOFF_MAX_S = BACKOFF_MAX_S
    settings = settings_table.load()
    supervisor.up(settings, quiet=True, plan=functools.partial(plan, Wires(warehouse_url, s3_url, server)))


if __name__ == "__main__":
    sys.exit(main())
