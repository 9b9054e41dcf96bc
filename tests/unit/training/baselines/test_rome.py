"""ROME, and its closed form."""

from __future__ import annotations

import msgspec
import pytest
import torch

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.baselines.key_statistics import KeyStatistics, StatisticsConfig
from training.baselines.rome import ROME_CONFIG, Rome, RomeConfig, cholesky, rank_one
from training.baselines.shifts import SearchConfig, edit_rows
from training.baselines.suffixes import at_subject
from training.runs import TrainingError, read_config

EDIT = EditDraft(prompt="The capital of France", subject="France", target_new="Seine")
OTHER = EditDraft(prompt="What river is in Paris?", subject="Paris", target_new="is")
TEXTS = ["The capital of France is Paris, and the river is the Seine.", "It rains in the capital."] * 3
SEARCH = SearchConfig(
    contexts=2, context_tokens=4, steps=25, step=1.0, limit=4.0, decay=1e-3, essence=0.0625, enough=0.05
)
STATISTICS = StatisticsConfig(tokens=1_000)
CONFIG = RomeConfig(layer=1, damping=1e-2, search=SEARCH, statistics=STATISTICS)


def rome(model: CausalModel, config: RomeConfig = CONFIG) -> Rome:
    return Rome(model, config, KeyStatistics(model, TEXTS, tokens=1_000, folder=None))


def random_problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A key, a wanted change of its value, and a second moment."""
    generator = torch.Generator().manual_seed(1)
    keys_NI = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    key_I = torch.randn(12, generator=generator, dtype=torch.float64)
    return key_I, torch.randn(5, generator=generator, dtype=torch.float64), keys_NI.T @ keys_NI / 40


def test_the_update_maps_the_key_to_the_value_and_has_rank_one() -> None:
    """ΔW k* is exactly the change, and ΔW has one singular value."""
    key_I, change_D, moment_II = random_problem()
    update_DI = rank_one(key_I, change_D, cholesky(moment_II, damping=0.0))
    assert torch.allclose(update_DI @ key_I, change_D, rtol=1e-12)
    assert torch.linalg.matrix_rank(update_DI) == 1


def test_keys_that_are_orthogonal_under_the_inverse_moment_keep_their_values() -> None:
    """ΔW k = 0 for every k with kᵀ C⁻¹ k* = 0, and not for any k."""
    key_I, change_D, moment_II = random_problem()
    update_DI = rank_one(key_I, change_D, cholesky(moment_II, damping=0.0))
    whitened_I = torch.linalg.solve(moment_II, key_I)
    for seed in range(5):
        any_I = torch.randn(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        kept_I = any_I - whitened_I * (any_I @ whitened_I) / (whitened_I @ whitened_I)
        assert (update_DI @ kept_I).norm() < 1e-12
        assert (update_DI @ any_I).norm() > 1e-3


def test_with_a_white_moment_the_update_is_along_the_key() -> None:
    """C = 1 gives change · kᵀ / ‖k‖²."""
    key_I, change_D, _ = random_problem()
    update_DI = rank_one(key_I, change_D, cholesky(torch.eye(12, dtype=torch.float64), damping=0.0))
    assert torch.allclose(update_DI, torch.outer(change_D, key_I / (key_I @ key_I)))


def test_an_edit_makes_the_target_likely_by_one_matrix_of_rank_one(editable: CausalModel) -> None:
    """The target's probability rises beyond one half; nothing but one matrix changes, by rank one."""
    before = {name: value.clone() for name, value in editable.network.state_dict().items()}
    pair = (EDIT.prompt, EDIT.target_new)
    (first,) = editable.target_log_probs([pair])
    rome(editable).edit([EDIT])
    (after,) = editable.target_log_probs([pair])
    assert after.mean() > -0.7 > first.mean()
    changed = {
        name for name, value in editable.network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"model.layers.1.mlp.down_proj.weight"}
    change_DI = editable.value_matrix(1).weight - before["model.layers.1.mlp.down_proj.weight"]
    values = torch.linalg.svdvals(change_DI.double())
    assert values[1] < 1e-5 * values[0]


def test_the_key_is_the_same_wherever_it_stands(editable: CausalModel) -> None:
    """ΔW is along C⁻¹ of the mean key over the contexts, and that key is what gets the searched value."""
    editor = rome(editable)
    editor.prepare()
    matrix = editable.value_matrix(1)
    before_DI = matrix.weight.detach().clone()
    rows = edit_rows(editable, EDIT, editor.contexts)
    keys, _ = at_subject(editable, rows.in_contexts, [1])
    key_I = keys[1].double().mean(0)
    assert (key_I - keys[1][0].double()).norm() > 1e-3 * key_I.norm()  # the mean is not the bare prompt's key
    moment_II = KeyStatistics(editable, TEXTS, tokens=1_000, folder=None).moments([1])[1]
    editor.edit([EDIT])
    change_DI = (matrix.weight - before_DI).double()
    wanted_DI = rank_one(key_I, change_DI @ key_I, cholesky(moment_II, damping=CONFIG.damping))
    assert torch.allclose(change_DI, wanted_DI, atol=1e-5 * change_DI.abs().max().item())


def test_edits_add_up_and_undo_is_bit_by_bit(editable: CausalModel) -> None:
    """After edits, in one call and in two, every parameter and buffer is as before; and again after more."""
    before = {name: value.clone() for name, value in editable.network.state_dict().items()}
    editor = rome(editable)
    for _ in range(2):
        editor.edit([EDIT])
        editor.edit([OTHER, EDIT])
        assert editor.held_bytes == 32 * 64 * 4
        editor.undo()
        assert editor.held_bytes == 0
        assert all(torch.equal(value, before[name]) for name, value in editable.network.state_dict().items())
    editor.undo()


def test_progress_counts_edits(editable: CausalModel) -> None:
    """It begins at none of all and ends at all."""
    seen: list[tuple[str, int, int]] = []
    editor = rome(editable)
    editor.prepare()
    editor.edit([EDIT, OTHER], on_progress=lambda *call: seen.append(call))
    assert seen == [("edits", 0, 2), ("edits", 1, 2), ("edits", 2, 2)]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (EditDraft(prompt="Who?", target_new="He"), r"'Who\?' names no subject.*give the field subject"),
        (EditDraft(prompt="Who?", target_new="He", subject="Ann"), r"does not contain its subject 'Ann'"),
    ],
)
def test_an_edit_without_its_subject_is_refused_and_none_is_made(
    editable: CausalModel, edit: EditDraft, message: str
) -> None:
    """The error says what is missing; edits before it in the call are not made either."""
    before_DI = editable.value_matrix(1).weight.clone()
    with pytest.raises(TrainingError, match=message):
        rome(editable).edit([EDIT, edit])
    assert torch.equal(editable.value_matrix(1).weight, before_DI)


def test_a_missing_layer_is_named(editable: CausalModel) -> None:
    """The error comes with the making of the method."""
    with pytest.raises(ConfigError, match=r"'model\.layers\.9'"):
        rome(editable, msgspec.structs.replace(CONFIG, layer=9))


def test_the_configuration_of_the_repository_is_read() -> None:
    """It has every setting, and none besides."""
    assert read_config(ROME_CONFIG, RomeConfig).search.steps > 0
