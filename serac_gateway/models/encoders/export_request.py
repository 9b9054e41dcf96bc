"""The request of onnx.py to the converter, minilm_export.py, which runs in a process of its own."""

from __future__ import annotations

import msgspec

EXPORTING = "exporting the encoder (once)"
"""The text of the converter's step."""


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An export of the embedded encoder."""

    weights: str
    """The folder of a sentence-transformers model."""
    folder: str
    """Where the exported model goes."""
    fingerprint: str
