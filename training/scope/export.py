"""Writes a trained cross-encoder as the weights that ship: half precision, without the words.

The gateway converts them to int8 the first time it opens them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from serac_gateway.models.e5.conversion_request import WEIGHTS_FILE
from serac_gateway.models.e5.embedded import EmbeddedE5, embedded_e5
from training.scope.weights import load_cross_encoder, save_cross_encoder


def export(checkpoint: Path, folder: Path, e5: EmbeddedE5 | None = None) -> Path:
    """Write ``config.json`` and ``model.safetensors`` of the cross-encoder in `checkpoint` into `folder`.

    Raises:
        TrainingError: `checkpoint` is of another architecture, or was trained over other words.
    """
    e5 = e5 or embedded_e5()
    save_cross_encoder(load_cross_encoder(checkpoint, e5), folder, e5, dtype=torch.float16)
    for former in ("model.onnx", "tokenizer.json"):  # of weights of earlier versions, which would be refused
        (folder / former).unlink(missing_ok=True)
    return folder / WEIGHTS_FILE
