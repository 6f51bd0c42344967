"""One running front a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.settings import Settings
from tests.integration.capture.front import Front, own_topics, running


@pytest.fixture(scope="module")
def front(broker: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with running(own_topics(broker.kafka_port, tmp_path_factory.mktemp("front"))) as started:
        yield started
