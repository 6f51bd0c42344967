"""Dead letters on a real broker: listed, shown, sent back, purged."""

from __future__ import annotations

import pytest

from pipeline.errors import MalformedError, NotFoundError
from pipeline.load.arrivals import read_topic
from pipeline.model.batches import DeadLetter
from pipeline.settings import Settings
from pipeline.topics import clients, dead_letters
from pipeline.topics.catalogue import catalogue
from pipeline.topics.codec import Codecs, PinnedIds


def dead(number: int, *, stage: str = "worker", reason: str = "bad_payload") -> DeadLetter:
    return DeadLetter(
        stage=stage,
        reason=reason,
        detail="the payload is not NDJSON events",
        epoch=1,
        source_topic="replay.batches",
        source_partition=2,
        source_offset=number,
        source_at=1_795_448_983_032,
        event_count=3,
        key=f"acme:s{number}".encode(),
        value=f"raw {number}".encode(),
    )


def fill(settings: Settings, *letters: DeadLetter) -> None:
    topics = catalogue(settings)
    codec = Codecs(topics, PinnedIds(settings.topic_prefix)).dead_letters
    producer = clients.producer(settings, client_id="test")
    for each in letters:
        producer.produce(topics.dead_letters.name, codec.encode(each), each.key, 0)
    assert producer.flush(30) == 0


def test_letters_come_oldest_first_and_can_be_chosen_by_reason(with_topics: Settings) -> None:
    fill(with_topics, dead(7), dead(8, reason="not_avro"), dead(9))
    found = list(dead_letters.letters(with_topics))
    assert [(each.offset, each.letter) for each in found] == [
        (0, dead(7)),
        (1, dead(8, reason="not_avro")),
        (2, dead(9)),
    ]
    assert [each.offset for each in dead_letters.letters(with_topics, reason="not_avro")] == [1]
    assert dead_letters.letter(with_topics, 2).letter == dead(9)
    with pytest.raises(NotFoundError, match="no dead letter at offset 3"):
        dead_letters.letter(with_topics, 3)


def test_a_retried_letter_is_on_the_raw_topic_as_it_was_sent(with_topics: Settings) -> None:
    fill(with_topics, dead(7), dead(8))
    assert dead_letters.retry(with_topics, dead_letters.letters(with_topics)) == 2
    again = list(read_topic(with_topics, catalogue(with_topics).batches))
    assert sorted((message.key(), message.value()) for message in again) == [
        (b"acme:s7", b"raw 7"),
        (b"acme:s8", b"raw 8"),
    ]
    assert len(list(dead_letters.letters(with_topics))) == 2


def test_a_sinks_letter_does_not_go_through_the_front(with_topics: Settings) -> None:
    fill(with_topics, dead(7, stage="warehouse"))
    with pytest.raises(MalformedError, match="warehouse sink's"):
        dead_letters.retry(with_topics, dead_letters.letters(with_topics))


def test_purged_letters_are_gone_and_later_ones_stay(with_topics: Settings) -> None:
    fill(with_topics, dead(7), dead(8), dead(9))
    assert dead_letters.purge(with_topics, through=1) == 2
    assert [each.offset for each in dead_letters.letters(with_topics)] == [2]
    assert dead_letters.purge(with_topics) == 3
    assert list(dead_letters.letters(with_topics)) == []
    assert dead_letters.purge(with_topics, through=1) == 3
