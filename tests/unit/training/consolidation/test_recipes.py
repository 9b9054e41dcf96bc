"""The settings that consolidation ships with."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.baselines.finetune import FineTuningSettings
from training.baselines.lora import LoraSettings
from training.consolidation.recipes import RECIPES, MethodName
from training.runs import read_config

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("name", "kind"), [(MethodName.LORA, LoraSettings), (MethodName.FINETUNE, FineTuningSettings)]
)
def test_what_descends_on_the_answers_is_held_to_everything_else(
    name: MethodName, kind: type[LoraSettings] | type[FineTuningSettings]
) -> None:
    """Without that a consolidation puts its answers everywhere."""
    settings = read_config(ROOT / RECIPES[name].settings, kind)
    assert settings.preserve is not None
    assert settings.preserve.weight > 0
    assert len(settings.preserve.other_subjects) > settings.preserve.others_per_edit
