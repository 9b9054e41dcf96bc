"""The catalogue of editing methods."""

from __future__ import annotations

import pytest

from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.evaluation.answers.methods.catalogue import method_opener


@pytest.mark.parametrize("name", ["unedited", "in-context", "ft-all"])
def test_a_method_is_opened_by_the_name_that_it_has(name: str, model: CausalModel) -> None:
    """With the settings in the repository; those here fit a model of any size."""
    assert method_opener(name)(model, None).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    """Before anything is loaded."""
    with pytest.raises(ConfigError, match=r"no editing method is named 'magic'; choose one of unedited, "):
        method_opener("magic")
