"""The embedded Gemma 3 270M as transformers runs it, in float32; training starts from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging


def load_gguf(path: Path) -> tuple[Any, Any]:
    """Model (float32, dequantised) and tokenizer of a GGUF file; takes half a minute."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            # Without this transformers keeps the model marked as quantised and refuses to save it.
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model.eval(), tokenizer


@contextmanager
def quiet() -> Iterator[None]:
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
