"""Training of the adapter, on a tiny Gemma with a task that it can learn: copy the value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from serac_gateway.errors import ConfigError
from serac_gateway.models.counterfactual.prompts import trained_prompt
from serac_gateway.models.language_models.lora import merge_adapter
from tests.tiny_language_models import tiny_gemma, tiny_tokenizer
from training.counterfactual import run as counterfactual_run
from training.counterfactual.examples import Example
from training.counterfactual.train import AdapterSettings, encode, train_adapter
from training.runs import TrainingError, read_config
from training.scope.train import Trained

SETTINGS = AdapterSettings(
    steps=30, batch_size=4, learning_rate=1e-2, rank=8, bfloat16=False, other_tokens=20, max_tokens=400,
    threads=1, checkpoint_every_steps=10,
)  # fmt: skip
EXAMPLES = [
    Example(prompt="a?", target_new=value, text="a?", answer=value, form="question")
    for value in ("Paris", "the Seine", "France", "12")
]


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def trained(run: Path, settings: AdapterSettings = SETTINGS, **fields: object) -> tuple[Trained, list[float]]:
    losses: list[float] = []
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token_id = 0
    done = train_adapter(
        fields.get("examples", EXAMPLES),  # type: ignore[arg-type]
        model=fields.get("model") or tiny_gemma(tokenizer), tokenizer=tokenizer, run=run, settings=settings,
        on_step=fields.get("on_step") or (lambda step, steps, loss: losses.append(loss)),  # type: ignore[arg-type]
    )  # fmt: skip
    return done, losses


def test_the_loss_falls_and_the_checkpoint_is_an_adapter_of_the_model(tmp_path: Path) -> None:
    done, losses = trained(tmp_path)
    assert done.steps == len(losses) == 30
    assert losses[-1] < losses[0] / 2
    merge_adapter(tiny_gemma(tiny_tokenizer()), done.checkpoint)
    config = json.loads((done.checkpoint / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "google/gemma-3-270m"


def test_a_stopped_run_goes_on_to_the_same_adapter(tmp_path: Path) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", on_step=stop)
    _, losses = trained(tmp_path / "stopped")
    assert len(losses) == 20  # from the checkpoint of step 10
    whole, _ = trained(tmp_path / "whole")
    resumed, straight = (
        load_file(tmp_path / run / "checkpoint/adapter_model.safetensors") for run in ("stopped", "whole")
    )
    assert whole.steps == 30
    for name, tensor in straight.items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-4, rtol=1e-3)


def test_an_answer_is_learned_with_its_end_and_the_prompt_is_the_one_served() -> None:
    tokenizer = tiny_tokenizer()
    example = EXAMPLES[1]
    encoded = encode(example, tokenizer)
    prompt = trained_prompt(example, example.query, field_chars=480)
    assert prompt == "Fact: a?\nValue: the Seine\nQuestion: a?\nAnswer:"
    assert tokenizer.decode(encoded.ids[1 : encoded.answer_from]) == prompt
    assert tokenizer.decode(encoded.ids[encoded.answer_from :]) == " the Seine<eos>"


@pytest.mark.parametrize("examples", [[], [msgspec.structs.replace(EXAMPLES[0], text="long " * 500)]])
def test_no_usable_examples_is_an_error_that_says_so(tmp_path: Path, examples: list[Example]) -> None:
    with pytest.raises(TrainingError, match=r"none of the \d examples has 40 tokens or fewer"):
        trained(tmp_path, msgspec.structs.replace(SETTINGS, max_tokens=40), examples=examples)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, msgspec.structs.replace(SETTINGS, steps=10))
    with pytest.raises(TrainingError, match="is of another run"):
        trained(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = tiny_gemma(tiny_tokenizer())
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(torch.inf)
    with pytest.raises(TrainingError, match=r"the loss became nan at step 0; .* lower learning_rate"):
        trained(tmp_path, model=model)
    assert not (tmp_path / "checkpoint").exists()


def test_the_export_is_half_as_large_and_carries_card_and_notice(tmp_path: Path) -> None:
    done, _ = trained(tmp_path)
    config = counterfactual_run.CounterfactualConfig(training=SETTINGS)
    out = counterfactual_run.export(config, tmp_path, tmp_path / "out")
    sizes = [(folder / "adapter_model.safetensors").stat().st_size for folder in (done.checkpoint, out)]
    assert sizes[1] < 0.6 * sizes[0]
    merge_adapter(tiny_gemma(tiny_tokenizer()), out)
    assert "Gemma Terms of Use" in (out / "NOTICE").read_text()
    (out / "README.md").write_text("worked on")
    counterfactual_run.export(config, tmp_path, out)
    assert (out / "README.md").read_text() == "worked on"


def test_an_export_without_a_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no checkpoint; train first"):
        counterfactual_run.export(counterfactual_run.CounterfactualConfig(), tmp_path, tmp_path / "out")


def test_the_shipped_configuration_is_read_and_an_unknown_key_is_named(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[3] / "configs/training/counterfactual.toml"
    config = read_config(shipped, counterfactual_run.CounterfactualConfig)
    assert config.examples.held_out_relations[0] == "P36"
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[training]\nstepps = 3\n")
    with pytest.raises(ConfigError, match="stepps"):
        read_config(wrong, counterfactual_run.CounterfactualConfig)


def test_a_run_folder_of_another_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match="the run of another configuration"):
        counterfactual_run.train(
            counterfactual_run.CounterfactualConfig(), tmp_path, on_progress=lambda part, done, total: None
        )
