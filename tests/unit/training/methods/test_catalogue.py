"""The catalogue of methods: every name opens the method of that name, by the settings given."""

from __future__ import annotations

from pathlib import Path

import pytest

from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.evaluation.answers.methods.catalogue import method_opener

_FIT = "[fit]\nlearning_rate = 0.1\nepochs = 1\nbatch_size = 2\nstop_loss = 0.1\n"
_TUNED = 'parameters = ["model.layers.1.*"]\n'
_STEERED = "layer = 1\ncoefficient = 1.0\nbatch_size = 2\nvector = "
_CONTRASTED = 'kept_share = 0.1\nother_subjects = ["Rome"]\nothers_per_edit = 1\nstep = 0.1\nepochs = 1\n'
SETTINGS = {
    **dict.fromkeys(("ft-all", "ft-last", "ft-l", "ft-c", "ft-m"), _TUNED + _FIT),
    "lora": 'modules = ["q_proj"]\nrank = 2\nalpha = 4\nmerged = false\n' + _FIT,
    "contrastive": _TUNED + _CONTRASTED + "batch_size = 2\nstop_loss = 0.1\n",
    "task-vectors": _TUNED + "weight = 0.5\nforget = 0.0\n" + _FIT,
    "steering": _STEERED + '"mean_difference"',
    "representation": _STEERED + '"principal_component"',
    **dict.fromkeys(("grace", "wise"), "layer = 1\n"),
    **dict.fromkeys(("mend", "ke"), "layers = [1]\n"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_name_opens_its_method_by_the_settings_given(name: str, model: CausalModel, tmp_path: Path) -> None:
    """And a setting that the method does not have is refused."""
    config = tmp_path / "settings.toml"
    config.write_text(SETTINGS[name])
    assert method_opener(name)(model, config).name == name
    config.write_text("unknown = 1\n" + SETTINGS[name])
    with pytest.raises(ConfigError, match="unknown"):
        method_opener(name)(model, config)


@pytest.mark.parametrize("name", ["unedited", "in-context", "ft-all", "t-patcher"])
def test_a_method_is_opened_by_the_name_that_it_has(name: str, model: CausalModel) -> None:
    """With the settings in the repository; those here fit a model of any size."""
    assert method_opener(name)(model, None).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigError, match=r"no editing method is named 'magic'; choose one of unedited, "):
        method_opener("magic")
