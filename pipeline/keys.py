"""Keys: who may write, read and administer which tenant. A JSON file that `replay keys` edits and the servers reread.

    {"tenants": {"default": {"write": ["…"], "read": ["…"], "admin": ["…"]}}}

The file is made with mode 0600 and replaced whole, so a reader sees the old or the new one. A server looks at its
identity (device, inode, size, time) at each request: a key is honoured when the command that added it returns.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigurationError, MalformedError
from pipeline.model.batches import is_id

Role = Literal["write", "read", "admin"]
ROLES: tuple[Role, ...] = ("write", "read", "admin")
DEFAULT_TENANT = "default"
KEY_CHARS_MAX = 200


@dataclass(frozen=True)
class TenantKeys:
    """The first key of each role of one tenant: what scripts are given."""

    tenant: str
    write: str
    read: str
    admin: str


class KeyFile:
    """The keys of all tenants, reread when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._tenants: dict[str, dict[Role, list[str]]] = {}

    def tenant_of(self, key: str, role: Role) -> str | None:
        """The tenant that `key` opens for `role`; an admin key also reads. None where it opens nothing."""
        self._refresh()
        roles: tuple[Role, ...] = ("read", "admin") if role == "read" else (role,)
        given = key.encode()
        found = None
        for tenant, keys in self._tenants.items():
            for each in roles:
                for known in keys.get(each, ()):
                    if hmac.compare_digest(given, known.encode()):  # all are compared: time tells nothing
                        found = tenant
        return found

    def first(self, tenant: str = DEFAULT_TENANT) -> TenantKeys:
        """Raises ConfigurationError where the file or the tenant is missing."""
        self._refresh()
        keys = self._tenants.get(tenant)
        if keys is None or any(not keys.get(role) for role in ROLES):
            raise ConfigurationError(
                f"{self._path} has no keys for tenant {tenant}: nothing was started in this home yet; `replay up` makes them"
            )
        return TenantKeys(tenant, *(keys[role][0] for role in ROLES))

    def ensure(self, tenant: str = DEFAULT_TENANT) -> TenantKeys:
        """Makes random keys for what is missing, then `first`."""
        self._refresh()
        keys = self._tenants.setdefault(tenant, {})
        missing = [role for role in ROLES if not keys.get(role)]
        for role in missing:
            keys[role] = [f"{role}_{secrets.token_urlsafe(24)}"]
        if missing:
            self._write()
        return self.first(tenant)

    def add(self, role: Role, key: str, tenant: str = DEFAULT_TENANT) -> None:
        """Adds a brought key. Raises MalformedError where it belongs to another tenant or cannot be a key."""
        if not 8 <= len(key) <= KEY_CHARS_MAX or not key.isascii() or not key.isprintable() or " " in key:
            raise MalformedError(f"a key has 8 to {KEY_CHARS_MAX} printable ASCII characters without a space")
        if not is_id(tenant):
            raise MalformedError("a tenant has 1 to 128 characters of A-Z a-z 0-9 _ . : -")
        owner = self.tenant_of(key, role)
        if owner is not None and owner != tenant:
            raise MalformedError(f"this key already belongs to tenant {owner}")
        keys = self._tenants.setdefault(tenant, {}).setdefault(role, [])
        if key not in keys:
            keys.append(key)
            self._write()

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._seen, self._tenants = None, {}
            return
        identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if identity == self._seen:
            return
        try:
            self._tenants = json.loads(self._path.read_text())["tenants"]
        except (ValueError, KeyError, TypeError):
            raise ConfigurationError(f'{self._path} is not a key file: {{"tenants": {{…}}}} is expected') from None
        self._seen = identity

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".keys-")  # mkstemp: mode 0600
        with os.fdopen(handle, "w") as out:
            json.dump({"tenants": self._tenants}, out, indent=2)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(self._path)
