"""AlphaEdit, and its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from training.baselines.alphaedit import (
    ALPHAEDIT_CONFIG,
    AlphaEdit,
    AlphaEditConfig,
    projected_least_squares,
    projector,
)
from training.baselines.causal_model import CausalModel
from training.baselines.key_statistics import KeyStatistics, StatisticsConfig
from training.baselines.shifts import SearchConfig
from training.runs import TrainingError, read_config

EDITS = [
    EditDraft(prompt="The capital of France", subject="France", target_new="Seine"),
    EditDraft(prompt="What is the river of Paris?", subject="Paris", target_new="is"),
]
TEXTS = ["The capital of France is Paris, and the river is the Seine.", "It rains in the capital."] * 3
SEARCH = SearchConfig(
    contexts=0, context_tokens=0, steps=15, step=0.2, limit=2.0, decay=1e-3, essence=0.0625, enough=0.05
)
STATISTICS = StatisticsConfig(tokens=1_000)
CONFIG = AlphaEditConfig(layers=(0, 1), free_share=0.5, ridge=0.1, search=SEARCH, statistics=STATISTICS)


def alphaedit(model: CausalModel) -> AlphaEdit:
    return AlphaEdit(model, CONFIG, KeyStatistics(model, TEXTS, tokens=1_000, folder=None))


def drawn(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment() -> Tensor:
    """Of keys that are spread unequally over 12 dimensions."""
    keys_NI = drawn(60, 12, 0) * torch.logspace(0, -2, 12, dtype=torch.float64) @ drawn(12, 12, 1)
    return keys_NI.T @ keys_NI / 60


def test_the_projector_is_a_projector() -> None:
    """P² = P = Pᵀ, and it keeps at most the share of C's trace that it was given, and nearly that much."""
    for free_share in (0.0, 0.01, 0.2, 1.0):
        projector_II = projector(moment(), free_share=free_share)
        assert torch.allclose(projector_II @ projector_II, projector_II, atol=1e-12)
        assert torch.equal(projector_II, projector_II.T)
        assert (projector_II @ moment()).trace() <= (free_share + 1e-9) * moment().trace()
    assert torch.allclose(projector(moment(), free_share=1.0), torch.eye(12, dtype=torch.float64))
    assert not projector(moment(), free_share=0.0).any()
    assert 0 < round(projector(moment(), free_share=0.01).trace().item()) < 12


def test_keys_outside_of_the_projectors_range_keep_their_values() -> None:
    """ΔW k = 0 wherever P k = 0, and not for any k."""
    projector_II = projector(moment(), free_share=0.05)
    keys_EI, earlier_PI, residuals_ED = drawn(3, 12, 2), drawn(2, 12, 3), drawn(3, 5, 4)
    update_DI = projected_least_squares(keys_EI, residuals_ED, earlier_PI, projector_II, ridge=0.1)
    others_NI = drawn(20, 12, 5)
    kept_NI = others_NI - others_NI @ projector_II
    assert (kept_NI @ update_DI.T).abs().max() < 1e-10
    assert (others_NI @ update_DI.T).norm(dim=1).min() > 1e-4


def test_the_update_is_the_published_one() -> None:
    """ΔW (K_p K_pᵀ P + K Kᵀ P + r 1) = R Kᵀ P."""
    projector_II = projector(moment(), free_share=0.2)
    keys_EI, earlier_PI, residuals_ED = drawn(3, 12, 2), drawn(4, 12, 3), drawn(3, 5, 4)
    update_DI = projected_least_squares(keys_EI, residuals_ED, earlier_PI, projector_II, ridge=0.7)
    sum_II = (earlier_PI.T @ earlier_PI + keys_EI.T @ keys_EI) @ projector_II
    sum_II += 0.7 * torch.eye(12, dtype=torch.float64)
    assert torch.allclose(update_DI @ sum_II, residuals_ED.T @ keys_EI @ projector_II, atol=1e-10)


def test_without_a_constraint_it_is_ridge_regression_with_history() -> None:
    """P = 1 gives R Kᵀ (K_p K_pᵀ + K Kᵀ + r 1)⁻¹."""
    keys_EI, earlier_PI, residuals_ED = drawn(3, 12, 2), drawn(4, 12, 3), drawn(3, 5, 4)
    one_II = torch.eye(12, dtype=torch.float64)
    update_DI = projected_least_squares(keys_EI, residuals_ED, earlier_PI, one_II, ridge=0.7)
    sum_II = earlier_PI.T @ earlier_PI + keys_EI.T @ keys_EI + 0.7 * one_II
    assert torch.allclose(update_DI, residuals_ED.T @ keys_EI @ torch.linalg.inv(sum_II), atol=1e-10)


def test_earlier_edits_are_held() -> None:
    """With their keys in the history, a later update changes their values less."""
    one_II = torch.eye(12, dtype=torch.float64)
    keys_EI, earlier_PI, residuals_ED = drawn(3, 12, 2), drawn(4, 12, 3), drawn(3, 5, 4)
    with_history, without = (
        projected_least_squares(keys_EI, residuals_ED, history_PI, one_II, ridge=0.01)
        for history_PI in (earlier_PI, earlier_PI[:0])
    )
    assert (with_history @ earlier_PI.T).norm() < 0.05 * (without @ earlier_PI.T).norm()


def test_edits_raise_their_targets_and_spare_the_common_directions(editable: CausalModel) -> None:
    """Each target gets likelier; each change of a matrix vanishes on what P maps to 0."""
    before = {layer: editable.value_matrix(layer).weight.clone() for layer in CONFIG.layers}
    moments = KeyStatistics(editable, TEXTS, tokens=1_000, folder=None).moments(CONFIG.layers)
    pairs = [(editable.prompt_text(edit.prompt), edit.target_new) for edit in EDITS]
    first = [part.mean() for part in editable.target_log_probs(pairs)]
    editor = alphaedit(editable)
    for edit in EDITS:
        editor.edit([edit])
    after = [part.mean() for part in editable.target_log_probs(pairs)]
    assert all(late > early + 0.3 for early, late in zip(first, after, strict=True)), (first, after)
    for layer in CONFIG.layers:
        change_DI = (editable.value_matrix(layer).weight - before[layer]).double()
        kept_DI = change_DI - change_DI @ projector(moments[layer], free_share=CONFIG.free_share)
        assert kept_DI.norm() < 1e-4 * change_DI.norm()


def test_undo_is_bit_by_bit_and_forgets_the_history(editable: CausalModel) -> None:
    """After it the matrices are as before, and the same edit gives the same change as the first time."""
    before = {name: value.clone() for name, value in editable.network.state_dict().items()}
    editor = alphaedit(editable)
    editor.edit(EDITS[:1])
    once_DI = editable.value_matrix(1).weight.clone()
    editor.edit(EDITS[1:])
    assert editor.held_bytes == 2 * (32 * 64 * 4 + 2 * 64 * 8)
    editor.undo()
    assert editor.held_bytes == 0
    assert all(torch.equal(value, before[name]) for name, value in editable.network.state_dict().items())
    editor.edit(EDITS[:1])
    assert torch.equal(editable.value_matrix(1).weight, once_DI)


def test_an_edit_without_a_subject_is_refused(editable: CausalModel) -> None:
    """The error says what to give."""
    with pytest.raises(TrainingError, match="names no subject"):
        alphaedit(editable).edit([EditDraft(prompt="Who?", target_new="He")])


def test_the_configuration_of_the_repository_is_read() -> None:
    """It has every setting, and none besides."""
    assert read_config(ALPHAEDIT_CONFIG, AlphaEditConfig).ridge > 0
