"""The table of detectors: what is looked for in every string, how it is checked, and the gate in front of it.

A detector has an exact pattern (Python `re`, ASCII only: `\\d` would match full-width digits, case folding the Kelvin
sign), a check on what matched, and a gate: a wider RE2 pattern over the raw bytes of JSON. Where no gate hits, nothing is
parsed. A gate therefore must not rely on word boundaries, and must allow for every spelling that JSON has for a character:
`\\n` for a line break inside a secret, `\\"` for a quote in a string in a string; `\\u` and `\\/` are a hit by themselves.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from pipeline.workers.redact.names import AFTER_WORD, ANYWHERE, ANYWHERE_WIDER, WHOLE_NAME, WHOLE_WORD, is_sensitive

REDACTED = "[REDACTED]"
_A = re.ASCII
_AI = re.ASCII | re.IGNORECASE

Match = re.Match[str]


@dataclass(frozen=True)
class Detector:
    """`group` is the part of a match that is the secret, -1 the last group that matched: what is around it stays."""

    kind: str
    pattern: re.Pattern[str]
    gate: str
    check: Callable[[Match], bool] = lambda _: True
    group: int = 0


# --- checks ---------------------------------------------------------------------------------------------------------

_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|"
    r"3(?:0[0-5]|[689]\d)\d{11}|35\d{14}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}|(?:5[06-9]|6[37])\d{14}|2200\d{12}",
    _A,
)
"""Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay, Maestro, Mir: their prefixes and lengths."""

_IBAN_CHARS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
_FILES = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "webp",
        "svg",
        "avif",
        "css",
        "js",
        "mjs",
        "cjs",
        "ts",
        "map",
        "woff",
        "ttf",
        "ico",
        "json",
    ]
)


def is_card(digits: str) -> bool:
    """An issuer's prefix and length, and Luhn's sum."""
    if _ISSUERS.fullmatch(digits) is None:
        return False
    doubled = (int(each) * 2 for each in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(each - 9 if each > 9 else each for each in doubled)) % 10 == 0


def _card(found: Match) -> bool:
    text, start, end = found.string, found.start(), found.end()
    if start and text[start - 1] in ".-":
        return False
    if end + 1 < len(text) and text[end] in ".-" and text[end + 1].isdigit():
        return False
    return is_card(re.sub("[ +-]", "", found[0]))


def _iban(found: Match) -> bool:
    text = re.sub("[ +]", "", found[0])
    return int("".join(str(int(each, 36)) for each in text[4:] + text[:4])) % 97 == 1


def _ssn(found: Match) -> bool:
    """The ranges that were ever given out."""
    area, group, serial = found[0].split("-")
    before = found.string[found.start() - 1] if found.start() else ""
    return (
        area not in ("000", "666") and area < "900" and group != "00" and serial != "0000" and before not in ("-", ".")
    )


def _email(found: Match) -> bool:
    return found[0].rpartition(".")[2].lower() not in _FILES


def _bearer(found: Match) -> bool:
    """Prose does not hide a secret: `Bearer of good news`, `basic instructions`."""
    word = found[1]
    if found[0][:2].lower() == "ba":
        try:
            return b":" in b64decode(word + "=" * (-len(word) % 4))
        except Base64Error:
            return False
    return len(word) > 20 or any(each.isdigit() for each in word)


def is_redacted(text: str) -> bool:
    """Whether a text is what redaction leaves: it is not counted again."""
    return text[:1] in _LEFT_BEGINS and _LEFT.fullmatch(text) is not None


def _query(found: Match) -> bool:
    name = unquote(found[1])
    return not is_redacted(found[2]) and (is_sensitive(name) or name.lower() in _QUERY)


def _member(found: Match) -> bool:
    value = found[found.lastindex or 0]
    before = found.string[max(found.start() - 11, 0) : found.start()]
    return not (is_redacted(value) or value.lower() in _NO_SECRETS or before.lower() == "unexpected ")


def _phone(found: Match) -> bool:
    """`+20261123001` of a version is no number to call."""
    before = found.string[found.start() - 1] if found.start() else ""
    return not (before.isalnum() or before in (".", "-", "_"))


# --- the table ------------------------------------------------------------------------------------------------------

_QUERY = frozenset(
    ["sig", "signature", "sid", "sessionid", "session_id", "code", "key", "pass", "x-amz-signature", "access"]
)
_QUERY_GATE = r"[?&;#](?i:sig|signature|sid|sessionid|session_id|code|key|pass|x-amz-signature|access)="
_LEFT = re.compile(r"\[REDACTED\]|\*+|hmac:[0-9a-f]{16}|%5BREDACTED%5D")
_LEFT_BEGINS = frozenset("[*h%")
_NO_SECRETS = frozenset(["null", "true", "false", "undefined", "none", "bearer", "basic", "digest"])
_SPACE = r"(?:\s|\\+[nrtbf])"
_VALUE = r"""(?:"((?:[^"\\]|\\.)+)|'((?:[^'\\]|\\.)+)|\\+["']([^"'\\]+)|([^\s"'\\,;&{}\[\]<>()]+))"""
_IBANS = "|".join(
    f"(?:{'|'.join(code for code, chars in _IBAN_CHARS.items() if chars == length)})[0-9]{{2}}(?:[ +]?[A-Z0-9]){{{length - 4}}}"
    for length in sorted(set(_IBAN_CHARS.values()))
)

_NAME_ENDS = (
    rf"""[A-Za-z0-9_.%\[\]$-]*\\*["']?{_SPACE}*[:=]|"""  # in a text or a query, or the key itself ends here
    r"""(?:[^"\\]|\\.)*"\s*:|"""  # the rest of a key
    rf"""[^"\\]*\\+"{_SPACE}*:"""  # the rest of a key of JSON in a string
)
KEY_GATE = rf"(?i:{ANYWHERE_WIDER})(?:{_NAME_ENDS})|(?i:{WHOLE_WORD}|{WHOLE_NAME}){AFTER_WORD}\\*[\"']?{_SPACE}*[:=]"
"""Hits every sensitive key in JSON, and every sensitive name that a value follows."""

DETECTORS: tuple[Detector, ...] = (
    Detector(
        "pem",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[\s\S]*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY"
            r"(?: BLOCK)?-----|[\s\S]*)",
            _A,
        ),
        r"-----BEGIN ",
    ),
    Detector(
        "jwt",
        re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*", _A),
        r"eyJ[A-Za-z0-9_-]{6}",
    ),
    Detector(
        "bearer",
        re.compile(r"\b(?:bearer|basic|digest)[\s+]{1,8}([A-Za-z0-9._~+/=-]{8,})", _AI),
        rf"(?i:bearer|basic|digest)(?:[+]|{_SPACE})",
        _bearer,
        1,
    ),
    Detector(
        "cloud_key",
        re.compile(
            r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|[spr]k_(?:live|test)_[0-9A-Za-z]{10,}|gh[pousr]_[0-9A-Za-z]{30,}|"
            r"github_pat_[0-9A-Za-z_]{20,}|glpat-[0-9A-Za-z_-]{20,}|xox[abeprs]-[0-9A-Za-z-]{10,}|AIza[0-9A-Za-z_-]{35}|"
            r"ya29\.[0-9A-Za-z_-]{20,}|npm_[0-9A-Za-z]{36}|SG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}|"
            r"sk-(?:[a-z0-9]{2,12}-){0,3}[0-9A-Za-z_]{20,})",
            _A,
        ),
        r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|[spr]k_(?:live|test)_|gh[pousr]_[0-9A-Za-z]{20}|github_pat_|glpat-|xox[abeprs]-|"
        r"AIza[0-9A-Za-z_-]{20}|ya29\.|npm_[0-9A-Za-z]{20}|SG\.[0-9A-Za-z_-]{16}|sk-[0-9A-Za-z_-]{20}",
    ),
    Detector(
        "userinfo",
        re.compile(r"://([^\s/?#@\"'<>\\]{0,256}:[^\s/?#@\"'<>\\]{1,256})@", _A),
        r"://[^\s/?#@\"'<>\\]*@",
        lambda found: not is_redacted(found[1]),
        1,
    ),
    Detector(
        "query",
        re.compile(r"(?<=[?&;#])([A-Za-z0-9_.%\[\]$-]{1,80})=([^&#;\s\"'<>\\]+)", _A),
        rf"{_QUERY_GATE}|[?&;#][^=&\s]*(?i:{WHOLE_WORD}|{WHOLE_NAME})[^=&\s]*=",
        _query,
        2,
    ),
    Detector(
        "kv",
        re.compile(
            rf"(?:(?:{ANYWHERE})[A-Za-z0-9_-]{{0,40}}|(?<![A-Za-z0-9])(?:cvv|ssn|iban|otp|pin|jwt|auth))"
            rf"(?:\\*[\"'])?\s{{0,8}}[:=]\s{{0,8}}{_VALUE}",
            _AI | re.DOTALL,
        ),
        KEY_GATE,
        _member,
        -1,
    ),
    Detector(
        "email",
        re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}", _A),
        r"[A-Za-z0-9._%+-]@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2}",
        _email,
    ),
    Detector(
        "card",
        re.compile(
            r"\b(?:[2-6][0-9]{12,18}|[2-6][0-9]{3}([ +-])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}|3[0-9]{3}([ +-])[0-9]{6}\2[0-9]{4,5})\b",
            _A,
        ),
        r"(?:^|[^0-9.])[2-6][0-9]{3}[ +-]?[0-9]{4}[ +-]?[0-9]{2}[ +-]?[0-9]{2}[ +-]?[0-9]",
        _card,
    ),
    Detector(
        "iban",
        re.compile(rf"\b(?:{_IBANS})\b", _A),
        r"[A-Z]{2}[0-9]{2}(?:[ +]?[A-Z0-9]{2}){5}",
        _iban,
    ),
    Detector(
        "ssn",
        re.compile(r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b(?!-)", _A),
        r"[0-9]{3}-[0-9]{2}-[0-9]{4}",
        _ssn,
    ),
    Detector(
        "phone",
        re.compile(
            r"\+[0-9](?:[ .()-]{0,2}[0-9]){7,14}\b|\b[2-9][0-9]{2}-[2-9][0-9]{2}-[0-9]{4}\b(?!-)|"
            r"\([2-9][0-9]{2}\) ?[2-9][0-9]{2}-[0-9]{4}\b|\b0[1-9][0-9]{1,3} [0-9]{3,4} [0-9]{3,4}\b",
            _A,
        ),
        r"\+[0-9](?:[ .()-]{0,2}[0-9]){7}|[2-9][0-9]{2}-[2-9][0-9]{2}-[0-9]{4}|\([2-9][0-9]{2}\) ?[2-9][0-9]{2}-|"
        r"0[1-9][0-9]{1,3} [0-9]{3,4} [0-9]{3}",
        _phone,
    ),
)
KINDS = tuple(each.kind for each in DETECTORS)
