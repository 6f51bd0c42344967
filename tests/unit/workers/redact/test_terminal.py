"""`replay redact` and `replay rules check`: kinds and paths, never values."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from pipeline.cli import main

RECORDING = {
    "sessionId": "s", "userId": "u", "startTime": 1, "metadata": {},
    "events": [{"type": "console", "timestamp": 1, "data": {"args": ["jane@example.test", {"pin": "hunter2"}], "a@b.io": 1}}],
}  # fmt: skip


def test_explain_tells_paths_and_kinds_and_no_value() -> None:
    done = CliRunner().invoke(main, ["redact", "--explain"], input=json.dumps(RECORDING))
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "$.events[0].data.args[0]\temail.replace",
        "$.events[0].data.args[1].pin\tby its key or field",
    ]
    assert done.stderr.splitlines() == ["email.replace\t2", "key.replace\t1"]
    assert not any(secret in done.output for secret in ("jane", "hunter2", "a@b.io"))


def test_recording_comes_out_redacted() -> None:
    done = CliRunner().invoke(main, ["redact"], input=json.dumps(RECORDING))
    data = json.loads(done.stdout)["events"][0]["data"]
    assert data == {"args": ["[REDACTED]", {"pin": "[REDACTED]"}], "[REDACTED]": 1}


def test_input_that_is_no_recording_is_refused() -> None:
    assert CliRunner().invoke(main, ["redact"], input="{").exit_code == 1


def test_check_tells_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("methods: {email: hash}")
    assert CliRunner().invoke(main, ["rules", "check", str(file)]).exit_code == 0
    file.write_text("methods:\n  email: shred")
    done = CliRunner().invoke(main, ["rules", "check", str(file)])
    assert done.exit_code == 1
    assert "line 2" in done.output
