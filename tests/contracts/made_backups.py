"""Backups as a stranger makes them: every hash is right, since the chain has no key, and no record is."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np

from serac_gateway.control_plane.backup import BackupHead, BackupHeader, BackupVectors, Piece, sealed_head
from serac_gateway.control_plane.backup_seal import Seal, backup_key_id
from serac_gateway.domain.edits import Edit
from serac_gateway.domain.vectors import vectors_to_bytes
from serac_gateway.stores.log_chain import (
    LogEvidence,
    LogHead,
    VersionRecord,
    chained,
    empty_head,
    fields_digest,
)
from serac_gateway.stores.records import Action


class StrangersBackup:
    """A backup of `namespace` that verifies."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.pieces: list[Piece] = []
        self._head = empty_head(namespace)

    def entry(
        self, record: Edit | str, *, edit_id: str, version: int = 1, action: str = Action.ADD
    ) -> StrangersBackup:
        """Log `record` as that version of that edit, whatever it says itself."""
        text = record if isinstance(record, str) else msgspec.json.encode(record).decode()
        stored = VersionRecord(salt="0" * 32, record=text)
        log_id = f"{1_700_000_000_000 + self._head.length}-0"
        fields = fields_digest(
            action=action,
            edit_id=edit_id,
            version=version,
            content_digest=stored.content_digest,
            author=None,
        )
        digest = chained(self._head.digest, fields, log_id)
        self.pieces.append(
            LogEvidence(
                log_id=log_id,
                action=action,
                edit_id=edit_id,
                version=version,
                author=None,
                content_digest=stored.content_digest,
                previous_digest=self._head.digest,
                digest=digest,
                stored=stored,
            )
        )
        self._head = LogHead(log_id=log_id, digest=digest, length=self._head.length + 1)
        return self

    def vectors(
        self, edit_id: str, rows: int, *, width: int = 8, fingerprint: str = "stranger", value: float = 1.0
    ) -> StrangersBackup:
        """Vectors of that many rows: unit vectors along the first axis, times `value`."""
        vectors_FD = np.zeros((rows, width), dtype=np.float32)
        vectors_FD[:, 0] = value
        self.pieces.append(
            BackupVectors(
                edit_id=edit_id, fingerprint=fingerprint, width=width, data=vectors_to_bytes(vectors_FD)
            )
        )
        return self

    def lines(self, key: bytes | None = None) -> list[bytes]:
        """The backup's lines, sealed if there is a key."""
        header = BackupHeader(
            format=2,
            namespace=self.namespace,
            made_at=datetime.now(UTC),
            key_id=None if key is None else backup_key_id(key),
        )
        lines = [msgspec.json.encode(piece) for piece in (header, *self.pieces)]
        seal = None if key is None else Seal(key)
        if seal is not None:
            for line in lines:
                seal.add(line)
            seal.add(sealed_head(self._head))
        head = BackupHead(
            **msgspec.structs.asdict(self._head), seal=None if seal is None else seal.hexdigest()
        )
        return [*lines, msgspec.json.encode(head)]
