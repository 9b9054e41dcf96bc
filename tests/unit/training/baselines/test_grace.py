"""GRACE: what its codebook does and leaves alone."""

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
from training.baselines.grace import Codebook, Fitted, Grace, GraceSettings

SETTINGS = GraceSettings(layer=1, steps=60, radius_quantile=0.0)
OTHERS = ["A b", "The sea is", "Paris and Rome", "is is is", "Seine"]
EDIT = EditDraft(prompt=PARIS, target_new="Seine")
SECOND = EditDraft(prompt=RIVER, target_new="France")


@pytest.fixture
def grace(model: CausalModel) -> Grace:
    """With a radius measured on five prompts."""
    return Grace(model, SETTINGS, prompts=lambda count: OTHERS[:count])


def test_an_edited_prompt_gets_its_target(model: CausalModel, grace: Grace) -> None:
    """Greedy text begins with the target, with the cache of keys and values and without it."""
    assert not model.greedy([PARIS])[0].startswith("Seine")
    grace.edit([EDIT])
    (said,) = model.greedy([PARIS], max_tokens=8)
    assert said.startswith("Seine")
    assert said == greedy_without_cache(model, PARIS, 8)


def test_beyond_the_radius_nothing_changes(model: CausalModel, grace: Grace) -> None:
    """States of other prompts are bit-equal, also in a batch with the edited prompt, whose own change."""
    before = states(model, PARIS, RIVER, WHO)
    grace.edit([EDIT])
    after = states(model, PARIS, RIVER, WHO)
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0, -1], after[0, -1])


def test_rows_of_a_batch_are_routed_apart(model: CausalModel, grace: Grace) -> None:
    """Each text is continued in a batch as it is alone."""
    grace.edit([EDIT, SECOND])
    texts = [PARIS, WHO, RIVER]
    assert model.greedy(texts, max_tokens=6) == [model.greedy([text], max_tokens=6)[0] for text in texts]


def test_the_prompts_end_decides_for_the_target(model: CausalModel, grace: Grace) -> None:
    """With a target behind it, an edited prompt is recognised as in generation."""
    (before,) = model.target_log_probs([(PARIS, "Seine")])
    grace.edit([EDIT])
    (after,) = model.target_log_probs([(PARIS, "Seine")])
    assert after.mean() > -0.1 > before.mean()


def test_undo_restores_bit_by_bit(model: CausalModel, grace: Grace) -> None:
    """States, parameters and hooks are as before the edits."""
    before, weights, hooked = states(model, PARIS), parameters(model), model.hook_count()
    grace.edit([EDIT, SECOND])
    assert grace.held_bytes == 2 * 2 * 32 * 4
    grace.undo()
    assert torch.equal(states(model, PARIS), before)
    assert all(map(torch.equal, parameters(model), weights))
    assert (model.hook_count(), grace.held_bytes) == (hooked, 0)


def test_a_forgotten_edit_leaves_what_would_have_been_without_it(model: CausalModel, grace: Grace) -> None:
    """States are bit-equal to those of a codebook in which the edit was never made."""
    grace.edit([SECOND])
    without = states(model, PARIS, RIVER)
    grace.undo()
    grace.edit([EDIT, SECOND])
    assert not torch.equal(states(model, PARIS, RIVER), without)
    grace.forget(0)
    assert torch.equal(states(model, PARIS, RIVER), without)


def test_the_newer_edit_of_a_prompt_holds(model: CausalModel, grace: Grace) -> None:
    """Edited twice, a prompt has one key and the last target."""
    grace.edit([EDIT, EditDraft(prompt=PARIS, target_new="France")])
    assert model.greedy([PARIS], max_tokens=6)[0].startswith("France")
    assert len(grace.codebook.entries) == 1


def test_a_quantile_of_distances_is_the_radius(model: CausalModel) -> None:
    """A quantile of 0 and 1 are the least and the largest distance of a prompt to its nearest."""
    least, largest = (
        Grace(model, GraceSettings(layer=1, steps=0, radius_quantile=q), prompts=lambda _: OTHERS)
        for q in (0.0, 1.0)
    )
    for grace in (least, largest):
        grace.edit([EDIT])
        grace.undo()
        grace.edit([EDIT])
    assert 0 < least.codebook.radii[0] < largest.codebook.radii[0]


def _fitted(at: float, target: int) -> Fitted:
    return Fitted(target=(target,), key_D=torch.tensor([at, 0.0]), value_D=torch.tensor([at]))


def test_after_a_conflict_two_radii_do_not_overlap() -> None:
    """Other targets at a distance below the radii share the distance; each key keeps its value."""
    codebook = Codebook([_fitted(0, 1), _fitted(1.5, 2)], 1.0)
    assert sum(codebook.radii) <= 1.5
    assert codebook.value(torch.tensor([0.1, 0])) == 0
    assert codebook.value(torch.tensor([1.4, 0])) == 1.5


def test_the_same_target_expands_a_radius() -> None:
    """A key nearby with the same target makes the nearest key reach it, and none is added."""
    codebook = Codebook([_fitted(0, 1), _fitted(1.5, 1)], 1.0)
    assert (len(codebook.entries), codebook.radii) == (1, [1.5])
    assert codebook.value(torch.tensor([1.5, 0])) == 0
    assert codebook.value(torch.tensor([1.6, 0])) is None


def test_a_far_key_has_the_first_radius() -> None:
    """Beyond both radii a key is added, whatever its target."""
    codebook = Codebook([_fitted(0, 1), _fitted(2.5, 1)], 1.0)
    assert codebook.radii == [1.0, 1.0]
