"""WISE: who is routed to the side matrix, and what it is merged from."""

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
from training.baselines.wise import Wise, WiseSettings, merged, random_mask

OTHERS = ["A b", "The sea was", "Paris and Rome", WHO, "Seine", "of the world"]
EDIT = EditDraft(prompt=PARIS, target_new="Seine")
SECOND = EditDraft(prompt=RIVER, target_new="France")


@pytest.fixture
def wise(model: CausalModel) -> Wise:
    """In the middle of three layers, whose MLP may outweigh the others; a shard for each edit."""
    model.network.model.layers[1].post_feedforward_layernorm.weight.fill_(5)
    settings = WiseSettings(layer=1, steps=60, shard_edits=1, mask_density=0.3)
    return Wise(model, settings, prompts=lambda count: OTHERS[:count])


def test_an_edited_prompt_gets_its_target(model: CausalModel, wise: Wise) -> None:
    """Greedy text begins with the target, with the cache of keys and values and without it."""
    assert not model.greedy([PARIS])[0].startswith("Seine")
    wise.edit([EDIT])
    (said,) = model.greedy([PARIS], max_tokens=8)
    assert said.startswith("Seine")
    assert said == greedy_without_cache(model, PARIS, 8)


def test_below_the_threshold_nothing_changes(model: CausalModel, wise: Wise) -> None:
    """States of unrelated prompts are bit-equal, also in a batch with the edited one."""
    before = states(model, PARIS, *OTHERS)
    wise.edit([EDIT])
    after = states(model, PARIS, *OTHERS)
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0, -1], after[0, -1])
    assert torch.equal(before[0, :-1], after[0, :-1])


def test_rows_keep_their_routes_while_they_are_generated(model: CausalModel, wise: Wise) -> None:
    """In a batch each text is continued as it is alone."""
    wise.edit([EDIT])
    texts = [WHO, PARIS, "Seine"]
    assert model.greedy(texts, max_tokens=6) == [model.greedy([text], max_tokens=6)[0] for text in texts]


def test_undo_restores_bit_by_bit(model: CausalModel, wise: Wise) -> None:
    """States, parameters and hooks are as before; the same edits give the same masks and states again."""
    before, weights, hooked = states(model, PARIS, RIVER), parameters(model), model.hook_count()
    wise.edit([EDIT, SECOND])
    edited, masks = states(model, PARIS, RIVER), list(wise.masks)
    assert all(map(torch.equal, parameters(model), weights))
    wise.undo()
    assert torch.equal(states(model, PARIS, RIVER), before)
    assert (model.hook_count(), wise.held_bytes) == (hooked, 0)
    wise.edit([EDIT, SECOND])
    assert torch.equal(states(model, PARIS, RIVER), edited)
    assert all(map(torch.equal, wise.masks, masks))


def test_shards_change_only_what_their_masks_have(wise: Wise) -> None:
    """A mask has its density exactly; a shard is zero beyond it; masks differ."""
    wise.edit([EDIT, SECOND])
    for mask, shard in zip(wise.masks, wise.shards, strict=True):
        assert mask.sum() == int(0.3 * 32 * 64)
        assert shard[mask].any()
        assert not shard[~mask].any()
    assert not torch.equal(*wise.masks)


def test_disjoint_shards_merge_to_their_sum() -> None:
    """Where at most one shard has a weight, the merged one has it unchanged."""
    first = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    mask = random_mask(first, 0.5, torch.Generator().manual_seed(2))
    assert torch.equal(merged([first * mask, first * ~mask]), first)


def test_shards_that_disagree_merge_to_the_sign_of_their_sum() -> None:
    """The mean of the weights with that sign, without the others."""
    shards = [torch.tensor([3.0, 1.0]), torch.tensor([1.0, -2.0]), torch.tensor([-1.0, -4.0])]
    assert merged(shards).tolist() == [2.0, -3.0]
