"""A run of the counterfactual model from data to the adapter that ships; the commands call these."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from serac_gateway.errors import ConfigError
from serac_gateway.models.language_models.base import LanguageModel
from serac_gateway.models.language_models.embedded_gemma import assembled_gguf
from serac_gateway.models.language_models.lora import ACTIVATIONS_FILE, WEIGHTS_FILE, is_adapter
from serac_gateway.models.language_models.lora import CONFIG_FILE as ADAPTER_CONFIG
from serac_gateway.models.loading import open_language_model
from training.counterfactual.examples import Example
from training.counterfactual.mixture import ExampleSettings, training_examples, validation_examples
from training.counterfactual.model_card import write_card
from training.counterfactual.train import AdapterSettings, train_adapter
from training.counterfactual.validation import Outcome, answered
from training.data.embedding import open_embed
from training.data.files import data_folder
from training.data.world import load_world
from training.runs import TrainingError, begin_run, load_records, save_records
from training.scope.train import Trained

EXAMPLES_FILE = "examples.jsonl"
MAX_ADAPTER_BYTES = 20 * 2**20

OnProgress = Callable[[str, int, int], None]


class ValidationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the adapter is measured on."""

    per_source: int = 120
    """Examples of each held-out source."""
    max_answer_tokens: int = 64


class CounterfactualConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `configs/training/counterfactual.toml`."""

    examples: ExampleSettings = ExampleSettings()
    training: AdapterSettings = AdapterSettings()
    validation: ValidationSettings = ValidationSettings()


def train(config: CounterfactualConfig, run: Path, *, on_progress: OnProgress) -> Trained:
    """Make the examples once, then train or go on training.

    Raises:
        TrainingError: See `train_adapter`; also a run folder of another configuration.
        ConfigError: The embedded model is damaged, or a held-out relation unknown.
    """
    begin_run(run, config)
    kept = run / EXAMPLES_FILE
    if not kept.is_file():
        on_progress("making examples", 0, config.training.steps)
        data = data_folder()
        save_records(kept, training_examples(load_world(data), data, config.examples, open_embed()))
    # Imported here: transformers takes seconds to import, which other commands need not wait for.
    from training.embedded_model import load_gguf

    on_progress("loading the model", 0, config.training.steps)
    with tempfile.TemporaryDirectory(dir=run) as work, assembled_gguf(Path(work)) as gguf:
        model, tokenizer = load_gguf(gguf)

    def stepped(step: int, steps: int, loss: float) -> None:
        on_progress(f"loss {loss:.4f}", step, steps)

    return train_adapter(
        load_records(kept, Example), model=model, tokenizer=tokenizer, run=run, settings=config.training,
        on_step=stepped,
    )  # fmt: skip


def export(config: CounterfactualConfig, run: Path, out: Path) -> Path:
    """Write the run's adapter in float16 with its configuration, card and notice into `out`.

    Raises:
        TrainingError: The run has no checkpoint, or its adapter is larger than 20 MiB.
    """
    # Imported here: torch takes seconds to import, which other commands need not wait for.
    from safetensors.torch import load_file, save_file

    checkpoint = run / "checkpoint"
    if not is_adapter(checkpoint):
        raise TrainingError(f"{str(run)!r} holds no checkpoint; train first: serac-train counterfactual")
    halved = {name: tensor.half() for name, tensor in load_file(checkpoint / WEIGHTS_FILE).items()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in halved.values())
    if size > MAX_ADAPTER_BYTES:
        raise TrainingError(
            f"the adapter has {size} bytes, {MAX_ADAPTER_BYTES} may ship; lower training.rank"
        )
    out.mkdir(parents=True, exist_ok=True)
    save_file(halved, out / WEIGHTS_FILE, metadata={"format": "pt"})
    (out / ACTIVATIONS_FILE).unlink(missing_ok=True)  # of an adapter that lay there before
    (out / WEIGHTS_FILE).chmod(0o644)  # safetensors lets nobody else read it
    shutil.copy(checkpoint / ADAPTER_CONFIG, out / ADAPTER_CONFIG)
    write_card(out, held_out=config.examples.held_out_relations, steps=config.training.steps, size=size)
    return out


def validate(
    config: CounterfactualConfig, run: Path, adapter: Path | None, *, on_progress: OnProgress
) -> list[Outcome]:
    """Answer the held-out examples as the gateway would: converted to int8, greedily, guarded and not.

    Raises:
        ConfigError: The adapter is damaged or none; None measures the raw model.
    """
    if adapter is not None and not is_adapter(adapter):
        raise ConfigError(f"{str(adapter)!r} holds no adapter; export one: serac-train counterfactual-export")
    data = data_folder()
    examples = validation_examples(
        load_world(data), data, config.examples, per_source=config.validation.per_source
    )
    model: LanguageModel = open_language_model(
        None, run / "converted", lambda step: on_progress(step.text, 0, len(examples)), adapter=adapter
    )
    outcomes = []
    for number, example in enumerate(examples, 1):
        outcomes.append(answered(example, model, max_tokens=config.validation.max_answer_tokens))
        on_progress("answering", number, len(examples))
    return outcomes
