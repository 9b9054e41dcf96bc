"""Training the retrieval encoder: what it learns from, that it learns and goes on, and what it writes."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from serac_gateway.models.e5.embedded import EmbeddedE5
from serac_gateway.models.encoders.e5 import PREFIX, open_e5_encoder
from tests.e5_files import write_e5_file
from training.data.pairs import Pair
from training.encoder import train as training
from training.encoder.examples import batches, by_prompt, searched_texts
from training.encoder.losses import centred, contrastive_loss
from training.encoder.train import TrainingSettings, in_bf16, train_encoder
from training.encoder.weights import load_encoder, package_encoder, save_encoder
from training.runs import TrainingError

CITIES = ("rome", "paris", "madrid", "vienna", "oslo", "berlin", "lisbon", "warsaw")
ATTRIBUTES = ("mayor", "capital", "river", "weather")
PIECES = [
    (f"▁{word}", -3.0 - place / 10) for place, word in enumerate((*CITIES, *ATTRIBUTES, "of", "query:"))
]
SETTINGS = TrainingSettings(
    layers=(1, 3), steps=30, batch_size=8, learning_rate=5e-3, contrast_weight=0.5, max_tokens=16, threads=1,
    precision="fp32", checkpoint_every_steps=10,
)  # fmt: skip


def pair(prompt: str, text: str, *, in_scope: bool = True, kind: str = "paraphrase", **given: object) -> Pair:
    return Pair(prompt=prompt, target="oslo", text=text, in_scope=in_scope, kind=kind, **given)  # type: ignore[arg-type]


PAIRS = [
    pair(f"{attribute} of {city}", text, in_scope=in_scope, kind="same subject")
    for attribute, other in zip(ATTRIBUTES, ATTRIBUTES[1:] + ATTRIBUTES[:1], strict=True)
    for city in CITIES
    for text, in_scope in ((f"{city} {attribute}", True), (f"{city} {other}", False))
]


@pytest.fixture(scope="module")
def e5(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedE5:
    path = tmp_path_factory.mktemp("e5") / "tiny.bin"
    write_e5_file(path, pieces=PIECES, layers=4)
    return EmbeddedE5(path, "digest of the tiny file")


def test_every_edit_comes_once_before_one_comes_again() -> None:
    made = batches(
        PAIRS, steps=8, batch_size=8, neighbours=4, statement_share=0.5, negative_share=0.5, seed=1
    )
    prompts = [[example.prompt for example in batch] for batch in made]
    first, second = Counter(chain(*prompts[:4])), Counter(chain(*prompts[4:]))
    assert set(first.values()) == set(second.values()) == {1}
    assert len(first) == len(second) == 32
    assert prompts[:4] != prompts[4:]
    assert made == batches(
        PAIRS, steps=8, batch_size=8, neighbours=4, statement_share=0.5, negative_share=0.5, seed=1
    )


def test_examples_have_prompt_or_statement_and_some_a_request_out_of_scope() -> None:
    made = batches(
        PAIRS, steps=4, batch_size=8, neighbours=4, statement_share=0.5, negative_share=0.5, seed=1
    )
    examples = list(chain(*made))
    assert {example.form.removeprefix(example.prompt) for example in examples} == {"", " oslo"}
    assert {example.negative is None for example in examples} == {True, False}


def test_tasks_around_an_edits_question_are_no_negatives() -> None:
    far = pair("p", "far", in_scope=False, kind="same subject")
    edits = by_prompt([
        pair("p", "near"),
        far,
        pair("p", "Translate: p", in_scope=False, kind="contrast, task"),
        pair("p", "p", in_scope=False, kind="request, system task", instructions="Translate."),
        pair("p", "and there?", in_scope=False, kind="follow-up", context=("p",)),
        pair("nothing in scope", "text", in_scope=False, kind="same subject"),
    ])  # fmt: skip
    assert list(edits) == ["p"]
    assert edits["p"].out_of_scope == (far,)


def test_a_follow_up_is_searched_with_its_turns_and_a_message_by_its_sentences() -> None:
    assert searched_texts(pair("p", "And its mayor?", context=("Tell me of Oslo",))) == (
        "Tell me of Oslo And its mayor?",
    )
    message = "I was there last year. Who is its mayor?"
    assert searched_texts(pair("p", message)) == (message, "Who is its mayor?", "I was there last year.")


def test_one_edit_is_not_enough_to_learn_from(e5: EmbeddedE5, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="1 edits"):
        train_encoder([pair("p", "near")], run=tmp_path, settings=SETTINGS, e5=e5)


def unit(*angles: float) -> torch.Tensor:
    return torch.tensor([[np.cos(angle), np.sin(angle)] for angle in angles], dtype=torch.float32)


def contrast(forms: torch.Tensor, requests: torch.Tensor, **changed: object) -> float:
    given: dict[str, object] = {
        "alike_BB": torch.eye(len(forms), dtype=torch.bool), "negatives_ND": unit(),
        "owners_N": torch.zeros(0, dtype=torch.long), "temperature": 0.1, "negative_weight": 0.3,
    }  # fmt: skip
    given["negatives_ND"] = torch.zeros(0, 2)
    return contrastive_loss(forms, requests, **(given | changed)).item()  # type: ignore[arg-type]


def test_edits_that_ask_the_same_are_no_negatives_of_each_other() -> None:
    forms, requests = unit(0, 0.05), unit(0.05, 0)
    apart = contrast(forms, requests)
    assert apart > 0.6, "both requests are as near to the other edit"
    assert contrast(forms, requests, alike_BB=torch.ones(2, 2, dtype=torch.bool)) < 1e-3


def test_a_near_request_out_of_scope_counts_less_for_its_own_edit_than_for_others() -> None:
    forms, requests = unit(0, 1.5), unit(0.1, 1.6)
    near = {"negatives_ND": unit(0.1)}
    of_own = contrast(forms, requests, owners_N=torch.tensor([0]), **near)
    of_other = contrast(forms, requests, owners_N=torch.tensor([1]), **near)
    assert contrast(forms, requests) < of_own < of_other


def test_centred_vectors_of_unrelated_texts_are_far_apart() -> None:
    rng = torch.Generator().manual_seed(0)
    raw_TD = torch.nn.functional.normalize(4 + torch.randn(50, 32, generator=rng), dim=1)
    assert (raw_TD @ raw_TD.T).min() > 0.8
    made_TD = centred(raw_TD, raw_TD.mean(0))
    assert (made_TD @ made_TD.T).fill_diagonal_(0).abs().mean() < 0.2


def test_it_learns_to_find_the_edit(e5: EmbeddedE5, tmp_path: Path) -> None:
    losses: list[float] = []
    settings = msgspec.structs.replace(SETTINGS, steps=120, contrast_weight=2.0)
    trained = train_encoder(
        PAIRS, run=tmp_path, settings=settings, e5=e5,
        progress=lambda step, steps, loss: losses.append(loss),
    )  # fmt: skip
    assert len(losses) == trained.steps == 120
    encoder = open_e5_encoder(
        e5,
        tmp_path / "models",
        weights=save_encoder(
            load_encoder(trained.checkpoint), tmp_path / "w", e5, dtype=torch.float16
        ).parent,
    )
    before = open_e5_encoder(e5, tmp_path / "models")
    prompts = sorted({p.prompt for p in PAIRS})
    requests = [" ".join(reversed(prompt.split(" of "))) for prompt in prompts]

    def share_first(cosines_NN: np.ndarray) -> float:
        return float((cosines_NN.argmax(1) == np.arange(len(prompts))).mean())

    after = share_first(encoder.encode(requests) @ encoder.encode(prompts).T)
    assert after > share_first(before.encode(requests) @ before.encode(prompts).T)
    assert after > 0.5, "of 32 edits; random weights of two narrow layers learn no more in 120 steps"


def test_the_gateway_reads_what_was_trained(e5: EmbeddedE5, tmp_path: Path) -> None:
    """The float16 weights, converted to int8, give torch's vectors; the words stay in the package."""
    train_encoder(PAIRS, run=tmp_path / "run", settings=SETTINGS, e5=e5)
    model = load_encoder(tmp_path / "run" / "checkpoint").eval()
    written = save_encoder(model, tmp_path / "weights", e5, dtype=torch.float16)
    assert not any("word_embeddings" in name for name in load_file(written))
    encoder = open_e5_encoder(e5, tmp_path / "models", weights=written.parent)
    texts = ["mayor of oslo", "river rome", "capital"]
    rows = [e5.words.rows(e5.tokenizer.single(PREFIX + text, 48)) for text in texts]
    with torch.no_grad():
        expected = [
            torch.nn.functional.normalize(
                model(inputs_embeds=torch.from_numpy(row)[None]).last_hidden_state.mean(1), dim=1
            )[0].numpy()
            for row in rows
        ]
    assert (encoder.encode(texts) * np.stack(expected)).sum(1).min() > 0.99


def test_a_stopped_run_goes_on_where_it_was(e5: EmbeddedE5, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 12:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_encoder(PAIRS, run=tmp_path / "stopped", settings=SETTINGS, e5=e5, progress=stop)
    seen: list[int] = []
    train_encoder(
        PAIRS, run=tmp_path / "stopped", settings=SETTINGS, e5=e5,
        progress=lambda step, steps, loss: seen.append(step),
    )  # fmt: skip
    assert seen[0] == 11, "the checkpoint of step 10 is the last one"
    train_encoder(PAIRS, run=tmp_path / "whole", settings=SETTINGS, e5=e5)
    ends = [
        load_encoder(tmp_path / name / "checkpoint").encoder.layer[1].output.dense.weight
        for name in ("stopped", "whole")
    ]
    assert torch.allclose(ends[0], ends[1], atol=1e-4), "going on gives what one run gives"


def test_a_run_of_other_settings_is_not_continued(e5: EmbeddedE5, tmp_path: Path) -> None:
    train_encoder(PAIRS, run=tmp_path, settings=msgspec.structs.replace(SETTINGS, steps=10), e5=e5)
    with pytest.raises(TrainingError, match="another run"):
        train_encoder(PAIRS, run=tmp_path, settings=SETTINGS, e5=e5)


def test_a_loss_that_is_not_finite_ends_training(
    e5: EmbeddedE5, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "distillation_loss", lambda *vectors: torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match="nan at step 0"):
        train_encoder(PAIRS, run=tmp_path, settings=SETTINGS, e5=e5)
    assert not (tmp_path / "checkpoint").exists()


def test_layers_are_those_of_the_package(e5: EmbeddedE5) -> None:
    whole, chosen = package_encoder(e5), package_encoder(e5, (1, 3))
    for place, layer in enumerate((1, 3)):
        kept, source = chosen.encoder.layer[place], whole.encoder.layer[layer]
        assert torch.equal(kept.intermediate.dense.weight, source.intermediate.dense.weight)
    with pytest.raises(TrainingError, match="0 to 3"):
        package_encoder(e5, (0, 4))


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no encoder"):
        load_encoder(tmp_path)


def test_bf16_is_for_processors_that_multiply_it_fast() -> None:
    assert in_bf16("auto", {"amx_bf16": True})
    assert not in_bf16("auto", {"avx512_bf16": True, "amx_bf16": False}), (
        "half as fast as float32 without AMX"
    )
    assert in_bf16("bf16", {})
    assert not in_bf16("fp32", {"amx_bf16": True})
