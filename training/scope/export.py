"""Writes a trained cross-encoder as the weights that ship: half precision, without the words.

The gateway converts them to int8 the first time it opens them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from serac_gateway.models.e5.conversion_request import WEIGHTS_FILE
from serac_gateway.models.e5.embedded import EmbeddedE5, embedded_e5
from training.scope.weights import load_cross_encoder, save_cross_encoder


def export(
    checkpoint: Path, folder: Path, e5: EmbeddedE5 | None = None, *,
    start: Path | None = None, trained_share: float = 1.0,
) -> Path:  # fmt: skip
    """Write ``config.json`` and ``model.safetensors`` of the cross-encoder in `checkpoint` into `folder`.

    With a `trained_share` below 1 the weights are a mean of those in `checkpoint` and those in `start`, from
    which they were trained: what was learned last costs less of what was known (Wortsman et al. 2022, arXiv
    2109.01903).

    Raises:
        TrainingError: `checkpoint` or `start` is of another architecture, or was trained over other words.
    """
    e5 = e5 or embedded_e5()
    model = load_cross_encoder(checkpoint, e5)
    if trained_share < 1:
        before = load_cross_encoder(start, e5, layers=model.config.num_hidden_layers).state_dict()
        with torch.no_grad():
            for name, weights in model.state_dict().items():
                weights.lerp_(before[name], 1 - trained_share)
    save_cross_encoder(model, folder, e5, dtype=torch.float16)
    for former in ("model.onnx", "tokenizer.json"):  # of weights of earlier versions, which would be refused
        (folder / former).unlink(missing_ok=True)
    return folder / WEIGHTS_FILE
