"""Low-rank adapters (LoRA, arXiv 2106.09685) as peft writes them, merged into the weights they belong to.

A merged model costs nothing when it answers, and the gateway needs no peft.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from serac_gateway.errors import ConfigError

if TYPE_CHECKING:  # torch takes seconds, and a gateway whose models are converted does without it
    from torch import Tensor, nn

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
"""Put by peft before the name of every weight."""


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter."""
    return (folder / CONFIG_FILE).is_file()


def adapter_fingerprint(folder: Path) -> str:
    """Names the adapter: equal weights and configurations have equal fingerprints.

    Raises:
        ConfigError: The folder holds no whole adapter.
    """
    try:
        parts = [(folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)]
    except OSError as exc:
        raise ConfigError(_damaged(folder, str(exc.strerror))) from exc
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def merge_adapter(model: nn.Module, folder: Path) -> None:
    """Add the adapter in `folder` to the weights of `model`, in place and in the weights' own precision.

    Raises:
        ConfigError: The adapter is damaged, or belongs to another model.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        factor = config["lora_alpha"] / config["r"]
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, KeyError, SafetensorError) as exc:
        raise ConfigError(_damaged(folder, str(exc))) from exc
    halves = {name: tensor for name, tensor in tensors.items() if name.endswith(".lora_A.weight")}
    if not halves or 2 * len(halves) != len(tensors):
        raise ConfigError(_damaged(folder, "it holds other weights than pairs of LoRA matrices"))
    with torch.no_grad():
        for name, down_RI in halves.items():
            module = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
            up_OR = tensors[f"{name.removesuffix('.lora_A.weight')}.lora_B.weight"]
            _add(model, module, (up_OR.float() @ down_RI.float()) * factor, folder)


def _add(model: nn.Module, module: str, change_OI: Tensor, folder: Path) -> None:
    weights = dict(model.get_submodule(module).named_parameters()) if _has(model, module) else {}
    weight = weights.get("weight")
    if weight is None or weight.shape != change_OI.shape:
        raise ConfigError(
            f"the adapter in {str(folder)!r} belongs to another model: it changes {module!r} of shape"
            f" {tuple(change_OI.shape)}; name the adapter of this model, or train one"
        )
    weight.add_(change_OI.to(weight))


def _has(model: nn.Module, module: str) -> bool:
    return any(name == module for name, _ in model.named_modules())


def _damaged(folder: Path, why: str) -> str:
    return (
        f"cannot read the adapter in {str(folder)!r}: {why}; restore it, or leave"
        " models.counterfactual_adapter out"
    )
