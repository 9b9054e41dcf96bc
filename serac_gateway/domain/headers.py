"""HTTP headers as they travel: raw bytes, in order, with duplicates."""

from __future__ import annotations

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]
"""In order, duplicates kept, names in lower case (as ASGI has them)."""
