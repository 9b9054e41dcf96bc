"""Second moments of keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.baselines.hooks import recorded
from training.baselines.key_statistics import KeyStatistics, plain_texts

TEXTS = ["The capital of France is Paris, and the river is the Seine.", "It rains."] * 4


def test_the_moment_is_the_mean_outer_product_without_the_first_token(model: CausalModel) -> None:
    """Of one row it is the mean of k kᵀ over all tokens but the beginning-of-sequence token."""
    moment_II = KeyStatistics(model, ["It rains in France."], tokens=1_000, folder=None).moments([1])[1]
    with recorded({1: model.value_matrix(1)}, inputs=True) as keys:
        model.hidden(model.batch([model.prompt_ids("It rains in France.")]))
    keys_NI = keys[1][0, 1:].double()
    assert torch.allclose(moment_II, keys_NI.T @ keys_NI / len(keys_NI), rtol=1e-4, atol=1e-6)


def test_padding_does_not_count(model: CausalModel) -> None:
    """The mean over rows of unequal length weighs each token alike."""
    rows = ["France " * 80, "It rains."]
    together = KeyStatistics(model, rows, tokens=1_000, folder=None).moments([0])[0]
    assert torch.linalg.eigvalsh(together).min() > -1e-4
    trace = together.trace()
    with recorded({0: model.value_matrix(0)}, inputs=True) as keys:
        model.hidden(model.batch([model.prompt_ids(rows[0])[:64]]))
        squares = [keys[0][0, 1:].square().sum(1)]
        model.hidden(model.batch([model.prompt_ids(rows[1])]))
        squares.append(keys[0][0, 1:].square().sum(1))
    assert trace.item() == pytest.approx(torch.cat(squares).mean().item(), rel=1e-4)


def test_they_are_read_back_from_the_folder(model: CausalModel, tmp_path: Path) -> None:
    """A second call computes nothing, and gives the same to float32; another layer is computed then."""
    calls: list[str] = []
    statistics = KeyStatistics(model, TEXTS, tokens=1_000, folder=tmp_path)
    first = statistics.moments([0], on_progress=lambda part, done, total: calls.append(part))
    count = len(calls)
    assert count > 0
    again = statistics.moments([0], on_progress=lambda part, done, total: calls.append(part))
    assert len(calls) == count
    assert torch.allclose(first[0], again[0], rtol=1e-6)
    statistics.moments([0, 1])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_another_model_or_text_is_computed_anew(model: CausalModel, tmp_path: Path) -> None:
    """What lies in the folder belongs to the weights and the texts that it was computed with."""
    before = KeyStatistics(model, TEXTS, tokens=1_000, folder=tmp_path).moments([1])[1]
    KeyStatistics(model, ["It snows."], tokens=1_000, folder=tmp_path).moments([1])
    model.value_matrix(0).weight.data.neg_()
    after = KeyStatistics(model, TEXTS, tokens=1_000, folder=tmp_path).moments([1])[1]
    assert not torch.allclose(before, after)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


def test_no_more_tokens_are_read_than_wanted(model: CausalModel) -> None:
    """The progress ends at the number of tokens."""
    seen: list[tuple[int, int]] = []
    KeyStatistics(model, ["word " * 30] * 5_000, folder=None, tokens=2_000).moments(
        [0], on_progress=lambda part, done, total: seen.append((done, total))
    )
    assert seen[-1] == (2_000, 2_000)
    assert len(seen) < 10


def test_without_text_there_is_a_clear_error(model: CausalModel, tmp_path: Path) -> None:
    """No file, an empty file and texts without a token are named."""
    with pytest.raises(ConfigError, match=r"cannot read the texts .*missing\.txt"):
        plain_texts(tmp_path / "missing.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(ConfigError, match=r"empty\.txt' holds no text"):
        plain_texts(empty)
    with pytest.raises(ConfigError, match="have no token"):
        KeyStatistics(model, [], tokens=1_000, folder=None).moments([0])


def test_without_public_data_the_error_says_where_a_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the folder and the setting."""
    monkeypatch.setenv("SERAC_DATA", "/nowhere")
    with pytest.raises(ConfigError, match=r"'/nowhere' does not exist.*texts under \[statistics\]"):
        plain_texts(None)


def test_a_text_file_is_read_by_lines(tmp_path: Path) -> None:
    """Blank lines are left out."""
    path = tmp_path / "texts.txt"
    path.write_text("It rains.\n\n  It snows. \n", "utf-8")
    assert plain_texts(path) == ["It rains.", "It snows."]
