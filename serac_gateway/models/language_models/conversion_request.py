"""The request of embedded_gemma.py to the converter, gguf_conversion.py, a process of its own."""

from __future__ import annotations

from pathlib import Path

import msgspec

SHIPPED_ACTIVATIONS = Path(__file__).parent.parent / "weights" / "gemma-activations"
"""Of the embedded model without an adapter; see smoothquant.py."""
CONVERTING = "converting Gemma 3 270M (once)"
"""The text of the converter's step."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A model to write."""

    folder: str
    adapter: str | None
    """The folder of the adapter that is merged in."""
    activations: str | None
    """The folder with the activations by which it is smoothed; None: it is not, and stays in float32."""


class ConversionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Models to make from one GGUF file."""

    gguf: str
    targets: list[Target]
