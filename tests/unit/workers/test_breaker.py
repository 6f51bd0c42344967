"""When the line stops instead of writing yet another dead letter."""

from __future__ import annotations

import pytest

from pipeline.workers.breaker import COUNTED, WINDOW_RECORDS, Breaker


def breaker(consecutive_max: int = 3, percent_max: int = 50) -> Breaker:
    return Breaker(consecutive_max=consecutive_max, percent_max=percent_max)


def test_as_many_in_a_row_as_allowed_pass_and_one_more_stops() -> None:
    line = breaker(consecutive_max=3)
    assert [line.why_not("bad_payload") for _ in range(3)] == [None, None, None]
    assert line.why_not("bad_payload") == "more than 3 records in a row cannot be processed, the last for bad_payload"
    assert line.why_not("bad_payload") is not None


def test_a_good_record_in_between_begins_the_row_anew() -> None:
    line = breaker(consecutive_max=2, percent_max=0)
    assert not any(line.why_not(reason) for reason in ["not_avro", "not_avro", None] * 100)


def test_above_the_share_of_the_last_records_it_stops() -> None:
    line = breaker(consecutive_max=0, percent_max=50)
    for number in range(WINDOW_RECORDS):
        assert line.why_not("bad_payload" if number % 2 else None) is None
    assert (
        line.why_not("unexpected")
        == f"101 of the last {WINDOW_RECORDS} records cannot be processed, the last for unexpected"
    )
    assert line.why_not(None) is None


def test_few_records_are_no_share() -> None:
    line = breaker(consecutive_max=0, percent_max=1)
    assert not any(line.why_not("bad_payload") for _ in range(WINDOW_RECORDS))


def test_zero_is_no_limit() -> None:
    line = breaker(consecutive_max=0, percent_max=0)
    assert not any(line.why_not("bad_payload") for _ in range(3 * WINDOW_RECORDS))


@pytest.mark.parametrize("reason", ["too_large", "too_deep"])
def test_what_a_client_can_cause_by_a_legal_request_never_stops_the_line(reason: str) -> None:
    assert reason not in COUNTED
    line = breaker(consecutive_max=1, percent_max=1)
    assert not any(line.why_not(reason) for _ in range(3 * WINDOW_RECORDS))
