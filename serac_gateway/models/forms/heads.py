"""What the encoder's vectors say of a text: linear functions of them, trained on written requests for forms.

`serac-train forms` writes the file. Each head is a matrix and a bias; a softmax over its labels follows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import ConfigError

HEADS_FILE: Final = "heads.safetensors"
FINGERPRINT: Final = "encoder_fingerprint"
"""In the file's metadata; the labels of each head stand there too, under its name, joined by commas."""
KINDS: Final = "kinds"
"""Which form a passage asks for: a `FormKind`, or NO_FORM."""
WANTED: Final = "wanted"
"""The language that a passage asks for."""
SPOKEN: Final = "spoken"
"""The language of a text."""
KEY: Final = "key"
"""Whether the gap in a passage stands where the name of a structure's member stood: "yes" or "no"."""
HEADS: Final = (KINDS, WANTED, SPOKEN, KEY)
NO_FORM: Final = "none"
GAP: Final = "___"


class FormHeads:
    """The heads of one file. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Load HEADS_FILE from `folder`.

        Raises:
            ConfigError: It is missing or damaged.
        """
        path = folder / HEADS_FILE
        try:
            with safe_open(path, framework="numpy") as file:
                metadata: dict[str, str] = file.metadata() or {}
                self.encoder_fingerprint = metadata[FINGERPRINT]
                self.labels = {head: tuple(metadata[head].split(",")) for head in HEADS}
                self._weights = {
                    head: (
                        file.get_tensor(f"{head}.weight").astype(np.float32),
                        file.get_tensor(f"{head}.bias").astype(np.float32),
                    )
                    for head in HEADS
                }
        except (OSError, SafetensorError, KeyError) as exc:
            raise ConfigError(
                f"the heads {str(path)!r} cannot be read: {exc}; reinstall the package, or make them with"
                " serac-train forms"
            ) from exc

    def probabilities(self, head: str, vectors_BD: Vectors) -> NDArray[np.float32]:
        """The probability of each of the head's labels, in 0..1. *Shape:* (B, labels)."""
        weight_LD, bias_L = self._weights[head]
        logits_BL = vectors_BD @ weight_LD.T + bias_L
        exponentials_BL = np.exp(logits_BL - logits_BL.max(axis=1, keepdims=True))
        return np.asarray(exponentials_BL / exponentials_BL.sum(axis=1, keepdims=True), dtype=np.float32)

    def best(self, head: str, vectors_BD: Vectors) -> list[tuple[str, float]]:
        """The most probable label of each vector, with its probability."""
        probabilities_BL = self.probabilities(head, vectors_BD)
        places_B = probabilities_BL.argmax(axis=1)
        return [
            (self.labels[head][place], float(row[place]))
            for row, place in zip(probabilities_BL, places_B, strict=True)
        ]

    def likeliest_but(self, head: str, label: str, vectors_BD: Vectors) -> list[tuple[str, float]]:
        """The most probable other label of each vector, with the probability that it is not `label`."""
        probabilities_BL = self.probabilities(head, vectors_BD)
        place = self.labels[head].index(label)
        left_B = 1 - probabilities_BL[:, place]
        probabilities_BL[:, place] = 0
        places_B = probabilities_BL.argmax(axis=1)
        return [(self.labels[head][best], float(left)) for best, left in zip(places_B, left_B, strict=True)]

    def of(self, head: str, label: str, vectors_BD: Vectors) -> NDArray[np.float32]:
        """The probability of one label for each vector. *Shape:* (B,)."""
        return self.probabilities(head, vectors_BD)[:, self.labels[head].index(label)]
