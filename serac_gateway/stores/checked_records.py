"""What is read from a store or a backup, checked as if a stranger had written it.

A `ValueError` of this module says what is wrong in a few words and without content, so it may be logged.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from serac_gateway.domain.edits import Edit, EditKind, EditState, check_edit, forms, tombstone
from serac_gateway.domain.provenance import MAX_NOTE_CHARS, OF_ONE_VERSION
from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import DamagedRecordError, InvalidRequestError
from serac_gateway.stores.records import FormVectors

MAX_WIDTH = 65_536
"""Of a vector."""
MAX_FINGERPRINT_CHARS = 500
_NORM_TOLERANCE = 1e-3


class DamagedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An edit of which something stored cannot be used."""

    edit_id: str
    fault: str
    """What is wrong, in a few words without content."""
    kind: EditKind | None = None
    """Of the newest version that can be read; None: none can."""
    usable: bool = False
    """Whether the edit is read all the same, from another place where it is stored."""


OnDamaged = Callable[[DamagedRecord], None]
"""Called with each damaged record of a batch that is read; it may raise to end the reading."""


def refuse_damaged(namespace: str) -> OnDamaged:
    """An `OnDamaged` that raises `damaged` for what cannot be used."""

    def refuse(record: DamagedRecord) -> None:
        if not record.usable:
            raise damaged(namespace, record.edit_id, record.fault)

    return refuse


def damaged(namespace: str, edit_id: str, fault: str) -> DamagedRecordError:
    """The error of a call that needs a damaged record."""
    return DamagedRecordError(
        f"what is stored of edit {edit_id!r} in namespace {namespace!r} is damaged: {fault}; `serac store"
        " repair` mends it",
        field="id",
        details={"value": edit_id},
    )


def checked_edit(record: bytes | str, *, namespace: str, edit_id: str, version: int | None = None) -> Edit:
    """The edit whose JSON is stored at that place; `version` None: whichever version it is.

    Raises:
        ValueError: It is no edit, belongs to another place, or breaks a rule of edits.
    """
    try:
        edit = msgspec.json.decode(record, type=Edit)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"it is no edit: {exc}") from exc
    if (edit.namespace, edit.id) != (namespace, edit_id):
        raise ValueError(f"it is of edit {edit.id[:80]!r} in namespace {edit.namespace[:80]!r}")
    if edit.version != version if version is not None else edit.version < 1:
        raise ValueError(f"it is of version {edit.version}")
    if edit.state is EditState.PURGED:
        _check_tombstone(edit)
        return edit
    try:
        return check_edit(edit)
    except InvalidRequestError as error:
        limit = error.details.get("limit")
        known = f": the limit is {limit:,}" if isinstance(limit, int) else ""
        raise ValueError(f"its {error.field} is not allowed{known}") from error


def vectors_fault(vectors: FormVectors, edit: Edit) -> str | None:
    """Why `vectors` cannot be those of the forms of `edit`; None: they can."""
    expected = 0 if edit.state is EditState.PURGED else len(forms(edit))
    return array_fault(vectors.vectors_FD, expected)


def array_fault(vectors_FD: Vectors, expected: int) -> str | None:
    """Why an array is not `expected` unit vectors; None: it is."""
    if len(vectors_FD) != expected:
        return f"it has {expected} forms and {len(vectors_FD)} vectors"
    if not expected:
        return None
    if vectors_FD.ndim != 2 or not 1 <= vectors_FD.shape[1] <= MAX_WIDTH:
        return f"its vectors have shape {vectors_FD.shape}"
    with np.errstate(all="ignore"):
        squared_F = np.einsum("fd,fd->f", vectors_FD, vectors_FD)
    # Written so that NaN, with which every comparison is false, does not pass.
    if not np.all(np.abs(squared_F - 1) < 2 * _NORM_TOLERANCE):
        return "a vector is not of unit length"
    return None


def _check_tombstone(edit: Edit) -> None:
    kept = {name: getattr(edit, name) for name in OF_ONE_VERSION}
    bare = msgspec.structs.replace(tombstone(edit), **kept)
    if bare != edit:
        raise ValueError("it is purged and has content")
    if any(len(note or "") > MAX_NOTE_CHARS for note in kept.values()):
        raise ValueError(f"its author, reason or ticket is longer than {MAX_NOTE_CHARS} characters")
