"""Classes, and whose is which."""

from __future__ import annotations

import pytest

from pipeline import settings
from pipeline.errors import ConfigurationError
from pipeline.model.retention import days, parse_classes
from pipeline.workers.reference import RawRecord, reference_run
from pipeline.workers.rules import rules
from tests.unit.workers.flow import T0, batch, line
from tests.unit.workers.test_erase import CODEC


@pytest.mark.parametrize(("text", "wanted"), [("30d", 30), ("90d", 90), ("1y", 365), ("5y", 1825), ("400d", 400)])
def test_a_class_stands_for_days(text: str, wanted: int) -> None:
    assert days(text) == wanted


@pytest.mark.parametrize("text", ["", "0d", "30", "d", "1w", "-1d", "30d ", "pinned", "10000d"])
def test_what_is_no_class_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        days(text)


def test_tenants_have_classes_of_their_own() -> None:
    assert parse_classes(" acme=1y, rival=90d,") == {"acme": "1y", "rival": "90d"}
    assert parse_classes("") == {}


@pytest.mark.parametrize("text", ["acme", "acme=", "=1y", "acme=1w", "acme=1y,acme=1y", "a b=1y"])
def test_classes_that_are_none_stop_the_start(text: str) -> None:
    with pytest.raises(ConfigurationError):
        rules(settings.load({"REPLAY_RETENTION_CLASSES": text}))


def test_everything_of_a_tenant_carries_its_class() -> None:
    ours = rules(settings.load({"REPLAY_RETENTION_CLASS": "30d", "REPLAY_RETENTION_CLASSES": "acme=1y"}))
    records = [
        RawRecord("replay.batches", 0, n, T0, b"", CODEC.encode(batch(f"b{n}", line("click", T0), tenant=tenant)))
        for n, tenant in enumerate(["acme", "rival"])
    ]
    for outcome, wanted in zip(reference_run(records, CODEC, ours), ["1y", "30d"], strict=True):
        assert outcome.clean.retention == wanted
        assert [each.retention for each in outcome.sessions] == [wanted]
