"""`replay sessions` and `replay show ID`: the API's answers as tables, or as its JSON."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import click
import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.errors import NotFoundError, RefusedError, RetryableError
from pipeline.keys import KeyFile
from pipeline.settings import Settings

ANSWER_LIMIT_S = 30.0
_SHOWN = ("id", "status", "user_id", "started_at", "duration_ms", "events", "clicks", "errors", "first_url")


def sessions(settings: Settings, *, as_json: bool = False, **filters: str | int | None) -> None:
    """Prints one page of sessions, newest first. Raises RetryableError where nothing answers, RefusedError as the API."""
    found = _ask(settings, "/v1/sessions", {name: value for name, value in filters.items() if value is not None})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    table = Table(*_SHOWN)
    for each in found["sessions"]:
        table.add_row(*(escape(str(each[name])) for name in _SHOWN))
    console = Console()
    console.print(table)
    if found["next_cursor"]:
        console.print(f"more: --cursor {found['next_cursor']}", soft_wrap=True)


def show(settings: Settings, session_id: str, *, as_json: bool = False) -> None:
    """Prints one session, or one part of it (`ID~2`). Raises as `sessions`, and NotFoundError."""
    found = _ask(settings, f"/v1/sessions/{quote(session_id, safe='')}", {})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    facts = Table("field", "value")
    for name, value in found.items():
        if name != "parts":
            facts.add_row(name, escape(str(value)))
    parts = Table(*_SHOWN, title="parts")
    for each in found["parts"]:
        parts.add_row(*(escape(str(each[name])) for name in _SHOWN))
    console = Console()
    console.print(facts)
    console.print(parts)


def commands() -> list[click.Command]:
    """The commands for the group `replay`, whose context object is the Settings."""
    as_json = click.option("--json", "as_json", is_flag=True, help="The API's answer as it is.")

    @click.command("sessions")
    @click.option("--user-id", help="Of this user only.")
    @click.option("--status", type=click.Choice(["open", "closed"]))
    @click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
    @click.option("--cursor", help="Where the page before ended.")
    @as_json
    @click.pass_obj
    def sessions_command(settings: Settings, /, as_json: bool, **filters: Any) -> None:
        """Recorded sessions, newest first."""
        sessions(settings, as_json=as_json, **filters)

    @click.command("show")
    @click.argument("session_id", metavar="ID")
    @as_json
    @click.pass_obj
    def show_command(settings: Settings, session_id: str, as_json: bool) -> None:
        """One session and its parts; ID~2 is one part."""
        show(settings, session_id, as_json=as_json)

    return [sessions_command, show_command]


def _ask(settings: Settings, path: str, parameters: dict[str, Any]) -> Any:
    address = f"http://{settings.host}:{settings.api_port}"
    key = KeyFile(settings.keys).first().read
    try:
        answer = httpx.get(
            address + path,
            params=parameters,
            headers={"Authorization": f"Bearer {key}"},
            timeout=ANSWER_LIMIT_S,
            trust_env=False,
        )
    except httpx.TransportError:
        raise RetryableError(f"nothing answers on {address}: start it with `replay up`") from None
    if answer.is_success:
        return answer.json()
    try:
        told = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        told = f"{address} answered {answer.status_code}, and not as the API does"
    if answer.status_code == NotFoundError.status:
        raise NotFoundError(told)
    if answer.is_client_error:
        raise RefusedError(told)
    raise RetryableError(told)
