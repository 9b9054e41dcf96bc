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


def _opener(name: str) -> Callable[[CausalModel, Path | None], EditingMethod]:
    def opens(model: CausalModel, config: Path | None) -> EditingMethod:
        from training.evaluation.answers.methods.catalogue import method_opener

        return method_opener(name)(model, config)

    return opens


def _lora(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.lora import LoraEditing, LoraSettings
    from training.runs import read_config

    settings = read_config(config or _CONFIGS / "lora.toml", LoraSettings)
    return LoraEditing(model, msgspec.structs.replace(settings, merged=True))  # what ships are the matrices


_CONFIGS = Path("configs/baselines")

RECIPES: Mapping[MethodName, Recipe] = {
    MethodName.LORA: Recipe(
        opens=_lora, settings=_CONFIGS / "lora.toml", needs_subject=False, trains_wordings=True
    ),
    MethodName.MEMIT: Recipe(
        opens=_opener("memit"), settings=_CONFIGS / "memit.toml", needs_subject=True, trains_wordings=False
    ),
    MethodName.FINETUNE: Recipe(
        opens=_opener("ft-m"), settings=_CONFIGS / "ft-m.toml", needs_subject=False, trains_wordings=True
    ),
}
