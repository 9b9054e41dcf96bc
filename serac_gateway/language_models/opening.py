"""Opens the language model that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serac_gateway.language_models.base import LanguageModel
from serac_gateway.language_models.ctranslate2 import CTranslate2LanguageModel
from serac_gateway.language_models.embedded_gemma import (
    CONTEXT_TOKENS,
    SLIDING_WINDOW,
    converted_gemma,
)

PARALLEL_ANSWERS = 2
"""Answers that the embedded model computes at once."""


def open_language_model(
    id_or_path: str | None,
    data_path: Path,
    on_progress: Callable[[str], None] = lambda text: None,
    *,
    adapter: Path | None = None,
) -> LanguageModel:
    """The model of that id or path, or the embedded Gemma 3 270M for None; with `adapter` merged in.

    The embedded model is converted once, into `data_path`, by whichever process comes first; others wait
    for it. After that all processes only read the converted files. `on_progress` is told what goes on.

    Raises:
        ConfigError: The model or the adapter is missing or cannot be read or converted.
    """
    if id_or_path is None:
        path = converted_gemma(data_path, on_progress, adapter=adapter)
        on_progress("loading Gemma 3 270M")
        return CTranslate2LanguageModel(
            path, context_tokens=CONTEXT_TOKENS, sliding_window=SLIDING_WINDOW, parallel=PARALLEL_ANSWERS
        )
    # Imported here: torch takes seconds, and the embedded model does without it.
    from serac_gateway.language_models.transformers import TransformersLanguageModel

    on_progress(f"loading {id_or_path}")
    return TransformersLanguageModel(id_or_path, adapter=adapter)
