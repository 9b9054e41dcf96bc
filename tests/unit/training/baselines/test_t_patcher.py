"""T-Patcher: neurons that are off add nothing."""

from __future__ import annotations

import pytest
import torch

from serac_gateway.domain.edits import EditDraft
from tests.unit.training.baselines.states import (
    PARIS,
    RIVER,
    WHO,
    greedy_without_cache,
    parameters,
    states,
)
from training.baselines.causal_model import CausalModel
from training.baselines.t_patcher import TPatcher, TPatcherSettings

OTHERS = ["A b", "The sea was", "Paris and Rome", WHO, "Seine", "of the world"]
EDIT = EditDraft(prompt=PARIS, target_new="Rome")
SECOND = EditDraft(prompt=RIVER, target_new="Seine")


@pytest.fixture
def patcher(model: CausalModel) -> TPatcher:
    """Its memory is six short prompts; the norm behind the last MLP lets that outweigh the other layers."""
    model.network.model.layers[-1].post_feedforward_layernorm.weight.fill_(5)
    return TPatcher(model, TPatcherSettings(steps=200), prompts=lambda count: OTHERS[:count])


def test_an_edited_prompt_gets_its_target(model: CausalModel, patcher: TPatcher) -> None:
    """A target of five tokens is said, with the cache of keys and values and without it."""
    patcher.edit([EDIT])
    (said,) = model.greedy([PARIS], max_tokens=7)
    assert said.startswith("Rome")
    assert said == greedy_without_cache(model, PARIS, 7)


def test_there_is_a_patch_for_each_wrong_token(model: CausalModel, patcher: TPatcher) -> None:
    """As many as the target has wrong tokens, on at their own queries; none for what is said anyway."""
    (said,) = model.forced([(PARIS, "Rome")])
    patcher.edit([EDIT, EDIT])
    first, again = patcher.patches
    assert len(first.keys_ND) == (~said.is_top_T).sum()
    assert (first.activations(first.queries_ND).diagonal() > 0).all()
    assert len(again.keys_ND) == 0


def test_patches_that_are_off_change_no_bit(model: CausalModel, patcher: TPatcher) -> None:
    """The memory's states are bit-equal, also in a batch with an edited prompt."""
    before = states(model, PARIS, *OTHERS)
    patcher.edit([EDIT])
    after = states(model, PARIS, *OTHERS)
    batch = model.batch([model.prompt_ids(model.prompt_text(text)) for text in (PARIS, *OTHERS)])
    read = batch.positions_BL > 0
    read[0] = False
    assert torch.equal(after[read], before[read])
    assert not torch.equal(after[0, -1], before[0, -1])


def test_without_its_patches_the_model_is_the_base(model: CausalModel, patcher: TPatcher) -> None:
    """Undone, states, parameters and hooks are bit by bit as before."""
    before, weights, hooked = states(model, PARIS, RIVER), parameters(model), model.hook_count()
    patcher.edit([EDIT, SECOND])
    assert patcher.held_bytes > 0
    patcher.undo()
    assert torch.equal(states(model, PARIS, RIVER), before)
    assert all(map(torch.equal, parameters(model), weights))
    assert (model.hook_count(), patcher.held_bytes) == (hooked, 0)


def test_a_forgotten_edit_drops_its_own_patches(model: CausalModel, patcher: TPatcher) -> None:
    """What is left is the model with the other edit's patches alone."""
    patcher.edit([EDIT])
    alone = states(model, PARIS, RIVER)
    patcher.edit([SECOND])
    assert not torch.equal(states(model, PARIS, RIVER), alone)
    patcher.forget(1)
    assert torch.equal(states(model, PARIS, RIVER), alone)


def test_the_newer_edit_of_a_prompt_holds(model: CausalModel, patcher: TPatcher) -> None:
    """Patches of a second target outweigh those of the first."""
    patcher.edit([SECOND, EditDraft(prompt=RIVER, target_new="France")])
    assert model.greedy([RIVER], max_tokens=4)[0].startswith("France")
