"""What is kept of canaries: counts, users and latencies of both arms, and the latest answers.

Counts hold no content. Answers do: they end after a while, and a purge of the edit deletes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from serac_gateway.domain.trials import Arm, TrialObservation

MAX_CALLERS = 10_000
"""Users of an arm that are told apart."""
MAX_LATENCIES = 1_000
"""Of an arm, the latest."""
MAX_ANSWERS = 20
"""Of an arm, the latest."""
KEPT_S = 90 * 86_400
"""How long after its last request a record stays."""


class ArmRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One arm of a canary, of one version of the edit."""

    requests: int = 0
    failed: int = 0
    left: int = 0
    """Whose client left before the reply was complete."""
    callers: int = 0
    """Different users, at most `MAX_CALLERS`."""
    latencies_ms: tuple[float, ...] = ()
    """Of the latest requests that were answered, in no order."""
    answers: tuple[TrialObservation, ...] = ()
    """The latest that were recorded, newest first."""


class TrialStore(ABC):
    """The records of canaries, by namespace, edit and version, for all replicas.

    Task-safe. Every method raises StoreUnavailableError when the server cannot be reached, and
    InvalidRequestError for a namespace or an id that breaks the rules.
    """

    @abstractmethod
    async def add(
        self,
        namespace: str,
        edit_id: str,
        version: int,
        observations: Sequence[TrialObservation],
        *,
        answers_ttl_s: int,
    ) -> None:
        """Count `observations`, oldest first; the texts of those that have an answer stay `answers_ttl_s`."""

    @abstractmethod
    async def read(self, namespace: str, edit_id: str, version: int) -> dict[Arm, ArmRecord]:
        """Both arms."""

    @abstractmethod
    async def forget_answers(self, namespace: str, edit_id: str) -> None:
        """Delete the texts of all versions of an edit."""
