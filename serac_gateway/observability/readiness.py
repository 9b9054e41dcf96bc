"""What is still loading."""

from __future__ import annotations

from collections.abc import Mapping


class Readiness:
    """Which parts of the gateway are still missing, and what each is doing. Thread-safe."""

    def __init__(self, *parts: str) -> None:
        """All of `parts` are missing, in this order."""
        self._missing = dict.fromkeys(parts, "waiting")

    def note(self, part: str, progress: str) -> None:
        """Say what a missing part is doing: "converting", "12,000 edits loaded"."""
        self._missing[part] = progress

    def done(self, part: str) -> None:
        """The part is there. Idempotent."""
        self._missing.pop(part, None)

    @property
    def missing(self) -> Mapping[str, str]:
        """Part and progress, in the order of loading; empty when the gateway is ready."""
        return dict(self._missing)
