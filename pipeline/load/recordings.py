"""The bundled recordings, and the same ones under another id and at another time."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import msgspec
import zstandard

from pipeline.model.events import SessionEvent, SessionRecording

_FOLDER = "recordings"
_SUFFIX = ".json.zst"
RECORDING_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class Bundled:
    """One bundled recording: its file's stem and itself."""

    name: str
    recording: SessionRecording

    @property
    def hostile(self) -> bool:
        """Recorded by a client that neither throttles nor redacts."""
        return "hostile" in self.name


def bundled() -> list[Bundled]:
    """All recordings of the bundle, by name."""
    decoder = msgspec.json.Decoder(SessionRecording)
    unpack = zstandard.ZstdDecompressor()
    found = []
    for file in sorted(resources.files("pipeline.load").joinpath(_FOLDER).iterdir(), key=lambda each: each.name):
        if file.name.endswith(_SUFFIX):
            raw = unpack.decompress(file.read_bytes(), max_output_size=RECORDING_BYTES_MAX)
            found.append(Bundled(file.name.removesuffix(_SUFFIX), decoder.decode(raw)))
    return found


def relive(recording: SessionRecording, *, session_id: str, user_id: str, ends_at: int) -> SessionRecording:
    """The same recording under new ids, all times moved so that its last event happens at `ends_at` (ms since 1970)."""
    last = max(event.timestamp for event in recording.events)
    shift = ends_at - last
    return SessionRecording(
        session_id=session_id,
        user_id=user_id,
        start_time=recording.start_time + shift,
        end_time=None if recording.end_time is None else recording.end_time + shift,
        events=[SessionEvent(event.type, event.timestamp + shift, event.data) for event in recording.events],
        metadata=recording.metadata,
    )
