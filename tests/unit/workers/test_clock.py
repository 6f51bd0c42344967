"""Clients' clocks: how a session is shifted, what age an event may have, and what becomes of those beyond."""

from __future__ import annotations

import json

import pytest

from pipeline.errors import PoisonError
from pipeline.model.batches import RecorderBatch
from pipeline.workers.chain import Outcome, step
from pipeline.workers.rules import Rules
from tests.unit.workers.flow import HOUR_MS, MINUTE_MS, T0, Flow, batch, line, place

DAY_MS = 24 * HOUR_MS


def times_of(outcome: Outcome) -> list[int]:
    return [json.loads(each)["timestamp"] - T0 for each in outcome.clean.payload.splitlines()]


@pytest.mark.parametrize(
    ("behind_ms", "shifted_ms"),
    [(0, 0), (5 * MINUTE_MS - 1, 0), (5 * MINUTE_MS, 5 * MINUTE_MS), (7 * MINUTE_MS, 5 * MINUTE_MS),
     (8 * MINUTE_MS, 10 * MINUTE_MS), (HOUR_MS + 61_000, HOUR_MS), (40 * 365 * DAY_MS, 40 * 365 * DAY_MS)],
)  # fmt: skip
@pytest.mark.parametrize("sign", [1, -1], ids=["behind", "ahead"])
def test_session_is_shifted_by_the_nearest_five_minutes_from_five_minutes_up(
    behind_ms: int, shifted_ms: int, sign: int
) -> None:
    if sign < 0 and behind_ms > 365 * DAY_MS:
        return  # after 2100 is no time of a clock
    flow, client_ms = Flow(), T0 - sign * behind_ms
    outcome = flow.clicks("b", client_ms - 1_000, client_ms, sent_at=client_ms)
    assert outcome.clean.clock_correction_ms == sign * shifted_ms
    assert times_of(outcome) == [sign * (shifted_ms - behind_ms) + each for each in (-1_000, 0)]
    assert outcome.sessions[0].ended_at - T0 == sign * (shifted_ms - behind_ms)


def test_what_the_client_said_is_kept_beside_the_correction() -> None:
    client_ms = T0 - 3 * HOUR_MS
    clean = Flow().clicks("b", client_ms, sent_at=client_ms + 5).clean
    assert clean.sent_at == client_ms + 5
    assert clean.first_event_at - clean.clock_correction_ms == client_ms


@pytest.mark.parametrize("later_skew_ms", [0, -2 * HOUR_MS])
def test_first_batch_decides_for_all_that_follow(later_skew_ms: int) -> None:
    flow, client_ms = Flow(), T0 - HOUR_MS
    flow.clicks("b", client_ms, sent_at=client_ms)
    outcome = flow.clicks("c", client_ms + 10, sent_at=T0 - later_skew_ms)
    assert (outcome.clean.clock_correction_ms, times_of(outcome)) == (HOUR_MS, [10])


def test_right_first_clock_is_a_decision_too() -> None:
    flow = Flow()
    flow.clicks("b", T0)
    outcome = flow.clicks("c", T0 + 10, sent_at=T0 - HOUR_MS)
    assert (outcome.clean.clock_correction_ms, times_of(outcome)) == (0, [10])


def test_first_batch_without_events_decides() -> None:
    flow, client_ms = Flow(), T0 - HOUR_MS
    flow.send(batch("hello", sent_at=client_ms))
    assert times_of(flow.clicks("b", client_ms, sent_at=T0)) == [0]


def test_session_back_after_its_grace_is_judged_anew() -> None:
    flow, back = Flow(), T0 + 30 * HOUR_MS
    flow.clicks("b", T0 - HOUR_MS, sent_at=T0 - HOUR_MS)
    outcome = flow.send(batch("c", line("click", back), sent_at=back, received_at=back), back)
    assert outcome.clean.clock_correction_ms == 0


@pytest.mark.parametrize("imported_first", [True, False])
def test_imported_recording_is_what_it_is_and_decides_nothing(imported_first: bool) -> None:
    flow, old = Flow(), T0 - 400 * DAY_MS
    found = {}
    for imported in (imported_first, not imported_first):
        at_ms = old if imported else T0 - HOUR_MS
        found[imported] = flow.clicks(f"b{imported}", at_ms, sent_at=at_ms, imported=imported)
    assert (found[True].clean.clock_correction_ms, times_of(found[True])) == (0, [-400 * DAY_MS])
    assert (found[False].clean.clock_correction_ms, times_of(found[False])) == (HOUR_MS, [0])


@pytest.mark.parametrize(
    ("age_ms", "reason"),
    [(7 * DAY_MS, None), (7 * DAY_MS + 1, "too_old"), (-DAY_MS, None), (-DAY_MS - 1, "too_new")],
)
def test_event_of_seven_days_or_a_day_ahead_is_the_last_to_pass(age_ms: int, reason: str | None) -> None:
    one = batch("b", line("click", T0 - age_ms))
    if reason is None:
        assert step(None, one, place(1), Rules()).clean.event_count == 1
        return
    with pytest.raises(PoisonError) as found:
        step(None, one, place(1), Rules())
    assert found.value.reason == reason


def test_ages_are_judged_by_the_corrected_clock_at_stream_time() -> None:
    client_ms = T0 - 30 * DAY_MS
    assert Flow().clicks("b", client_ms, sent_at=client_ms).clean.event_count == 1
    with pytest.raises(PoisonError):
        step(None, batch("b", line("click", T0)), place(1, T0 + 8 * DAY_MS), Rules())


def test_limits_are_settings() -> None:
    rules = Rules(event_age_max_ms=10, event_ahead_max_ms=5)
    outcome = Flow(rules).clicks("b", *(T0 + each for each in (-11, -10, 0, 5, 6)))
    assert times_of(outcome) == [-10, 0, 5]


def mixed() -> RecorderBatch:
    lines = [line("click", T0 - 8 * DAY_MS, 1), line("click", T0, 2), line("click", T0 + 2 * DAY_MS, 3)]
    skewed = [line("click", json.loads(each)["timestamp"] - HOUR_MS, json.loads(each)["data"]) for each in lines]
    return batch("b", *skewed, sent_at=T0 - HOUR_MS, final=True, user_id="u")


def test_events_outside_leave_their_batch_for_the_dead_letters_and_the_others_go_on() -> None:
    outcome = step(None, mixed(), place(7), Rules(epoch=2))
    clean, refused = outcome.clean, outcome.refused
    assert (clean.kind, clean.received_events, clean.event_count, clean.dead_lettered) == ("batch", 3, 1, 2)
    assert times_of(outcome) == [0]
    assert refused is not None
    assert (refused.reason, refused.batch.event_count, refused.batch.final) == ("too_old", 2, False)
    lines = [json.loads(each) for each in refused.batch.payload.splitlines()]
    assert [(each["timestamp"] - T0, each["data"]) for each in lines] == [
        (-8 * DAY_MS - HOUR_MS, 1),
        (2 * DAY_MS - HOUR_MS, 3),
    ], "as the client sent them"
    assert outcome.sessions[0].events == 1


def test_refused_events_retried_under_wider_limits_are_stored_once() -> None:
    flow = Flow()
    refused = flow.send(mixed()).refused
    assert refused is not None
    flow.rules = Rules(event_age_max_ms=30 * DAY_MS, event_ahead_max_ms=30 * DAY_MS)
    assert [flow.send(refused.batch).clean.event_count for _ in range(2)] == [2, 0]
    assert flow.send(mixed()).clean.repeated == 3


@pytest.mark.parametrize("name", ["sent_at", "received_at"])
@pytest.mark.parametrize("at_ms", [-1, 4_102_444_800_001])
def test_clock_beyond_all_clocks_is_no_envelope(name: str, at_ms: int) -> None:
    with pytest.raises(PoisonError) as found:
        step(None, batch("b", line("click", T0), **{name: at_ms}), place(1), Rules())
    assert found.value.reason == "bad_envelope"
