"""Opens the weights of a cross-encoder in the runtime that this machine has for them."""

from __future__ import annotations

from pathlib import Path

from serac_gateway.config.model import ModelsConfig
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import PairModel
from serac_gateway.models.classifiers.e5_pairs import TorchE5PairModel, open_onnx_e5_pairs
from serac_gateway.models.devices import Placement, classifier_placement
from serac_gateway.models.e5.embedded import embedded_e5
from serac_gateway.models.progress import OnStep


def open_pair_model(
    folder: Path,
    data_path: Path | None,
    *,
    max_tokens: int,
    threads: int = 2,
    placement: Placement | None = None,
    on_step: OnStep = lambda step: None,
) -> PairModel:
    """The weights in `folder`, computed where and as `placement` says; None: as without configuration.

    For int8 they are converted once, into `data_path`. `threads` compute one pair of that.

    Raises:
        ConfigError: They are missing or damaged, or cannot be converted.
    """
    placement = classifier_placement(ModelsConfig()) if placement is None else placement
    if placement.is_torch:
        return TorchE5PairModel(embedded_e5(), folder, max_tokens=max_tokens, placement=placement)
    if data_path is None:
        raise ConfigError(f"the weights in {str(folder)!r} are converted into a data folder; name one")
    return open_onnx_e5_pairs(
        embedded_e5(),
        folder,
        data_path / "models",
        max_tokens=max_tokens,
        threads=threads,
        on_step=on_step,
    )
