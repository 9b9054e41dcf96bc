"""How parts that take their time to open tell what they are doing."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, str], None]
"""Told the part that is being opened, and what it is doing."""
