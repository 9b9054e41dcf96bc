"""Merging of adapters, against peft's own."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from serac_gateway.errors import ConfigError
from serac_gateway.language_models.adapters import adapter_fingerprint, is_adapter, merge_adapter
from serac_gateway.language_models.base import Sampling
from serac_gateway.language_models.transformers import TransformersLanguageModel
from tests.tiny_language_models import saved_tiny_gemma, tiny_gemma, tiny_tokenizer


def saved_adapter(folder: Path, *, seed: int = 1) -> torch.nn.Module:
    """Write an adapter that changes a lot; gives peft's own merged model."""
    config = LoraConfig(
        r=4, lora_alpha=12, target_modules=["q_proj", "down_proj"], init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft 0.21 asks transformers 5 for an attribute by its old name
        base = tiny_gemma(tiny_tokenizer())
        torch.manual_seed(seed)
        model = get_peft_model(base, config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.mul_(100 if "lora_B" in name else 1)
        model.save_pretrained(str(folder), save_embedding_layers=False)
        merged: torch.nn.Module = model.merge_and_unload()
    return merged


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[0, 60, 61, 62]])).logits  # type: ignore[no-any-return]


def test_a_merged_adapter_computes_what_peft_computes(tmp_path: Path) -> None:
    reference = saved_adapter(tmp_path)
    model = tiny_gemma(tiny_tokenizer())
    assert not torch.allclose(logits(model), logits(reference), atol=1e-2)
    merge_adapter(model, tmp_path)
    torch.testing.assert_close(logits(model), logits(reference), atol=1e-3, rtol=1e-3)


def test_transformers_models_are_served_with_the_adapter_merged(tmp_path: Path) -> None:
    saved_adapter(tmp_path / "adapter")
    base = saved_tiny_gemma(tmp_path / "base")
    sampling = Sampling(max_tokens=30, temperature=2.0, seed=1)
    answers = {
        "".join(p.text for p in model.generate("The capital", sampling))
        for model in (
            TransformersLanguageModel(str(base)),
            TransformersLanguageModel(str(base), adapter=tmp_path / "adapter"),
        )
    }
    assert len(answers) == 2


def test_equal_adapters_have_equal_fingerprints_and_others_have_not(tmp_path: Path) -> None:
    saved_adapter(tmp_path / "one")
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "one").iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    saved_adapter(tmp_path / "other", seed=2)
    one, copy, other = (adapter_fingerprint(tmp_path / name) for name in ("one", "copy", "other"))
    assert one == copy != other
    assert is_adapter(tmp_path / "one")
    assert not is_adapter(tmp_path)


def test_an_adapter_of_another_model_is_refused_with_the_weight_that_does_not_fit(tmp_path: Path) -> None:
    saved_adapter(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    wider = {name: torch.cat([one, one], -1) if "lora_A" in name else one for name, one in weights.items()}
    save_file(wider, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"belongs to another model: it changes 'model\.layers"):
        merge_adapter(tiny_gemma(tiny_tokenizer()), tmp_path)


@pytest.mark.parametrize("damage", ["cut", "gone", "other weights", "no rank"])
def test_a_damaged_adapter_is_named(tmp_path: Path, damage: str) -> None:
    saved_adapter(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "gone":
        weights.unlink()
        with pytest.raises(ConfigError, match="cannot read the adapter"):
            adapter_fingerprint(tmp_path)
    elif damage == "other weights":
        save_file({"base_model.model.lm_head.weight": torch.zeros(2, 2)}, weights)
    else:
        (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot read the adapter"):
        merge_adapter(tiny_gemma(tiny_tokenizer()), tmp_path)
