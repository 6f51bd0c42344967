"""Which names give a secret away."""

from __future__ import annotations

import pytest

from pipeline.workers.redact.names import NAME_CHARS_MAX, is_sensitive, is_sensitive_target


@pytest.mark.parametrize(
    "name",
    ["password", "Password", "newPasswd", "user_password_2", "passphrase", "secret", "clientSecret", "token", "csrfToken",
     "api_key", "apiKey", "api-key", "APIKEY", "auth", "x-auth", "credentials", "private_key", "privateKey", "card",
     "cardNumber", "card_no", "credit-card", "cvv", "cvc", "ssn", "iban", "pin", "otp", "securityCode"],
)  # fmt: skip
def test_name_of_a_secret_is_sensitive(name: str) -> None:
    assert is_sensitive(name)


@pytest.mark.parametrize(
    "name",
    ["", "email", "address", "shipping", "spinner", "className", "cardigan", "discard", "author", "panel", "company",
     "account", "accept", "quantity", "pinned", "session", "options", "passenger", "cookie_expiration", "tokenizer", "secretary"],
)  # fmt: skip
def test_short_word_counts_only_where_it_stands_alone(name: str) -> None:
    assert not is_sensitive(name)


@pytest.mark.parametrize("target", ["#pin", "input#pin", "form#f > input#card", "div > input.cvc", "input[name=ssn]"])
def test_target_is_sensitive_by_its_last_step(target: str) -> None:
    assert is_sensitive_target(target)


@pytest.mark.parametrize("target", ["form#card > input#city", "div#password > label > input", None, 7, ["#pin"], ""])
def test_target_is_not_sensitive_by_what_is_around_it_nor_when_it_is_no_path(target: object) -> None:
    assert not is_sensitive_target(target)


def test_only_the_end_of_an_endless_name_is_looked_at() -> None:
    assert is_sensitive("x" * 100_000 + "-pin")
    assert not is_sensitive("pin-" + "x" * NAME_CHARS_MAX)


@pytest.mark.parametrize("name", ["ſsn", "auth\u212a", "\u212aard"])
def test_letters_beyond_ascii_fold_into_no_word(name: str) -> None:
    assert is_sensitive(name) == ("auth" in name)


@pytest.mark.parametrize("name", ["card\n", "pin\t(4)", "auth \x01"])
def test_short_word_with_a_control_character_after_it_tells_nothing(name: str) -> None:
    """JSON writes it as an escape, which no gate could tell from the end of the name."""
    assert not is_sensitive(name)
