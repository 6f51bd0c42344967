"""Schema ids: from a Confluent-compatible registry where REPLAY_SCHEMA_REGISTRY_URL names one, else from the pinned table."""

from __future__ import annotations

import warnings

from pipeline.settings import Settings
from pipeline.topics.codec import PinnedIds, SchemaIds


def schema_ids(settings: Settings) -> SchemaIds:
    """Raises ConfigurationError where the registry's address is none."""
    if not settings.schema_registry_url:
        return PinnedIds(settings.topic_prefix)
    # Imported when asked for: a third of a second of OAuth and HTTP libraries, one of which warns of the other each time.
    with warnings.catch_warnings(record=True):
        from pipeline.topics import registered
    return registered.RegistryIds(registered.client(settings.schema_registry_url))
