"""`replay sessions` and `replay show ID`: the API's answers as lines, or as its JSON.

What only a person needs is imported where it is used: every part of the stack starts through the same command.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from pipeline.errors import NotFoundError, RefusedError, RetryableError
from pipeline.keys import KeyFile
from pipeline.settings import Settings

if TYPE_CHECKING:
    import httpx

ANSWER_LIMIT_S = 30.0


def sessions(settings: Settings, *, as_json: bool = False, **filters: str | int | None) -> None:
    """Prints one page of sessions, newest first. Raises RetryableError where nothing answers, RefusedError as the API."""
    found = _ask(settings, "/v1/sessions", {name: value for name, value in filters.items() if value is not None}).json()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found["sessions"]:
        click.echo("no sessions")
    for line in _lines(found["sessions"]):
        click.echo(line)
    if found["next_cursor"]:
        click.echo(f"more: --cursor {found['next_cursor']}")


def show(settings: Settings, session_id: str, *, as_json: bool = False) -> None:
    """Prints one session, or one part of it (`ID~2`). Raises as `sessions`, and NotFoundError."""
    found = _ask(settings, f"/v1/sessions/{quote(session_id, safe='')}").json()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if name != "parts":
            click.echo(f"{name:<16} {value}")
    for line in _lines(found["parts"]):
        click.echo(f"{'part':<16} {line}")


def recording(settings: Settings, session_id: str) -> None:
    """Prints the SessionRecording as the API gives it, while it comes."""
    out = click.get_binary_stream("stdout")
    with _asked(settings, f"/v1/sessions/{quote(session_id, safe='')}/recording") as answer:
        for chunk in answer.iter_bytes():
            out.write(chunk)
    out.write(b"\n")


def _lines(parts: list[dict[str, Any]]) -> list[str]:
    """A line a session part, the id first and whole, so that it can be cut out and used."""
    width = max((len(each["id"]) for each in parts), default=0)
    return [
        f"{each['id']:<{width}}  {each['started_at'][:19]}  {each['duration_ms'] / 1000:>9.1f} s  {each['status']:<6}  "
        f"{each['events']:>7} events {each['clicks']:>5} clicks {each['errors']:>4} errors  "
        f"{each['user_id']}  {each['first_url']}"
        for each in parts
    ]


pass_settings = click.make_pass_decorator(Settings)
json_option = click.option("--json", "as_json", is_flag=True, help="The API's answer as it is.")


@click.command("sessions")
@click.option("--user-id", help="Of this user only.")
@click.option("--status", type=click.Choice(["open", "closed"]), help="Only those that are open, or closed.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most.")
@click.option("--cursor", help="Where the page before ended.")
@json_option
@pass_settings
def sessions_command(settings: Settings, /, as_json: bool, **filters: Any) -> None:
    """Recorded sessions, newest first."""
    sessions(settings, as_json=as_json, **filters)


@click.command("show")
@click.argument("session_id", metavar="ID")
@click.option("--recording", "whole", is_flag=True, help="The whole SessionRecording as JSON, events and all.")
@json_option
@pass_settings
def show_command(settings: Settings, session_id: str, whole: bool, as_json: bool) -> None:
    """One session and its parts; ID~2 is one part."""
    if whole:
        recording(settings, session_id)
    else:
        show(settings, session_id, as_json=as_json)


def _ask(settings: Settings, path: str, parameters: dict[str, Any] | None = None) -> httpx.Response:
    with _asked(settings, path, parameters) as answer:
        answer.read()
    return answer


@contextmanager
def _asked(settings: Settings, path: str, parameters: dict[str, Any] | None = None) -> Iterator[httpx.Response]:
    """A good answer, its body still to be read. Raises as `sessions` and `show` do, also where the answer breaks off."""
    import httpx

    address = f"http://{settings.host}:{settings.api_port}"
    key = KeyFile(settings.keys).first().read
    asked = httpx.stream(
        "GET",
        address + path,
        params=parameters,
        headers={"Authorization": f"Bearer {key}"},
        timeout=ANSWER_LIMIT_S,
        trust_env=False,
    )
    begun = False
    try:
        with asked as answer:
            begun = True
            if not answer.is_success:
                answer.read()
                raise _error(answer, address)
            yield answer
    except httpx.TransportError:
        if begun:
            raise RetryableError(f"the answer of {address} broke off: ask again") from None
        raise RetryableError(f"nothing answers on {address}: start it with `replay up`") from None


def _error(answer: httpx.Response, address: str) -> NotFoundError | RefusedError | RetryableError:
    try:
        told = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        told = f"{address} answered {answer.status_code}, and not as the API does"
    if answer.status_code == NotFoundError.status:
        return NotFoundError(told)
    if answer.is_client_error:
        return RefusedError(told)
    return RetryableError(told)
