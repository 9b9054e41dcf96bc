"""A complete response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A complete response."""

    status: int
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    raw: bytes

    def json(self) -> Any:  # noqa: ANN401 - decoded JSON
        """The body, decoded."""
        return msgspec.json.decode(self.raw)
