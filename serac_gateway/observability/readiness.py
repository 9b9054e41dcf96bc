"""The components of the gateway that are still loading."""

from __future__ import annotations

from collections.abc import Mapping


class Readiness:
    """The components that are not loaded yet, each with its progress. Thread-safe."""

    def __init__(self, *components: str) -> None:
        """All of `components` are missing, in this order."""
        self._missing = dict.fromkeys(components, "waiting")

    def note(self, component: str, progress: str) -> None:
        """Set the progress of a missing component, such as "converting" or "12,000 edits loaded"."""
        self._missing[component] = progress

    def done(self, component: str) -> None:
        """The component is loaded. Idempotent."""
        self._missing.pop(component, None)

    @property
    def missing(self) -> Mapping[str, str]:
        """Progress by component, in the order of loading; empty when the gateway is ready."""
        return dict(self._missing)
