"""How resources that take long to open report what they are doing."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is being done at the moment."""

    text: str
    done: float | None = None
    """The share of it that is done, 0..1; None: unknown."""


OnStep = Callable[[Step], None]
"""Receives the steps of a resource in order; a step may come again with more of it done. For any thread."""

OnProgress = Callable[[str, Step], None]
"""Receives the name of the resource that is being opened, and its step. For any thread."""
