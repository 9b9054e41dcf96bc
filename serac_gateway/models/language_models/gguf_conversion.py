"""From a GGUF file to a CTranslate2 model in int8, by way of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from ctranslate2.converters import TransformersConverter
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging

from serac_gateway.models.language_models.lora import merge_adapter
from serac_gateway.models.language_models.smoothquant import smooth_activations


def load_gguf(path: Path) -> tuple[Any, Any]:
    """Model (float32, dequantised) and tokenizer of a GGUF file; takes half a minute."""
    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            # Without this transformers keeps the model marked as quantised and refuses to save it.
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model.eval(), tokenizer


def convert_gguf(
    path: Path, target: Path, on_progress: Callable[[str], None], *, adapter: Path | None = None
) -> None:
    """Write the folder `target` with the int8 model, `adapter` merged in, and its tokenizer.json.

    Raises:
        ConfigError: The adapter is damaged or belongs to another model.
    """
    on_progress("unpacking the weights")
    model, tokenizer = load_gguf(path)
    if adapter is not None:
        on_progress("merging the adapter")
        merge_adapter(model, adapter)
    on_progress("converting to int8")
    convert(model, tokenizer, target)


def convert(model: Any, tokenizer: Any, target: Path, *, quantization: str | None = "int8") -> None:  # noqa: ANN401
    """Write `target` from a Gemma 3 model in memory, which is used up; None keeps float32."""
    if quantization is not None:
        smooth_activations(model, tokenizer)
    source = target.with_name(f"{target.name}-source")
    model.config.save_pretrained(source)
    tokenizer.save_pretrained(source)
    _FromMemory(model, tokenizer, source).convert(str(target), quantization=quantization)


class _FromMemory(TransformersConverter):  # type: ignore[misc]  # no stubs
    """Takes the model from memory, which saves writing and reading a gigabyte."""

    def __init__(self, model: Any, tokenizer: Any, source: Path) -> None:  # noqa: ANN401
        super().__init__(str(source), copy_files=["tokenizer.json"])
        self._model = model
        self._tokenizer = tokenizer

    def load_model(self, *_: object, **__: object) -> Any:  # noqa: ANN401
        return self._model

    def load_tokenizer(self, *_: object, **__: object) -> Any:  # noqa: ANN401
        return self._tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bars: the caller shows progress."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers.utils.logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # The reading of GGUF files has a bar of its own that no setting turns off.
    bar, modeling_gguf_pytorch_utils.tqdm = modeling_gguf_pytorch_utils.tqdm, lambda items, **_: items
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
