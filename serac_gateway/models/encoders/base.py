"""The seam between texts and vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from serac_gateway.domain.vectors import Vectors


class Encoder(ABC):
    """Turns texts into unit vectors whose inner product is their cosine similarity.

    Sync and thread-safe: it is called on worker threads, several at a time.
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """D, the width of an embedding."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Names weights and numerics. Vectors of two fingerprints must never be compared."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts`, in order.

        A text beyond the encoder's own token limit is cut there; cut long ones before (a 108 KB prompt
        takes 49 ms to tokenise). An empty sequence gives shape (0, D).

        Returns:
            float32, unit length. *Shape:* (B, D).

        Raises:
            ModelUnavailableError: The model failed.
        """
