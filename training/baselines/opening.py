"""Opens the model that editing methods are compared on: the embedded Gemma, or any causal LM."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serac_gateway.config.loading import load_config
from serac_gateway.errors import ConfigError
from serac_gateway.models.folder_digests import is_sound, write_digests
from serac_gateway.models.language_models.embedded_gemma import assembled_gguf
from serac_gateway.models.language_models.lora import merge_adapter
from serac_gateway.models.loading import SHIPPED_ADAPTER
from serac_gateway.models.weight_files import GEMMA_DIGEST
from training.baselines.causal_model import CausalModel
from training.embedded_model import load_gguf, quiet

EMBEDDED_NAME = "gemma-3-270m"


def open_model(folder: Path | None = None) -> CausalModel:
    """The model in a folder that `from_pretrained` reads, in float32; None: the embedded Gemma.

    Raises:
        ConfigError: The folder holds no causal language model of transformers, or the embedded model is
            damaged or cannot be written to the data folder.
    """
    if folder is None:
        return _opened(embedded_folder(), EMBEDDED_NAME)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"--model {str(folder)!r} has no config.json; give the folder of a causal language model as"
            " transformers saves it (config.json, tokenizer and safetensors)"
        )
    return _opened(folder, folder.name)


def open_counterfactual() -> CausalModel:
    """The embedded Gemma with the shipped adapter merged in: the counterfactual model, in float32.

    Raises:
        ConfigError: The model or the adapter is damaged.
    """
    model = _opened(embedded_folder(), f"{EMBEDDED_NAME} with {SHIPPED_ADAPTER.name}")
    merge_adapter(model.network, SHIPPED_ADAPTER)
    model.network.requires_grad_(False)
    return model


def embedded_folder() -> Path:
    """The embedded Gemma as `from_pretrained` reads it, 1.1 GB, written to the data folder the first time.

    Dequantising takes from half a minute to five where the processor is shared, reading the result a second.

    Raises:
        ConfigError: The package is damaged, or the data folder cannot be written.
    """
    # Not gemma3-270m-…: the gateway keeps only its latest conversions of that name.
    models = load_config().data_path / "models"
    folder = models / f"float32-{EMBEDDED_NAME}-{GEMMA_DIGEST[:8]}"
    if is_sound(folder):
        return folder
    try:
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=models) as work:
            with assembled_gguf(Path(work)) as gguf:
                network, tokenizer = load_gguf(gguf)
            made = Path(work) / "made"
            with quiet():
                network.save_pretrained(made)
            tokenizer.save_pretrained(made)
            write_digests(made)
            if not folder.exists():
                made.rename(folder)
    except OSError as exc:
        raise ConfigError(
            f"cannot write the embedded model to {str(models)!r}: {exc.strerror or exc}; free 1.5 GB there,"
            " or choose another data folder (SERAC_DATA_DIR)"
        ) from exc
    return folder


def _opened(folder: Path, name: str) -> CausalModel:
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as exc:
        raise ConfigError(
            f"cannot load the model in {str(folder)!r}: {str(exc).splitlines()[0]}; give the folder of a"
            " causal language model as transformers saves it"
        ) from exc
    return CausalModel(network, tokenizer, name=name)
