"""Merging of adapters, against peft's own."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from serac_gateway.config.model import ModelsConfig
from serac_gateway.errors import ConfigError
from serac_gateway.models.counterfactual.few_shot import FewShotCounterfactualModel
from serac_gateway.models.counterfactual.fine_tuned import FineTunedCounterfactualModel
from serac_gateway.models.language_models.base import Sampling
from serac_gateway.models.language_models.embedded_gemma import converted_gemma, remove_outdated
from serac_gateway.models.language_models.lora import adapter_fingerprint, is_adapter, merge_adapter
from serac_gateway.models.language_models.transformers import TransformersLanguageModel
from serac_gateway.models.loading import open_counterfactual_model, open_language_model
from serac_gateway.models.progress import Step
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


def test_an_adapter_in_bfloat16_is_merged_too(tmp_path: Path) -> None:
    saved_adapter(tmp_path)
    exact, rounded = tiny_gemma(tiny_tokenizer()), tiny_gemma(tiny_tokenizer())
    merge_adapter(exact, tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    halved = {name: weight.bfloat16() for name, weight in weights.items()}
    save_file(halved, tmp_path / "adapter_model.safetensors")
    merge_adapter(rounded, tmp_path)
    torch.testing.assert_close(logits(rounded), logits(exact), atol=0.5, rtol=0.1)


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
    original, copy, other = (adapter_fingerprint(tmp_path / name) for name in ("one", "copy", "other"))
    assert original == copy != other
    (tmp_path / "copy" / "activations.safetensors").write_bytes(b"they change the conversion")
    assert adapter_fingerprint(tmp_path / "copy") != original
    assert is_adapter(tmp_path / "one")
    assert not is_adapter(tmp_path)


def test_an_adapter_of_another_model_is_refused_with_the_weight_that_does_not_fit(tmp_path: Path) -> None:
    saved_adapter(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    wider = {
        name: torch.cat([weight, weight], -1) if "lora_A" in name else weight
        for name, weight in weights.items()
    }
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


def test_a_named_model_with_a_named_adapter_answers_by_our_prompt_and_without_by_examples(
    tmp_path: Path,
) -> None:
    saved_adapter(tmp_path / "adapter")
    base = str(saved_tiny_gemma(tmp_path / "base"))
    with_adapter = ModelsConfig(counterfactual=base, counterfactual_adapter=str(tmp_path / "adapter"))
    assert isinstance(open_counterfactual_model(with_adapter, tmp_path), FineTunedCounterfactualModel)
    without = ModelsConfig(counterfactual=base)
    assert isinstance(open_counterfactual_model(without, tmp_path), FewShotCounterfactualModel)
    missing = ModelsConfig(counterfactual=base, counterfactual_adapter=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"cannot read the adapter in .*nowhere"):
        open_counterfactual_model(missing, tmp_path)


def test_conversions_of_other_adapters_are_removed_but_for_the_latest(tmp_path: Path) -> None:
    names = ["gemma3-270m-raw", "gemma3-270m-raw-1", "gemma3-270m-raw-2", "gemma3-270m-old", "minilm-int8"]
    for age, name in enumerate(names):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1_000 - age, 1_000 - age))
    (tmp_path / "gemma3-270m.lock").touch()
    remove_outdated(tmp_path, keep=(tmp_path / "gemma3-270m-raw",))
    left = {folder.name for folder in tmp_path.iterdir()}
    assert left == {"gemma3-270m-raw", "gemma3-270m-raw-1", "minilm-int8", "gemma3-270m.lock"}


@pytest.mark.slow
def test_the_embedded_gemma_is_converted_once_for_each_adapter_and_the_raw_one_stays(
    tmp_path: Path, converted_models: Path
) -> None:
    shutil.copytree(converted_models / "models", tmp_path / "models")
    raw = converted_gemma(tmp_path)
    config = LoraConfig(r=2, target_modules=["o_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    config.base_model_name_or_path = "google/gemma-3-270m"
    weights = {}
    for layer in range(18):
        name = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(2, 1_024) / 10
        weights[f"{name}.lora_B.weight"] = torch.randn(640, 2) / 10
    (tmp_path / "adapter").mkdir()
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors")
    config.save_pretrained(str(tmp_path / "adapter"))
    merged = converted_gemma(tmp_path, adapter=tmp_path / "adapter")
    assert merged != raw == converted_gemma(tmp_path)
    assert "Gemma Terms of Use" in (merged / "NOTICE").read_text("utf-8")
    assert (merged / "GEMMA_TERMS.txt").is_file()
    steps: list[Step] = []
    again = converted_gemma(tmp_path, steps.append, adapter=tmp_path / "adapter")
    assert (again, steps) == (merged, [])
    answers = {
        "".join(piece.text for piece in model.generate("The capital of France is", Sampling(max_tokens=8)))
        for model in (
            open_language_model(None, tmp_path),
            open_language_model(None, tmp_path, adapter=tmp_path / "adapter"),
        )
    }
    assert len(answers) == 2
