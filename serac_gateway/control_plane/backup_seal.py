"""The seal of a backup: an HMAC-SHA256 over all of its lines, under a key that no client of the API has.

The chain of the log is arithmetic that anybody can do anew. The seal shows that a gateway with the key wrote
the backup and that nothing in it was changed since.

The key is SERAC_BACKUP_KEY; else it is derived from SERAC_KEY_PEPPER; else a random one lies in the store,
which then has to outlive the backup. Set the variable to restore into another store.
"""

from __future__ import annotations

import hashlib
import hmac

from serac_gateway.errors import ConfigError

MIN_KEY_CHARS = 32

_PURPOSE = b"serac_gateway backup"


def configured_backup_key(text: str | None, *, pepper: bytes) -> bytes | None:
    """The key from SERAC_BACKUP_KEY or the pepper of the API keys; None: the store's own counts.

    Raises:
        ConfigError: It is too short to be worth anything.
    """
    if not text:
        return hmac.digest(pepper, _PURPOSE, "sha256") if pepper else None
    if len(text) < MIN_KEY_CHARS:
        raise ConfigError(
            f"SERAC_BACKUP_KEY has {len(text)} characters and needs {MIN_KEY_CHARS} or more; make one with"
            " `openssl rand -hex 32`, and keep it where the backups' readers cannot read it"
        )
    return hmac.digest(text.encode("utf-8", "surrogateescape"), _PURPOSE, "sha256")


def backup_key_id(key: bytes) -> str:
    """A short name for a key, from which it cannot be computed."""
    return hmac.digest(key, b"which backup key", "sha256").hex()[:16]


class Seal:
    """The seal of the lines that were added so far."""

    def __init__(self, key: bytes) -> None:
        self._hmac = hmac.new(key, digestmod=hashlib.sha256)

    def add(self, line: bytes) -> None:
        """Add the next line, given without its end."""
        self._hmac.update(line + b"\n")

    def hexdigest(self) -> str:
        """The seal: 64 hexadecimal digits."""
        return self._hmac.hexdigest()
