"""Which names give a secret away: keys of objects and forms, query parameters, names and ids of fields."""

from __future__ import annotations

import functools
import re

ANYWHERE = (
    r"passw|passphrase|passcode|pwd|secret(?!ar)|token(?!i[sz]|s?[_-]?(?:count|limit|usage)|s(?![A-Za-z]))|api[_-]?key|"
    r"access[_-]?key|private[_-]?key|credential|authorization|card[_-]?n|credit[_-]?card|debit[_-]?card|cardholder|"
    r"cvv|cvc|security[_-]?code"
)
"""Parts of a name that tell wherever they stand; `secretary`, `tokenizer` and `max_tokens` tell nothing."""

ANYWHERE_WIDER = (
    r"passw|passphrase|passcode|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|authorization|"
    r"card[_-]?n|credit[_-]?card|debit[_-]?card|cardholder|cvv|cvc|security[_-]?code"
)
"""The same without looking ahead, for the gate."""

WHOLE_WORD = r"auth|card|cc|csc|ssn|iban|otp|pin|pan|jwt|bearer|cnp|tan"
"""Short words, which count only where they stand alone: `pin` in `#pin`, not in `shipping`."""

WHOLE_NAME = r"cookie|set-cookie"

AFTER_WORD = r'(?:[^A-Za-z0-9"\\,{}:\x00-\x1f][^"\\,{}:\x00-\x1f]*)?'
"""What may follow a short word in a name: nothing that could end the name in JSON, so that a gate over JSON can see it."""

_SENSITIVE = re.compile(
    rf"(?:{ANYWHERE})|(?<![a-z0-9])(?:{WHOLE_WORD}){AFTER_WORD}\Z|^(?:{WHOLE_NAME})\Z", re.I | re.ASCII
)
_PERSONAL = re.compile(
    r"e-?mail|phone|mobile|\btel\b|expir|cc-|birth|passport|account[_-]?n|one-time-code", re.I | re.ASCII
)

NAME_CHARS_MAX = 256
"""Only so much of a name is looked at: its end, where an element path has the field itself."""


@functools.lru_cache(4096)
def is_sensitive(name: str) -> bool:
    """Whether a key, a field's name or an element path's last step says that its value is a secret."""
    return _SENSITIVE.search(name[-NAME_CHARS_MAX:]) is not None


def last_step(target: object) -> str:
    """The step of an element path that names the field: `input#card` of `form#checkout > input#card`."""
    return target.rpartition(">")[2].strip() if isinstance(target, str) else ""


def is_sensitive_target(target: object) -> bool:
    """An element path such as `form#checkout > input#card`: only the last step names the field."""
    return is_sensitive(last_step(target))


@functools.lru_cache(4096)
def is_personal(name: str) -> bool:
    """Whether a field's name says that what is typed there is a person's data though no secret: typed letter by letter,
    no pattern would know an address before it is complete."""
    return _PERSONAL.search(name[-NAME_CHARS_MAX:]) is not None
