"""The methods by which edits are consolidated, and what each needs of an edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:  # torch takes seconds
    from training.baselines.base import EditingMethod
    from training.baselines.causal_model import CausalModel


class MethodName(StrEnum):
    """As on the command line."""

    LORA = "lora"
    MEMIT = "memit"
    FINETUNE = "finetune"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How edits are given to a method."""

    opens: Callable[[CausalModel, Path | None], EditingMethod]
    settings: Path
    """Where its settings stand by default."""
    needs_subject: bool
    """An edit has to have a subject that stands in its prompt."""
    trains_wordings: bool
    """Wordings that are not held back are edits of their own to it."""


def _memit(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.evaluation.answers.methods.catalogue import method_opener

    return method_opener(MethodName.MEMIT)(model, config)


def _lora(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.lora import LoraEditing, LoraSettings
    from training.runs import read_config

    settings = read_config(config or _CONFIGS / "lora.toml", LoraSettings)
    return LoraEditing(model, msgspec.structs.replace(settings, merged=True))  # what ships are the matrices


def _finetune(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.finetune import FineTuningSettings, TargetFineTuning
    from training.runs import read_config

    return TargetFineTuning(model, read_config(config or _CONFIGS / "finetune.toml", FineTuningSettings))


_CONFIGS = Path("configs/consolidation")
_MEMIT = Path("configs/baselines/memit.toml")

RECIPES: Mapping[MethodName, Recipe] = {
    MethodName.LORA: Recipe(
        opens=_lora, settings=_CONFIGS / "lora.toml", needs_subject=False, trains_wordings=True
    ),
    MethodName.MEMIT: Recipe(opens=_memit, settings=_MEMIT, needs_subject=True, trains_wordings=False),
    MethodName.FINETUNE: Recipe(
        opens=_finetune, settings=_CONFIGS / "finetune.toml", needs_subject=False, trains_wordings=True
    ),
}
