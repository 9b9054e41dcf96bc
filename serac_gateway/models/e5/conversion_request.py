"""The request to the converter, conversion.py, which runs in a process of its own."""

from __future__ import annotations

from typing import Literal

import msgspec

CONVERTER = "serac_gateway.models.e5.conversion"
MODEL_FILE = "model.onnx"
"""What the converter writes."""
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
"""Of trained weights, as transformers saves them, but without the word table, which the package has."""
PROJECTION_FILE = "projection.safetensors"
"""Of the projection of an encoder's vectors: `mean` (D,) and `matrix` (D, D)."""


class E5Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """A model to write as `MODEL_FILE`."""

    package_file: str
    weights: str | None
    """The folder of trained weights; None: those of the package."""
    projection: str | None = None
    """The folder of the projection of an encoder's vectors; None: they stay as they are."""
    folder: str
    head: Literal["vectors", "logits"]
    """An encoder's, or a classifier's of pairs."""
    step: str
    """The text of the steps that are reported."""
