"""Secrets of every kind, spelled in the ways that clients spell them, planted into events that were really recorded."""

from __future__ import annotations

import json
import random
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

STYLE_ATTRIBUTES = {"style", "_cssText", "rr_dataURL", "d", "points", "viewBox", "transform"}
"""Style, geometry and pictures are not redacted, so that a replay plays; nobody's secret is planted there."""

FULL_SNAPSHOT, INCREMENT, META, CUSTOM, PLUGIN = 2, 3, 4, 5, 6
MUTATION, INPUT = 0, 5


@dataclass(frozen=True)
class Canary:
    """`text` holds the `secret`; `spelled` is the text as it is planted."""

    kind: str
    encoding: str
    text: str
    secret: str
    spelled: str


def _luhn(digits: str) -> str:
    total = sum(sum(divmod(int(each) * (1 + (at + 1) % 2), 10)) for at, each in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def _iban(digits: str) -> str:
    """A German one: two check digits by ISO 13616, D = 13 and E = 14 in the sum."""
    return f"DE{98 - int(digits + '131400') % 97:02}{digits}"


def _kinds(rng: random.Random) -> dict[str, tuple[str, str]]:
    word = "".join(rng.choices("abcdefghjkmnp", k=10)) + str(rng.randrange(100, 999))
    upper = word.upper()
    card = _luhn("4111" + f"{rng.randrange(10**11):011}")
    iban = _iban(f"{rng.randrange(10**18):018}")
    return {
        "email": (f"{word}@mail.example.test", word),
        "card": (card, card),
        "spaced card": (" ".join(card[at : at + 4] for at in range(0, 16, 4)),) * 2,
        "iban": (iban, iban),
        "ssn": (f"{rng.randrange(100, 600)}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}",) * 2,
        "phone": (f"+1202{rng.randrange(2000000, 9999999)}",) * 2,
        "jwt": (f"eyJhbGciOiJI.{word}.{word}", word),
        "bearer": (f"Authorization: Bearer {word}", word),
        "api key": (f"sk_live_{word}", word),
        "cloud key": (f"AKIA{upper}XYZ", upper),
        "pem": (f"-----BEGIN PRIVATE KEY-----\n{word}\n-----END PRIVATE KEY-----", word),
        "userinfo": (f"https://ann:{word}@h.example.test/", word),
        "query": (f"https://h.example.test/r?a=1&reset_token={word}", word),
        "member": (json.dumps({"n": 1, "password": word}), word),
        "text": (f"password: {word}", word),
    }


KINDS = tuple(_kinds(random.Random(0)))
_ALIGNED = ("", "n ", "ab: ")
"""Texts before the secret that put it at each of base64's three alignments."""

ENCODINGS: dict[str, Callable[[str, random.Random], str]] = {
    "plain": lambda text, _: text,
    "json": lambda text, _: json.dumps({"v": text}),
    "json in json": lambda text, _: json.dumps({"body": json.dumps([text])}),
    "percent": lambda text, _: "https://h.example.test/?next=" + quote(text, safe=""),
    "percent all": lambda text, _: "".join(f"%{each:02x}" for each in text.encode()),
    "base64": lambda text, rng: b64encode((rng.choice(_ALIGNED) + text).encode()).decode(),
    "base64 for urls": lambda text, rng: urlsafe_b64encode((rng.choice(_ALIGNED) + text).encode()).decode().rstrip("="),
    "base64 of json": lambda text, _: b64encode(json.dumps({"v": text}).encode()).decode(),
}


def draw(rng: random.Random, kind: str | None = None, encoding: str | None = None) -> Canary:
    kind, encoding = kind or rng.choice(KINDS), encoding or rng.choice(list(ENCODINGS))
    text, secret = _kinds(rng)[kind]
    return Canary(kind, encoding, text, secret, ENCODINGS[encoding](text, rng))


def put(value: Any, text: str, rng: random.Random) -> Any:
    """The text at a random string of the value, or beside its members."""
    if isinstance(value, dict):
        keys = [key for key, inner in value.items() if isinstance(inner, str | list | dict)]
        if not keys or rng.random() < 0.2:
            return {**value, rng.choice(["extra", "note", text]): text}
        key = rng.choice(keys)
        return {**value, key: put(value[key], text, rng)}
    if isinstance(value, list) and value:
        at = rng.randrange(len(value))
        return [*value[:at], put(value[at], text, rng), *value[at + 1 :]]
    return among(text, rng) if isinstance(value, str) else text


def among(text: str, rng: random.Random) -> str:
    return rng.choice([text, f"before {text} after", f"({text})"])


# --- rrweb: every place of an event where a text may stand ------------------------------------------------------------

Path = tuple[str | int, ...]


def places(kind: int, data: Any) -> dict[str, list[Path]]:
    """The strings of an rrweb event that a reader of the replay sees or can look up, by the sort of place."""
    found: dict[str, list[Path]] = {}
    if kind == FULL_SNAPSHOT:
        _nodes(data["node"], ("node",), "snapshot", found)
    elif kind == INCREMENT and data.get("source") == MUTATION:
        found["mutation text"] = [
            ("texts", at, "value") for at, each in enumerate(data["texts"]) if isinstance(each["value"], str)
        ]
        for at, each in enumerate(data["attributes"]):
            _attributes(each["attributes"], ("attributes", at, "attributes"), "mutation", found)
        for at, each in enumerate(data["adds"]):
            _nodes(each["node"], ("adds", at, "node"), "added", found)
    elif kind == INCREMENT and data.get("source") == INPUT:
        found["input"] = [("text",)]
    elif kind == META:
        found["page address"] = [("href",)]
    elif kind in (CUSTOM, PLUGIN):
        sort = f"plugin {data['plugin']}" if kind == PLUGIN else "custom event"
        found[sort] = [("payload", *path) for path in _strings(data.get("payload"))]
    return {sort: paths for sort, paths in found.items() if paths}


def style_places(data: Any, path: Path = ()) -> Iterator[Path]:
    """The strings of a full snapshot that are style or geometry: they make the replay's look."""
    if isinstance(data, dict):
        in_style = data.get("tagName") == "style" or data.get("isStyle") is True
        for key, inner in data.items():
            if isinstance(inner, str) and (key in STYLE_ATTRIBUTES or (key == "textContent" and in_style)):
                yield (*path, key)
            elif in_style and key == "childNodes":
                yield from ((*path, key, at, "textContent") for at, each in enumerate(inner) if "textContent" in each)
            else:
                yield from style_places(inner, (*path, key))
    elif isinstance(data, list):
        for at, each in enumerate(data):
            yield from style_places(each, (*path, at))


def at_place(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _nodes(node: dict[str, Any], path: Path, sort: str, found: dict[str, list[Path]]) -> None:
    is_style = node.get("tagName") == "style" or node.get("isStyle") is True
    if isinstance(node.get("textContent"), str) and not is_style:
        found.setdefault(f"{sort} text", []).append((*path, "textContent"))
    _attributes(node.get("attributes", {}), (*path, "attributes"), sort, found)
    for at, child in enumerate(() if is_style else node.get("childNodes", ())):
        _nodes(child, (*path, "childNodes", at), sort, found)


def _attributes(attributes: dict[str, Any], path: Path, sort: str, found: dict[str, list[Path]]) -> None:
    found.setdefault(f"{sort} attribute", []).extend(
        (*path, key)
        for key, inner in attributes.items()
        if isinstance(inner, str) and key not in STYLE_ATTRIBUTES
    )  # fmt: skip


def _strings(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _strings(inner, (*path, key))


def with_text(data: Any) -> Any:
    """A mutation that changes a text too, which no recorded one does: rrweb says so as `{id, value}`."""
    if not isinstance(data, dict) or data.get("source") != MUTATION or data["texts"]:
        return data
    return {**data, "texts": [{"id": 9, "value": "In stock"}]}


def put_at(value: Any, path: Path, text: str) -> Any:
    """The value with the text at the path; the rest is shared."""
    if not path:
        return text
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put_at(value[path[0]], path[1:], text)
    return copy
