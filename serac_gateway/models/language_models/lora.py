"""Low-rank adapters (LoRA, arXiv 2106.09685) as peft writes them, merged into the weights they belong to.

A merged model costs nothing when it answers, and the gateway needs no peft.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serac_gateway.errors import ConfigError

if (
    TYPE_CHECKING
):  # torch takes seconds, numpy 11 MB; a process that only runs a converted model needs neither
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    Floats = NDArray[np.float32]

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ACTIVATIONS_FILE = "activations.safetensors"
"""Of the adapted model, written by `serac-train activations`; an adapter may do without it."""
_PREFIX = "base_model.model."
"""Put by peft before the name of every weight."""
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


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
        if (folder / ACTIVATIONS_FILE).is_file():
            parts.append((folder / ACTIVATIONS_FILE).read_bytes())
    except OSError as exc:
        raise ConfigError(_damaged(folder, str(exc.strerror))) from exc
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


class Adapter:
    """The changes that an adapter makes to linear layers.

    Shape suffixes: O outputs and I inputs of a layer, R the rank.
    """

    def __init__(self, folder: Path) -> None:
        """Read `folder`.

        Raises:
            ConfigError: The adapter is damaged.
        """
        from safetensors import SafetensorError, deserialize

        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            self._factor = config["lora_alpha"] / config["r"]
            stored = deserialize((folder / WEIGHTS_FILE).read_bytes())  # type: ignore[no-untyped-call]
            tensors = {name: _float32(tensor) for name, tensor in stored}
        except (OSError, ValueError, KeyError, SafetensorError) as exc:
            raise ConfigError(_damaged(folder, str(exc))) from exc
        self._folder = folder
        self._halves: dict[str, tuple[Floats, Floats]] = {}
        for name, down_RI in tensors.items():
            up_OR = tensors.get(name.removesuffix(_DOWN) + _UP)
            if name.endswith(_DOWN) and up_OR is not None:
                module = name.removeprefix(_PREFIX).removesuffix(_DOWN)
                self._halves[module] = (down_RI, up_OR)
        if not self._halves or 2 * len(self._halves) != len(tensors):
            raise ConfigError(_damaged(folder, "it holds other weights than pairs of LoRA matrices"))

    def check_fits(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compare with the model's layers: `shapes` has (O, I) of each.

        Raises:
            ConfigError: The adapter changes a layer that is missing or has another shape.
        """
        for module, (down_RI, up_OR) in self._halves.items():
            shape_OI = (up_OR.shape[0], down_RI.shape[1])
            if shapes.get(module) != shape_OI:
                raise ConfigError(
                    f"the adapter in {str(self._folder)!r} belongs to another model: it changes {module!r}"
                    f" of shape {shape_OI}; name the adapter of this model, or train one"
                )

    def modules(self) -> list[str]:
        """Names of the layers that it changes."""
        return list(self._halves)

    def change(self, module: str) -> Floats:
        """What to add to the weight of `module`. *Shape:* (O, I)."""
        down_RI, up_OR = self._halves[module]
        change_OI: Floats = ((up_OR @ down_RI) * self._factor).astype("f4")
        return change_OI


def merge_adapter(model: nn.Module, folder: Path) -> None:
    """Add the adapter in `folder` to the weights of `model`, in place and in the weights' own precision.

    Raises:
        ConfigError: The adapter is damaged, or belongs to another model.
    """
    import torch

    adapter = Adapter(folder)
    weights = {
        name.removesuffix(".weight"): weight
        for name, weight in model.named_parameters()
        if name.endswith(".weight")
    }
    adapter.check_fits({module: tuple(weight.shape) for module, weight in weights.items()})
    with torch.no_grad():
        for module in adapter.modules():
            weights[module].add_(torch.from_numpy(adapter.change(module)).to(weights[module]))


def _float32(tensor: Mapping[str, Any]) -> Floats:
    """A tensor of a safetensors file. numpy has no bfloat16: it is the upper half of a float32."""
    import numpy as np

    if tensor["dtype"] == "BF16":
        halves = np.frombuffer(tensor["data"], "<u2").astype(np.uint32)
        numbers = (halves << 16).view(np.float32)
    else:
        numbers = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).astype(np.float32)
    return numbers.reshape(tensor["shape"])


def _damaged(folder: Path, why: str) -> str:
    return (
        f"cannot read the adapter in {str(folder)!r}: {why}; restore it, or leave"
        " models.counterfactual_adapter out"
    )
