"""MEMIT, and its closed form."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.baselines.key_statistics import KeyStatistics, StatisticsConfig
from training.baselines.memit import MEMIT_CONFIG, Memit, MemitConfig, least_squares
from training.baselines.post_norms import nearest_on_ellipsoid
from training.baselines.rome import cholesky, rank_one
from training.baselines.shifts import SearchConfig, edit_rows
from training.baselines.suffixes import at_subject
from training.runs import TrainingError, read_config

EDITS = [
    EditDraft(prompt="The capital of France", subject="France", target_new="Seine"),
    EditDraft(prompt="What is the river of Paris?", subject="Paris", target_new="is"),
    EditDraft(prompt="It rains in Spain", subject="Spain", target_new="France"),
]
TEXTS = ["The capital of France is Paris, and the river is the Seine.", "It rains in the capital."] * 3
SEARCH = SearchConfig(
    contexts=1, context_tokens=4, steps=15, step=0.2, limit=2.0, decay=1e-3, essence=0.0625, enough=0.05
)
STATISTICS = StatisticsConfig(tokens=1_000)
CONFIG = MemitConfig(layers=(0, 1), text_weight=0.5, damping=1e-2, search=SEARCH, statistics=STATISTICS)


def memit(model: CausalModel, config: MemitConfig = CONFIG) -> Memit:
    return Memit(model, config, KeyStatistics(model, TEXTS, tokens=1_000, folder=None))


def random_problem(edits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, what their values lack, and a second moment."""
    generator = torch.Generator().manual_seed(1)
    texts_NI = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    keys_EI = torch.randn(edits, 12, generator=generator, dtype=torch.float64)
    residuals_ED = torch.randn(edits, 5, generator=generator, dtype=torch.float64)
    return keys_EI, residuals_ED, texts_NI.T @ texts_NI / 40


@pytest.mark.parametrize("edits", [1, 4, 30])
def test_the_update_solves_the_normal_equation(edits: int) -> None:
    """ΔW (λ C + K Kᵀ) = R Kᵀ, for fewer and for more edits than inner dimensions."""
    keys_EI, residuals_ED, moment_II = random_problem(edits)
    update_DI = least_squares(keys_EI, residuals_ED, cholesky(moment_II, damping=0.0), text_weight=3.0)
    left_DI = update_DI @ (3.0 * moment_II + keys_EI.T @ keys_EI)
    assert torch.allclose(left_DI, residuals_ED.T @ keys_EI, atol=1e-10)


def test_no_other_update_has_a_smaller_sum_of_squares() -> None:
    """The closed form is the minimum of ‖(ΔW) K − R‖² + λ tr(ΔW C ΔWᵀ)."""
    keys_EI, residuals_ED, moment_II = random_problem(4)
    update_DI = least_squares(keys_EI, residuals_ED, cholesky(moment_II, damping=0.0), text_weight=3.0)

    def squares(update_DI: Tensor) -> Tensor:
        missed_ED = keys_EI @ update_DI.T - residuals_ED
        return missed_ED.square().sum() + 3.0 * (update_DI @ moment_II * update_DI).sum()

    for seed in range(20):
        other_DI = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for size in (1e-3, 1.0):
            assert squares(update_DI + size * other_DI) > squares(update_DI)


def test_one_edit_without_weight_of_texts_is_romes() -> None:
    """For one key and λ → 0 the update is the rank-one update of ROME."""
    keys_EI, residuals_ED, moment_II = random_problem(1)
    root_II = cholesky(moment_II, damping=0.0)
    update_DI = least_squares(keys_EI, residuals_ED, root_II, text_weight=1e-12)
    assert torch.allclose(update_DI, rank_one(keys_EI[0], residuals_ED[0], root_II), rtol=1e-8)


def test_the_order_of_a_batch_does_not_matter(editable: CausalModel) -> None:
    """The same edits in another order leave the same matrices, to rounding."""
    editor = memit(editable)
    editor.edit(EDITS)
    forward = [editable.value_matrix(layer).weight.clone() for layer in CONFIG.layers]
    editor.undo()
    editor.edit(EDITS[::-1])
    for layer, weight_DI in zip(CONFIG.layers, forward, strict=True):
        assert torch.allclose(editable.value_matrix(layer).weight, weight_DI, atol=2e-3)


def test_a_batch_makes_its_targets_likely_over_several_layers(editable: CausalModel) -> None:
    """Each target's probability rises; exactly the chosen matrices change, each of them by a fair part."""
    before = {name: value.clone() for name, value in editable.network.state_dict().items()}
    pairs = [(editable.prompt_text(edit.prompt), edit.target_new) for edit in EDITS]
    first = [part.mean() for part in editable.target_log_probs(pairs)]
    memit(editable).edit(EDITS)
    after = [part.mean() for part in editable.target_log_probs(pairs)]
    assert all(late > early + 0.3 for early, late in zip(first, after, strict=True)), (first, after)
    changes = {
        name: (value - before[name]).norm().item()
        for name, value in editable.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert sorted(changes) == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in CONFIG.layers]
    assert min(changes.values()) > 0.05 * max(changes.values())


def test_gemmas_contribution_after_the_edit_is_the_projected_target(editable: CausalModel) -> None:
    """What the edited layer adds at the subject is the point nearest to what it added plus the shift."""
    config = msgspec.structs.replace(CONFIG, layers=(1,), text_weight=1e-9)
    editor = memit(editable, config)
    editor.prepare()
    rows = edit_rows(editable, EDITS[0], editor.contexts)
    matrix, norm = editable.value_matrix(1), editable.module("model.layers.1.post_feedforward_layernorm")
    key_I = at_subject(editable, rows.in_contexts, [1])[0][1].double().mean(0)

    def contribution() -> Tensor:
        return norm((key_I @ matrix.weight.double().T).float()[None])[0].double()

    old_D = contribution()
    (shift_D,) = editor.searched_shifts([rows])
    editor.edit(EDITS[:1])
    gains_D = 1 + norm.get_parameter("weight").double()
    projected_D = gains_D * nearest_on_ellipsoid(gains_D, old_D + shift_D)
    assert torch.allclose(contribution(), projected_D, atol=1e-2)
    assert (projected_D - old_D).norm() > 1.0  # the edit changed something


def test_undo_is_bit_by_bit(editable: CausalModel) -> None:
    """After two batches every parameter and buffer is as before."""
    before = {name: value.clone() for name, value in editable.network.state_dict().items()}
    editor = memit(editable)
    editor.edit(EDITS[:2])
    editor.edit(EDITS[2:])
    assert editor.held_bytes == 2 * 32 * 64 * 4
    editor.undo()
    assert editor.held_bytes == 0
    assert all(torch.equal(value, before[name]) for name, value in editable.network.state_dict().items())


def test_no_edits_change_nothing(editable: CausalModel) -> None:
    """An empty batch is allowed."""
    editor = memit(editable)
    editor.edit([])
    assert editor.held_bytes == 0


def test_an_edit_without_a_subject_is_refused_and_none_is_made(editable: CausalModel) -> None:
    """The others of the batch are not made either."""
    before_DI = editable.value_matrix(0).weight.clone()
    with pytest.raises(TrainingError, match="names no subject"):
        memit(editable).edit([*EDITS, EditDraft(prompt="Who?", target_new="He")])
    assert torch.equal(editable.value_matrix(0).weight, before_DI)


@pytest.mark.parametrize("layers", [(), (1, 0), (1, 1)])
def test_layers_must_ascend(editable: CausalModel, layers: tuple[int, ...]) -> None:
    """None, a wrong order and a repetition are refused."""
    with pytest.raises(ConfigError, match="in ascending order"):
        memit(editable, msgspec.structs.replace(CONFIG, layers=layers))


def test_progress_counts_shifts_and_layers(editable: CausalModel) -> None:
    """Both parts begin at none and end at all."""
    seen: list[tuple[str, int, int]] = []
    editor = memit(editable)
    editor.prepare()
    editor.edit(EDITS[:1], on_progress=lambda *call: seen.append(call))
    assert seen[:2] == [("shifts", 0, 1), ("shifts", 1, 1)]
    assert seen[2:] == [("layers", 0, 2), ("layers", 1, 2), ("layers", 2, 2)]


def test_the_configuration_of_the_repository_is_read() -> None:
    """It has every setting, and none besides."""
    assert read_config(MEMIT_CONFIG, MemitConfig).text_weight > 0
