"""What a method changed of a model: tensors in one file, which make the changed model from the base again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.baselines.base import EditingMethod
from training.baselines.causal_model import CausalModel
from training.runs import TrainingError

WEIGHTS_FILE = "changed.safetensors"
_BESIDE_ADAPTERS = ".base_layer."
"""How peft calls the matrix beside which it puts an adapter."""


def parameters_of(model: CausalModel) -> dict[str, Tensor]:
    """A copy of the parameters by their names; those of adapters are left out."""
    named = dict(model.network.named_parameters())
    return {
        name.replace(_BESIDE_ADAPTERS, "."): parameter.detach().clone()
        for name, parameter in named.items()
        if ".lora_" not in name
    }


def changed_tensors(before: dict[str, Tensor], method: EditingMethod) -> dict[str, Tensor]:
    """The tensors that are not bit by bit what they were, whole. Adapters have to be merged.

    Raises:
        TrainingError: The method changed no weight, so there is nothing to consolidate into.
    """
    after = parameters_of(method.model)
    changed = {name: after[name] for name, was in before.items() if not torch.equal(after[name], was)}
    if not changed:
        raise TrainingError(f"{method.name!r} changed no weight of {method.model.name!r}")
    broken = [name for name, tensor in changed.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise TrainingError(
            f"{method.name!r} left numbers that are not finite in {broken[0]!r}; lower its rate of learning"
        )
    return changed


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write the file as a whole or not at all."""
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@torch.no_grad()
def apply_tensors(model: CausalModel, path: Path) -> None:
    """Put the file's tensors into a base model, in place.

    Raises:
        TrainingError: The file is damaged, or of another model.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise TrainingError(f"cannot read {str(path)!r}: {exc}; delete it to make it anew") from exc
    named = dict(model.network.named_parameters())
    for name, tensor in tensors.items():
        if name not in named or named[name].shape != tensor.shape:
            raise TrainingError(
                f"{str(path)!r} is of another model: it has {name!r} of shape {tuple(tensor.shape)}, which"
                f" {model.name!r} lacks"
            )
        named[name].copy_(tensor)
