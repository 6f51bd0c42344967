"""The throttle as a list of every kept moment, asked one by one. Slow, independent, over plain JSON values."""

from __future__ import annotations

import math
from typing import Any

REMEMBERED_STRETCHES = 8
OFFSET_MS_MAX = 86_400_000


class Throttle:
    """`gaps` maps a name (a type; `3.<source>` for another increment of rrweb) to its gap in ms."""

    def __init__(self, gaps: dict[str, int]) -> None:
        self.gaps = {"mousemove": 50, "scroll": 100, **gaps}
        self.kept: dict[tuple[str, str], list[int]] = {}

    def batch(self, window: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The events that are kept, in order of time, with the positions that are kept."""
        left = []
        for event in sorted(events, key=lambda each: each["timestamp"]):
            name, data = name_of(event), event["data"]
            if name == "positions":
                places = [each for each in data["positions"] if self.fits(window, "mousemove", moment(event, each))]
                if not places and data["positions"]:
                    continue
                left.append({**event, "data": {**data, "positions": places}})
            elif name not in self.gaps or self.fits(window, name, event["timestamp"]):
                left.append(event)
        return left

    def fits(self, window: str, name: str, at: int) -> bool:
        times, gap = self.kept.setdefault((window, name), []), self.gaps[name]
        if any(abs(at - each) < gap for each in times):
            return False
        runs: list[list[int]] = []
        for each in sorted([*times, at]):
            if runs and each - runs[-1][-1] < 2 * gap:
                runs[-1].append(each)
            else:
                runs.append([each])
        self.kept[window, name] = [each for run in runs[-REMEMBERED_STRETCHES:] for each in run]
        return True


def name_of(event: dict[str, Any]) -> str:
    kind, data = event["type"], event["data"]
    if isinstance(kind, str):
        return f"a client's own {kind}" if kind.isdigit() else kind
    if kind != 3:
        return str(kind)
    source = data.get("source") if isinstance(data, dict) else None
    if type(source) is not int:
        return "3"
    if source in (1, 6, 12):
        return "positions" if isinstance(data.get("positions"), list) else "3"
    return "scroll" if source == 3 else f"3.{source}"


def moment(event: dict[str, Any], place: Any) -> int:
    offset = place.get("timeOffset") if isinstance(place, dict) else None
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not abs(offset) <= OFFSET_MS_MAX:
        return event["timestamp"]
    return event["timestamp"] + math.floor(offset)
