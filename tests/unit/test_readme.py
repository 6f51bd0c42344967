"""The README's settings table is the one of the code."""

from __future__ import annotations

from pathlib import Path

from pipeline import settings

README = Path(__file__).parents[2] / "README.md"


def rendered() -> str:
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for row in settings.table(settings.load({})):
        default = str(row.default).replace(str(Path.home()), "~")
        unit = f" {row.unit}" if row.unit and default else ""
        lines.append(
            f"| `{row.name}` | {f'`{default}`{unit}' if default else ''} | {row.help.replace('|', chr(92) + '|')} |"
        )
    return "\n".join(lines)


def test_every_setting_is_in_the_readme_as_it_is() -> None:
    assert rendered() in README.read_text(), f"put this table into the README:\n{rendered()}"
