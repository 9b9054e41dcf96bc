"""The seam to the encoder: from texts to vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from serac_gateway.domain.vectors import Vectors


class Encoder(ABC):
    """Turns texts into unit vectors whose inner product is their cosine similarity.

    Sync and thread-safe: several worker threads call it at a time.
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """D, the width of an embedding."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Identifies weights and numerics. Vectors of different fingerprints must never be compared."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts`, in order.

        A text is cut at the encoder's own token limit; cut long texts before (tokenising 108 KB takes
        49 ms). An empty sequence gives shape (0, D).

        Returns:
            float32, unit length. *Shape:* (B, D).

        Raises:
            ModelUnavailableError: The model failed.
        """


def have_same_weights(fingerprint: str, other: str) -> bool:
    """Whether two encoders differ at most in their numbers: those of int8 and of bfloat16 of one model.

    Their cosines are on one scale, so thresholds hold for both; their vectors must not be compared all the
    same. Fingerprints are FAMILY-NUMBERS-VERSION-DIGEST.
    """
    return (fingerprint.partition("-")[0], fingerprint.rpartition("-")[2]) == (
        other.partition("-")[0],
        other.rpartition("-")[2],
    )
