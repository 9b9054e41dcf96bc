"""How measuring tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and how much there is."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
