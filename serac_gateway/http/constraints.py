"""What a value had to be, out of msgspec's types and messages, for errors that say so."""

from __future__ import annotations

import re

import msgspec

_LIMIT = re.compile(r"[<>]=? (-?\d+)")


def limit_in(message: str) -> int | None:
    """The limit that a msgspec message names: 5 in "Expected `int` <= 5"; None if it names none."""
    found = _LIMIT.search(message)
    return int(found[1]) if found else None


def allowed_values(annotation: object, field: str | None = None) -> list[str]:
    """The values of an enum, or of the enum `field` of a record; empty for anything else."""
    kind = msgspec.inspect.type_info(annotation)
    if isinstance(kind, msgspec.inspect.StructType):
        kind = next((one.type for one in kind.fields if one.encode_name == field), msgspec.inspect.AnyType())
    kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    return [
        str(member.value) for one in kinds if isinstance(one, msgspec.inspect.EnumType) for member in one.cls
    ]
