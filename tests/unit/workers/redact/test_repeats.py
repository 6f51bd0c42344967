"""What was typed and masked is not told again by the page, in the same batch or a later one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from pipeline.workers.redact.typed import FIELDS_MAX, Typed
from tests.unit.workers.flow import PAGE, T0, Flow, batch, line
from tests.unit.workers.redact.test_events import CLICK, cleaned, typing

PIN = [typing("form > input#door", "739251"[:end]) for end in range(1, 7)]


def console(*args: Any) -> tuple[str, Any]:
    return "console", {"type": "log", "args": list(args)}


@pytest.mark.parametrize(
    "echo",
    [console("code 739251"), console({"deep": ["739251"]}), ("click", {"x": 1, "y": 1, "text": "739251"}),
     ("submit", {"target": "form#f", "formData": {"other": "739251"}}),
     ("navigation", {"url": "http://shop.example.test/go?x=739251", "state": None}),
     ("error", {"message": "bad code '739251'", "stack": ""}),
     (2, {"node": {"type": 3, "textContent": "739251", "id": 1}}),
     (5, {"tag": "x", "payload": "739251"})],
)  # fmt: skip
def test_masked_value_is_told_nowhere_in_its_batch(echo: tuple[str | int, Any]) -> None:
    left, _, _ = cleaned(*PIN, CLICK, echo)
    assert "739251" not in str(left)
    assert "******" in str(left[-1])


def test_spelling_of_an_url_hides_no_masked_value() -> None:
    typed = [typing("#password", "a b/c1"), CLICK]
    left, _, _ = cleaned(*typed, console("see http://shop.example.test/?q=a%20b%2Fc1 or ?q=a+b%2Fc1"))
    assert "c1" not in str(left)


def test_value_within_a_longer_word_or_a_number_is_another() -> None:
    same = [console("7392510 x739251 739251x"), ("mousemove", {"x": 739251, "y": 1}), ("click", {"target": "b#739251"})]
    left, _, _ = cleaned(*PIN, CLICK, *same)
    assert left[-3:] == [each for _, each in same]


def test_short_value_is_not_looked_for() -> None:
    left, _, _ = cleaned(typing("#pin", "739"), CLICK, console("739"))
    assert left[-1]["args"] == ["739"]


def later(*events: tuple[str | int, Any], typed: Typed | None = None) -> tuple[list[Any], Counter[str]]:
    """In a batch after the one in which the code was typed."""
    left, _, counts = cleaned(*events, typed=typed or cleaned(*PIN, CLICK)[1].typed)
    return left, counts


def test_later_form_and_page_do_not_tell_a_masked_fields_value() -> None:
    left, counts = later(
        ("submit", {"target": "form#f", "formData": {"door": "739251", "size": "739251"}}),
        ("navigation", {"url": "http://shop.example.test/go?size=7&Door=739251#top", "state": None}),
        (4, {"href": "http://shop.example.test/go?door=73%39251", "width": 1, "height": 1}),
    )
    assert left[0]["formData"] == {"door": "******", "size": "739251"}
    assert left[1]["url"] == "http://shop.example.test/go?size=7&Door=******#top"
    assert left[2]["href"] == "http://shop.example.test/go?door=******"
    assert counts == {"typed.mask": 3}


def test_name_in_brackets_names_the_field() -> None:
    _, redactor, _ = cleaned(typing('form > input[name="otp2"]', "739251"), CLICK)
    (left,), _ = later(("submit", {"formData": {"otp2": "739251"}}), typed=redactor.typed)
    assert left["formData"] == {"otp2": "******"}


def test_state_holds_hashes_of_names_and_a_bounded_number() -> None:
    _, redactor, _ = cleaned(*(typing(f"#f{at}", f"{at:06}") for at in range(FIELDS_MAX + 9)), CLICK)
    assert len(redactor.typed.names) == FIELDS_MAX
    assert all(len(each) == 8 for each in redactor.typed.names)
    left, _ = later(("submit", {"formData": {"f0": "1", f"f{FIELDS_MAX}": "1"}}), typed=redactor.typed)
    assert left[0]["formData"] == {"f0": "1", f"f{FIELDS_MAX}": "*"}


def test_what_the_client_redacted_is_not_counted_again() -> None:
    left, counts = later(("submit", {"formData": {"door": "[REDACTED]"}}))
    assert left[0]["formData"] == {"door": "[REDACTED]"}
    assert not counts


def test_url_of_the_page_that_follows_a_form_does_not_tell_what_was_typed() -> None:
    flow = Flow()
    flow.send(batch("b1", *(line(kind, T0 + at, data) for at, (kind, data) in enumerate([*PIN, CLICK]))))
    page = msgspec.structs.replace(PAGE, url="http://shop.example.test/go?size=7&door=739251")
    left = flow.send(batch("b2", line("click", T0 + 10_000), metadata=page))
    assert left.clean.metadata.url == "http://shop.example.test/go?size=7&door=******"
    assert "739251" not in str(left)


@pytest.mark.parametrize("spelled", [b'"code 73\\u0039251"', b'"http:\\/\\/h.test\\/739251"'])
def test_escapes_hide_no_masked_value(spelled: bytes) -> None:
    left, _, _ = cleaned(*PIN, CLICK, ("console", b'{"args":[%b]}' % spelled))
    assert "739251" not in str(left)
