"""The embedded multilingual encoder: multilingual-e5-small in ONNX Runtime, int8 on the CPU.

Words are looked up in the package's file, so the converted graph has none of their 96 million weights. Texts
run one at a time, without padding and its mask, so the same text has the same vector always.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.models.bert_graph import WORDS
from serac_gateway.models.e5.converted import converted_e5, open_session, weights_digest
from serac_gateway.models.e5.embedded import EmbeddedE5
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.progress import OnStep

PREFIX: Final = "query: "
"""What e5 was trained with for texts that are compared with their like."""
MAX_TOKENS: Final = 256
"""Longer texts are cut."""
_RECIPE: Final = "e5-int8-v1"
"""Part of the fingerprint: raise it when prefix, tokens, graph or quantisation change the numbers."""


class E5Encoder(Encoder):
    """A converted encoder; one instance serves all threads."""

    def __init__(self, e5: EmbeddedE5, model: Path, *, fingerprint: str) -> None:
        """Load the converted graph at `model`.

        Raises:
            ConfigError: It is missing or damaged.
        """
        self._e5 = e5
        self._session = open_session(model, threads=1)  # requests run side by side instead
        self._fingerprint = fingerprint

    @property
    def width(self) -> int:
        """D."""
        return self._e5.words.width

    @property
    def fingerprint(self) -> str:
        """The recipe and a digest of the weights."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode`."""
        vectors_BD = np.empty((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            ids = self._e5.tokenizer.single(PREFIX + text, min(MAX_TOKENS, self._e5.positions))
            try:
                (vectors_BD[row],) = self._session.run(None, {WORDS: self._e5.words.rows(ids)[None]})[0]
            except Exception as exc:  # onnxruntime's errors share no base class but this
                raise ModelUnavailableError(
                    f"the encoder failed on a text of {len(text)} characters: {exc}"
                ) from exc
        return vectors_BD


def e5_fingerprint(e5: EmbeddedE5, weights: Path | None, projection: Path | None) -> str:
    """Of the encoder that `open_e5_encoder` opens from the same.

    Raises:
        ConfigError: The weights cannot be read.
    """
    return f"{_RECIPE}-{weights_digest(e5, weights, projection)}"


def open_e5_encoder(
    e5: EmbeddedE5,
    models: Path,
    *,
    weights: Path | None = None,
    projection: Path | None = None,
    on_step: OnStep = lambda step: None,
) -> E5Encoder:
    """The encoder of the package, or the one trained from it in `weights`; converted once into `models`.

    `projection` is the folder of a linear map of its vectors, which becomes part of the graph.

    Starts that run side by side wait for one conversion; a start that is killed leaves nothing half made.

    Raises:
        ConfigError: The weights cannot be read, or the copy cannot be written.
    """
    fingerprint = e5_fingerprint(e5, weights, projection)
    model = converted_e5(
        e5, models, kind="encoder", name=fingerprint, weights=weights, projection=projection,
        on_step=on_step, others=1,
    )  # fmt: skip
    return E5Encoder(e5, model, fingerprint=fingerprint)
