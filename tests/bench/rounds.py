"""What the benchmarks share: interleaved rounds, and a ratio told with its spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

ROUNDS = 3


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Runs every side once a round, in turn, so that what else the machine does meets all of them; rates by side."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            rates[name].append(sides[name]())
    return rates


def tell(rates: Mapping[str, list[float]], *, baseline: str, unit: str) -> None:
    """Prints each side's median rate with its spread, and its ratio to the baseline of the same round."""
    for name, found in rates.items():
        ratios = [mine / base for mine, base in zip(found, rates[baseline], strict=True)]
        ratio = "baseline" if name == baseline else f"ratio {statistics.median(ratios):.2f} ({_span(ratios, '.2f')})"
        print(f"{name:<34} {statistics.median(found):>11,.0f} {unit} ({_span(found, ',.0f')})  {ratio}", flush=True)


def _span(values: list[float], form: str) -> str:
    return f"{min(values):{form}}-{max(values):{form}}"
