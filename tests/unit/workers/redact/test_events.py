"""A batch's events: typed values, form fields, what hides, what stays."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest

from pipeline.load.recordings import bundled
from pipeline.model.events import SessionEvent
from pipeline.workers.redact.events import Redactor
from pipeline.workers.redact.rules import BUILT_IN
from pipeline.workers.redact.typed import FIELDS_MAX, NODES_MAX, Typed


def cleaned(*events: tuple[str | int, Any], typed: Typed | None = None) -> tuple[list[Any], Redactor, Counter[str]]:
    counts: Counter[str] = Counter()
    redactor = Redactor(BUILT_IN, typed or Typed(), counts)
    raw = [
        SessionEvent(kind, at, msgspec.Raw(data if isinstance(data, bytes) else json.dumps(data).encode()))
        for at, (kind, data) in enumerate(events)
    ]
    return [json.loads(bytes(each.data)) for each in redactor.clean(raw)], redactor, counts


def typing(target: str, value: str, kind: str = "text") -> tuple[str, Any]:
    return "input", {"target": target, "value": value, "tagName": "INPUT", "inputType": kind}


CLICK = ("click", {"x": 1, "y": 1})


@pytest.mark.parametrize("kind", ["password", "PASSWORD", " password "])
@pytest.mark.parametrize("value", ["hunter2", "h", " ", 0, ["h"], {"a": "h"}])
def test_value_of_a_password_input_is_replaced(kind: str, value: Any) -> None:
    (out, _), _, counts = cleaned(("input", {"target": "#x", "value": value, "inputType": kind}), CLICK)
    assert out["value"] == "[REDACTED]"
    assert counts == {"password.replace": 1}


def test_no_prefix_of_what_a_detector_knows_at_its_end_is_left() -> None:
    typed = [typing("#contact", "jane@example.test"[:end]) for end in range(1, 18)]
    out, redactor, _ = cleaned(*typed, CLICK)
    assert [each["value"] for each in out[:-1]] == ["*" * end for end in range(1, 18)]
    (later, _), _, _ = cleaned(typing("#contact", "j"), CLICK, typed=redactor.typed)
    assert later["value"] == "*"


def test_digits_of_four_and_more_are_masked_and_fewer_stay() -> None:
    out, _, _ = cleaned(typing("#a", "123"), CLICK, typing("#b", "1234"), CLICK, typing("#c", "12 34"), CLICK)
    assert [each["value"] for each in out[::2]] == ["123", "****", "*****"]


def test_run_still_open_at_the_end_is_masked_and_a_closed_one_stays() -> None:
    out, _, _ = cleaned(typing("#city", "Oslo"), typing("#street", "Lane"))
    assert [each["value"] for each in out] == ["Oslo", "****"]


FIELD = {
    "type": 2,
    "tagName": "input",
    "attributes": {"type": "password", "value": "hunter2"},
    "childNodes": [],
    "id": 7,
}


def rrweb_typing(node: int, text: str) -> tuple[int, Any]:
    return 3, {"source": 5, "text": text, "isChecked": False, "id": node}


@pytest.mark.parametrize(
    "where",
    [(2, {"node": {"type": 0, "childNodes": [FIELD], "id": 1}}),
     (3, {"source": 0, "texts": [], "attributes": [], "removes": [], "adds": [{"parentId": 1, "node": FIELD}]})],
)  # fmt: skip
def test_field_known_from_a_snapshot_or_a_mutation_is_masked_across_batches_with_its_length(where: Any) -> None:
    (seen,), redactor, _ = cleaned(where)
    assert "hunter2" not in json.dumps(seen)
    assert '"value": "*******"' in json.dumps(seen)
    mutation = (3, {"source": 0, "texts": [], "attributes": [{"id": 7, "attributes": {"value": "hunter2"}}]})
    out, _, _ = cleaned(rrweb_typing(7, "hun"), (3, {"source": 2, "type": 6, "id": 7}), mutation, typed=redactor.typed)
    assert out[0]["text"] == "***"
    assert out[2]["attributes"][0]["attributes"]["value"] == "*******"


def test_full_snapshot_gives_ids_anew() -> None:
    _, redactor, _ = cleaned((2, {"node": FIELD}), (2, {"node": {"type": 0, "childNodes": [], "id": 7}}))
    assert redactor.typed == Typed()


def test_state_is_bounded_and_holds_no_typed_text() -> None:
    nodes = [{**FIELD, "id": each} for each in range(NODES_MAX + 1)]
    _, redactor, _ = cleaned((2, {"node": {"type": 0, "childNodes": nodes}}))
    assert redactor.typed.flooded
    fields = [typing(f"#f{each}", "jane@example.test") for each in range(FIELDS_MAX + 1)]
    _, many, _ = cleaned(*fields)
    assert many.typed.flooded
    assert len(many.typed.fields) == FIELDS_MAX
    assert b"jane" not in msgspec.msgpack.encode(many.typed)
    (out, _), _, _ = cleaned(typing("#any", "x"), CLICK, typed=many.typed)
    assert out["value"] == "*"


def test_style_and_geometry_stay() -> None:
    style = {"type": 2, "tagName": "style", "attributes": {"_cssText": ".a{content:'a@b.io'}"}, "id": 2,
             "childNodes": [{"type": 3, "textContent": "@import url(a@b.io)", "id": 3}]}  # fmt: skip
    path = {"type": 2, "tagName": "path", "attributes": {"d": "M234-567-8901 1"}, "childNodes": [], "id": 4}
    node = {"type": 0, "childNodes": [style, path, {"type": 3, "textContent": "x@y.io", "id": 5}], "id": 1}
    (out,), _, _ = cleaned((2, {"node": node}))
    assert out["node"]["childNodes"][:2] == [style, path]
    assert out["node"]["childNodes"][2]["textContent"] == "[REDACTED]"


@pytest.mark.parametrize(
    ("kind", "data"),
    [("input", b'{"inputType":"password","value":"hunter2","value":""}'),
     ("submit", b'{"formData":{"password":"hunter2","password":""}}'),
     ("submit", b'{"formData":{"password":"hunter2"},"formData":{}}'),
     ("submit", b'{"formData":[{"p\\u0061ssword":"hunter2","password":null}]}'),
     ("console", b'{"args":["p\\u0061ssword: hunter2"]}'), ("console", b'{"to\\u006ben":"hunter2"}'),
     ("console", b'{"args":["https:\\/\\/u:hunter2@h.test"]}'), (3, b'{"source":0,"x":{"secret":"hunter2"}}'),
     (5, b'{"tag":"x","payload":{"deep":[[[["password=hunter2"]]]]}}')],
)  # fmt: skip
def test_secret_hides_behind_no_spelling(kind: str | int, data: bytes) -> None:
    (out,), _, _ = cleaned((kind, data))
    assert "hunter2" not in json.dumps(out)


def test_number_that_cannot_be_read_beside_a_secret_stays() -> None:
    event = SessionEvent("console", 0, msgspec.Raw(b'{"password":"hunter2","n":1e999}'))
    (left,) = Redactor(BUILT_IN, Typed(), Counter()).clean([event])
    assert bytes(left.data) == b'{"password":"[REDACTED]","n":1e999}'


@pytest.mark.parametrize("data", [b'{"password":["hunter2"],"n":1e999}', b'{"token":"\\ud800"}'])
def test_event_that_must_be_read_and_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError) as refused:
        cleaned(("console", data))
    assert "hunter2" not in str(refused.value)


def test_typed_text_hides_behind_no_number_that_cannot_be_read() -> None:
    with pytest.raises(msgspec.DecodeError):
        cleaned((3, b'{"type":1e999,"source":5,"text":"hunter2","id":7}'), typed=Typed((7,)))


@pytest.mark.parametrize(
    ("node", "spelled", "is_masked"),
    [(7, b'"id":7', True), (7, b'"id" : \n7', True), (0, b'"id":0', True), (-7, b'"id":-7', True), (7, b'"id":77', False),
     (7, b'"id":-7', False), (7, b'"note":7', False), (2**53 - 1, b'"id":9007199254740991', True)],
)  # fmt: skip
def test_text_of_a_known_node_is_masked_however_its_id_is_spelled(node: int, spelled: bytes, is_masked: bool) -> None:
    (out,), _, _ = cleaned((3, b'{"source":0,"texts":[{%b,"value":"Lane"}]}' % spelled), typed=Typed((node,)))
    assert out["texts"][0]["value"] == ("****" if is_masked else "Lane")


def test_field_that_a_mutation_adds_is_known_though_its_members_names_are_escaped() -> None:
    field = rb'{"type":2,"tag\u004eame":"input","attributes":{"type":"password"},"childNodes":[],"id":7}'
    (_, typed, _), _, _ = cleaned((3, b'{"source":0,"adds":[{"node":%b}]}' % field), rrweb_typing(7, "Lane"), CLICK)
    assert typed["text"] == "****"


@pytest.mark.parametrize("kind", ["[2]", '{"type":2}'])
def test_interaction_whose_type_is_no_number_is_no_click(kind: str) -> None:
    """A click would close the run, and the value, whole then, would stay."""
    (typed, _), _, _ = cleaned(rrweb_typing(7, "Lane"), (3, f'{{"source":2,"type":{kind},"id":7}}'.encode()))
    assert typed["text"] == "****"


def test_nesting_beyond_the_bound_is_refused() -> None:
    with pytest.raises(RecursionError):
        cleaned(
            (
                "console",
                b'{"password":['
                + b'["a@b.io",' * 300
                + b"1"
                + b"]" * 300
                + b', "x@y.io"], "z":'
                + b"[" * 350
                + b"]" * 350
                + b"}",
            )
        )


def test_canaries_of_the_bundled_recordings_are_in_no_event() -> None:
    for name, secrets in {
        "portable-browse-login-checkout": ["CANARY-PW-e0c3a2f1", "canary.user.9034df@", "4111112404712003", "+12025552749"],
        "portable-hostile-browse-login-checkout": ["CANARY-PW-de0ac637", "canary.user.551fd3@", "4111116195778560",
                                                   "+12025557344"],
    }.items():  # fmt: skip
        events = next(each.recording.events for each in bundled() if each.name == name)
        received = b"\n".join(bytes(each.data) for each in events).decode()
        left = b"\n".join(bytes(each.data) for each in Redactor(BUILT_IN, Typed(), Counter()).clean(events)).decode()
        assert [secret for secret in secrets[1:] if secret not in received] == []
        assert [secret for secret in secrets if secret in left] == []
        for secret in secrets[:1] + secrets[2:]:
            assert f'"value":"{secret[:8]}' not in left


@pytest.mark.parametrize(
    ("data", "left"),
    [(b'["a,",4111111111111111,"b"]', ["a,", "[REDACTED]", "b"]), (b'["a:",4111111111111111,"b"]', ["a:", "[REDACTED]", "b"]),
     (b'[" ",",",4111111111111111," ",","]', [" ", ",", "[REDACTED]", " ", ","]),
     (b'{",":",","x":",,4111111111111111"}', {",": ",", "x": ",,[REDACTED]"})],
)  # fmt: skip
def test_signs_of_structure_in_strings_do_not_hide_where_a_number_stands(data: bytes, left: Any) -> None:
    (out,), _, counts = cleaned(("console", data))
    assert out == left
    assert counts == {"card.replace": 1}


def test_field_that_a_mutation_adds_and_changes_is_masked_in_both_places() -> None:
    field = {"type": 2, "tagName": "input", "attributes": {"type": "password"}, "childNodes": [], "id": 7}
    changed = {"id": 7, "attributes": {"value": "hunter2"}}
    mutation = {"source": 0, "adds": [{"parentId": 1, "node": field}], "attributes": [changed]}
    (out,), redactor, _ = cleaned((3, json.dumps(mutation, separators=(",", ":")).encode()))
    assert out["attributes"][0]["attributes"] == {"value": "*******"}
    assert redactor.typed.nodes == (7,)


def test_text_of_a_style_stays_where_the_node_says_so() -> None:
    node = {"type": 3, "textContent": ".a::after { content: 'jane@example.test' }", "isStyle": True, "id": 9}
    (out,), _, counts = cleaned((3, {"source": 0, "texts": [], "adds": [{"parentId": 8, "node": node}]}))
    assert out["adds"][0]["node"] == node
    assert not counts


@pytest.mark.parametrize("plain", [0, 1, 2, 3])
def test_typed_text_hides_behind_no_source_that_is_spelled_twice(plain: int) -> None:
    """A JSON reader believes the last member of a name, however it is spelled."""
    data = b'{"source":%d,"type":0,"\\u0073ource":5,"text":"hunter2","id":7}' % plain
    (out,), _, _ = cleaned((3, data), typed=Typed(nodes=(7,)))
    assert out["text"] == "*" * 7
