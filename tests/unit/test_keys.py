"""Who may do what, and when a key is honoured."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipeline.errors import ConfigurationError, MalformedError
from pipeline.keys import KeyFile


def test_first_start_makes_random_keys_that_stay(tmp_path: Path) -> None:
    first = KeyFile(tmp_path / "keys.json").ensure()
    assert KeyFile(tmp_path / "keys.json").ensure() == first
    assert KeyFile(tmp_path / "other.json").ensure().write != first.write
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_key_opens_its_role_only_and_admin_reads_too(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    keys = file.ensure()
    assert file.tenant_of(keys.write, "write") == "default"
    assert file.tenant_of(keys.write, "read") is None
    assert file.tenant_of(keys.admin, "read") == "default"
    assert file.tenant_of(keys.read, "admin") is None
    assert file.tenant_of("", "write") is None


def test_added_key_is_honoured_by_a_server_that_runs(tmp_path: Path) -> None:
    server = KeyFile(tmp_path / "keys.json")
    server.ensure()
    KeyFile(tmp_path / "keys.json").add("write", "phc_brought_key", "acme")
    assert server.tenant_of("phc_brought_key", "write") == "acme"


def test_one_key_cannot_open_two_tenants(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add("write", "phc_brought_key", "acme")
    with pytest.raises(MalformedError, match="already belongs to tenant acme"):
        file.add("write", "phc_brought_key", "other")


def test_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"keys\.json is not a key file"):
        KeyFile(tmp_path / "keys.json").tenant_of("x", "write")
