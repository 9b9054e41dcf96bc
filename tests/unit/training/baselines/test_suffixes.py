"""Running rows from their subject on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.baselines.causal_model import CausalModel
from training.baselines.hooks import changed, ending_at, recorded
from training.baselines.suffixes import Row, Suffixes, at_subject

TEXTS = ["The capital of France is Paris", "France is", "Beyond the river, France has one more town: Paris"]


def rows_of(model: CausalModel) -> list[Row]:
    return [
        Row(ids=model.prompt_ids(text), subject_end=model.subject_end(text, "France"), scored=2)
        for text in TEXTS
    ]


@pytest.mark.parametrize("first_layer", [0, 1, 2])
def test_states_are_those_of_whole_rows(model: CausalModel, first_layer: int) -> None:
    """From the subject's last token on they equal what the network makes of each whole row alone."""
    rows = rows_of(model)
    states_RSD = Suffixes(model, rows, first_layer=first_layer).states()
    for states_SD, row in zip(states_RSD, rows, strict=True):
        whole_SD = model.hidden(model.batch([row.ids]))[0, row.subject_end :]
        assert torch.allclose(states_SD[: len(whole_SD)], whole_SD, atol=1e-4)


def test_a_change_at_the_subject_reaches_what_follows_it(model: CausalModel) -> None:
    """A shift added in column 0 gives what the same shift gives in a whole row, run after run."""
    rows = rows_of(model)
    suffixes = Suffixes(model, rows, first_layer=1)
    site = model.layers[1]
    shift_D = torch.linspace(-3, 3, 32)

    def shifted(states_RSD: Tensor, column: int = 0) -> Tensor:
        states_RSD = states_RSD.clone()
        states_RSD[:, column] += shift_D
        return states_RSD

    for _ in range(2):
        with changed(site, shifted):
            states_RSD = suffixes.states()
        for states_SD, row in zip(states_RSD, rows, strict=True):
            with changed(site, lambda states, at=row.subject_end: shifted(states, at)):
                whole_SD = model.hidden(model.batch([row.ids]))[0, row.subject_end :]
            assert torch.allclose(states_SD[: len(whole_SD)], whole_SD, atol=1e-4)


def test_the_predicting_states_stand_before_the_scored_tokens(model: CausalModel) -> None:
    """They are as many as there are scored tokens, and give the next token's where none is scored."""
    rows = rows_of(model)
    rows[1] = Row(ids=rows[1].ids, subject_end=rows[1].subject_end, scored=0)
    suffixes = Suffixes(model, rows, first_layer=0)
    for picked, row in zip(suffixes.predicting(suffixes.states()), rows, strict=True):
        whole_LD = model.hidden(model.batch([row.ids]))[0]
        wanted = whole_LD[-3:-1] if row.scored else whole_LD[-1:]
        assert torch.allclose(picked, wanted, atol=1e-4)


def test_the_network_is_as_before(model: CausalModel) -> None:
    """No layer stays replaced and no hook stays on it."""
    before = model.hidden(model.batch([rows_of(model)[0].ids]))
    Suffixes(model, rows_of(model), first_layer=2).states()
    assert torch.equal(model.hidden(model.batch([rows_of(model)[0].ids])), before)
    assert not any(module._forward_hooks for module in model.network.modules())


def test_keys_and_states_at_the_subject_ignore_padding_and_what_follows(model: CausalModel) -> None:
    """In a batch they are each row's own, and those of the text that ends with the subject."""
    rows = rows_of(model)
    keys, states = at_subject(model, rows, [0, 2], at_once=2)
    for index, row in enumerate(rows):
        batch = model.batch([row.ids])
        with recorded({0: model.layers[2]}) as outputs:
            model.hidden(batch)
        assert torch.allclose(states[2][index], outputs[0][0, row.subject_end], atol=1e-4)
        with recorded({0: model.value_matrix(0)}, inputs=True) as inputs:
            model.hidden(batch)
        assert torch.allclose(keys[0][index], inputs[0][0, row.subject_end], atol=1e-4)


def test_a_pass_ends_at_its_module(model: CausalModel) -> None:
    """Later layers do not run; a module that never runs is noticed."""
    batch = model.batch([rows_of(model)[0].ids])
    with recorded(dict(enumerate(model.layers))) as seen, ending_at(model.layers[1]):
        model.hidden(batch)
    assert sorted(seen) == [0, 1]
    with pytest.raises(AssertionError, match="did not run"), ending_at(model.layers[1]):
        pass
