"""Teacher-forced accuracy: of a right answer's tokens, which would the model have chosen itself?

What editing papers report (ROME, MEND, EasyEdit's `compute_edit_quality`): prompt and target go in at once,
and a target token counts when it is the most probable one after all tokens before it, given as they should
be. It is easier than generation, where one wrong token spoils the rest and nothing tells when to stop (Yang
et al., arXiv 2502.11177), so it stands beside the free answers and never for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from serac_gateway.config import GatewayConfig
from serac_gateway.conversation import Query
from serac_gateway.counterfactual.prompts import claim_prompt, fact_prompt, trained_prompt
from serac_gateway.edits import DEFAULT_NAMESPACE, EditDraft, first_version
from serac_gateway.language_models.embedded_gemma import SLIDING_WINDOW, converted_gemma
from training.benchmarks.base import Probe

_FIELD_CHARS = 240
_START = "<bos>"

Shown = Callable[[EditDraft, Probe], str]
"""The prompt made of the edit that fired and of a probe."""


class ForcedModel(ABC):
    """A causal language model that tells its own choice at every position. Sync."""

    @abstractmethod
    def matches(self, prompt: str, target: str) -> list[bool]:
        """For each token of `target`, whether it is the most probable one after `prompt` and those before.

        Empty if both together are longer than the model reads at once.
        """


class CTranslate2ForcedModel(ForcedModel):
    """A folder as `CTranslate2LanguageModel` runs it."""

    def __init__(self, path: Path, *, window: int = SLIDING_WINDOW) -> None:
        """`window` in tokens: CTranslate2 computes prompts beyond one sliding window wrongly."""
        self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True
        self._generator = ctranslate2.Generator(str(path), device="cpu", intra_threads=1)
        self._window = window

    def matches(self, prompt: str, target: str) -> list[bool]:
        """See `ForcedModel.matches`."""
        head = self._tokenizer.encode(prompt, add_special_tokens=False)
        tail = self._tokenizer.encode(target, add_special_tokens=False)
        tokens = [_START, *head.tokens, *tail.tokens]
        if len(tokens) > self._window:
            return []
        logits_1LV = np.asarray(self._generator.forward_batch([tokens]))
        return _matches(logits_1LV[0], tail.ids)


class TransformersForcedModel(ForcedModel):
    """Any causal LM, by id or path."""

    def __init__(self, id_or_path: str) -> None:
        """Load it. Raises what transformers raises: the gateway has opened the same model before."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(id_or_path)
        self._model: Any = AutoModelForCausalLM.from_pretrained(id_or_path).eval()

    def matches(self, prompt: str, target: str) -> list[bool]:
        """See `ForcedModel.matches`."""
        import torch

        head = self._tokenizer(prompt).input_ids
        tail = self._tokenizer(target, add_special_tokens=False).input_ids
        if len(head) + len(tail) > self._model.config.max_position_embeddings:
            return []
        with torch.inference_mode():
            logits_1LV = self._model(torch.tensor([[*head, *tail]])).logits
        return _matches(logits_1LV[0].float().numpy(), tail)


class TeacherForcing:
    """Forces right answers on the model that would have given them. Sync."""

    def __init__(self, model: ForcedModel, *, shown: Shown, is_base_model: bool) -> None:
        """Force on `model`.

        Args:
            model: The counterfactual model's weights.
            shown: What it is shown of an edit and a probe; the answer comes next.
            is_base_model: The base model has the same weights, so it can be asked what it would say.
        """
        self._model = model
        self._shown = shown
        self._is_base_model = is_base_model

    def token_accuracy(self, fired: EditDraft | None, probe: Probe, answer: str) -> float | None:
        """The share of the answer's tokens that the model chooses, shown the edit that fired, if one did.

        A yes/no probe is forced with "Yes" or "No". None: the base model cannot be asked, or the prompt is
        too long for it.
        """
        target = answer if probe.verdict is None else ("Yes" if probe.verdict else "No")
        if fired is None and not self._is_base_model:
            return None
        prompt = probe.text if fired is None else self._shown(fired, probe)
        found = self._model.matches(prompt, f" {target.strip()}")
        return sum(found) / len(found) if found else None


def open_teacher_forcing(config: GatewayConfig) -> TeacherForcing:
    """With the counterfactual model of that configuration.

    Raises:
        ConfigError: The embedded model cannot be had.
    """
    chosen = config.models.counterfactual
    model: ForcedModel
    if chosen is None:
        model = CTranslate2ForcedModel(converted_gemma(config.data_path))
    else:
        model = TransformersForcedModel(chosen)
    return TeacherForcing(
        model, shown=examples_and_case, is_base_model=chosen is None and config.upstream.url is None
    )


def examples_and_case(fired: EditDraft, probe: Probe) -> str:
    """What `PromptedCounterfactualModel` shows a model that is not trained on our prompt."""
    make_prompt = fact_prompt if probe.verdict is None else claim_prompt
    return make_prompt(
        first_version(fired, namespace=DEFAULT_NAMESPACE), _query(probe), field_chars=_FIELD_CHARS
    )


def case_alone(fired: EditDraft, probe: Probe) -> str:
    """What a model is shown that is trained on our prompt."""
    return trained_prompt(
        first_version(fired, namespace=DEFAULT_NAMESPACE), _query(probe), field_chars=_FIELD_CHARS
    )


def _query(probe: Probe) -> Query:
    return Query(text=probe.text, context=tuple(turn.text for turn in probe.context))


def _matches(logits_LV: npt.NDArray[np.float32], target_ids: Sequence[int]) -> list[bool]:
    """The logits at a position choose the token after it."""
    chosen_T = logits_LV[-len(target_ids) - 1 : -1].argmax(axis=-1)
    return [bool(one == other) for one, other in zip(chosen_T, target_ids, strict=True)]
