"""Opens the weights of a cross-encoder in the runtime that this machine has for them."""

from __future__ import annotations

from pathlib import Path

from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import PairModel
from serac_gateway.models.classifiers.e5_pairs import TorchE5PairModel, open_onnx_e5_pairs
from serac_gateway.models.e5.embedded import embedded_e5
from serac_gateway.models.progress import OnStep


def cuda_is_available() -> bool:
    """Whether torch sees a CUDA device. Torch takes seconds to import: it is loaded only with a driver."""
    if not any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()


def open_pair_model(
    folder: Path,
    data_path: Path | None,
    *,
    max_tokens: int,
    threads: int = 2,
    on_gpu: bool | None = None,
    on_step: OnStep = lambda step: None,
) -> PairModel:
    """The weights in `folder`: in torch with CUDA if it is available, else int8 in ONNX Runtime.

    For the latter they are converted once, into `data_path`. `on_gpu` insists on either runtime. `threads`
    compute one pair on the CPU.

    Raises:
        ConfigError: They are missing or damaged, or cannot be converted.
    """
    is_on_gpu = cuda_is_available() if on_gpu is None else on_gpu
    if is_on_gpu:
        return TorchE5PairModel(embedded_e5(), folder, max_tokens=max_tokens, device="cuda")
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
