"""Teacher-forced accuracy: of a right answer's tokens, which would the model have chosen itself?

What editing papers report (ROME, MEND, EasyEdit's `compute_edit_quality`): prompt and target go in at once,
and a target token counts when it is the most probable one after all tokens before it, given as they should
be. It is easier than generation, where one wrong token spoils the rest and nothing shows where to stop (Yang
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
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from serac_gateway.config.model import GatewayConfig
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.prompts import fact_prompt, trained_prompt
from serac_gateway.models.counterfactual.truncation import MAX_FIELD_CHARS
from serac_gateway.models.language_models.embedded_gemma import SLIDING_WINDOW, converted_gemma
from serac_gateway.models.language_models.lora import is_adapter, merge_adapter
from serac_gateway.models.loading import SHIPPED_ADAPTER
from training.benchmarks.base import Probe

_START = "<bos>"

PromptOf = Callable[[EditDraft, Probe], str]
"""The prompt made of the edit that fired and of a probe."""


class ForcedModel(ABC):
    """A causal language model that reports its own choice at every position. Sync."""

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
    """Any causal LM, by id or path, read as `TransformersLanguageModel` reads it."""

    def __init__(self, id_or_path: str, *, adapter: Path | None = None) -> None:
        """Load it, with `adapter` merged in.

        Raises what transformers raises: the gateway has opened the same model before.
        """
        tokenizer = AutoTokenizer.from_pretrained(id_or_path)
        self._tokenizer: Any = tokenizer.backend_tokenizer
        self._tokenizer.encode_special_tokens = True
        self._start_ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = AutoModelForCausalLM.from_pretrained(id_or_path)
        if adapter is not None:
            merge_adapter(self._model, adapter)
        self._model.eval().to(self._device)

    def matches(self, prompt: str, target: str) -> list[bool]:
        """See `ForcedModel.matches`."""
        head_ids = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        tail_ids = self._tokenizer.encode(target, add_special_tokens=False).ids
        ids_1L = torch.tensor([[*self._start_ids, *head_ids, *tail_ids]], device=self._device)
        if ids_1L.shape[1] > self._model.config.max_position_embeddings:
            return []
        with torch.inference_mode():
            logits_1LV = self._model(ids_1L, logits_to_keep=len(tail_ids) + 1).logits
        return _matches(logits_1LV[0].float().cpu().numpy(), tail_ids)


class TeacherForcing:
    """Forces right answers on the model that would have given them. Sync."""

    def __init__(self, model: ForcedModel, *, prompt_of: PromptOf, base: ForcedModel | None) -> None:
        """Force on the model that would have answered.

        Args:
            model: The counterfactual model's weights.
            prompt_of: The prompt of an edit and a probe; the answer is forced after it.
            base: The base model's weights, which read the bare probe; None: they are not at hand.
        """
        self._model = model
        self._prompt_of = prompt_of
        self._base = base

    def token_accuracy(self, fired: EditDraft | None, probe: Probe, answer: str) -> float | None:
        """The share of the answer's tokens that the model chooses, shown the edit that fired, if one did.

        A yes/no probe is forced with "Yes" or "No". None: the base model cannot be asked, or the prompt is
        too long for it.
        """
        target = answer if probe.verdict is None else ("Yes" if probe.verdict else "No")
        model = self._base if fired is None else self._model
        if model is None:
            return None
        prompt = probe.text if fired is None else self._prompt_of(fired, probe)
        matches = model.matches(prompt, f" {target.strip()}")
        return sum(matches) / len(matches) if matches else None


def open_teacher_forcing(config: GatewayConfig) -> TeacherForcing:
    """With the weights and the prompt that a gateway of that configuration answers with.

    Raises:
        ConfigError: The embedded model or the adapter cannot be had.
    """
    named, adapter = config.models.counterfactual, None
    if config.models.counterfactual_adapter is not None:
        adapter = Path(config.models.counterfactual_adapter)
    elif named is None and is_adapter(SHIPPED_ADAPTER):
        adapter = SHIPPED_ADAPTER
    model: ForcedModel
    if named is None:
        model = CTranslate2ForcedModel(converted_gemma(config.data_path, adapter=adapter))
    else:
        model = TransformersForcedModel(named, adapter=adapter)
    base: ForcedModel | None = None
    if config.upstream.url is None:
        is_same = named is None and adapter is None
        base = model if is_same else CTranslate2ForcedModel(converted_gemma(config.data_path))
    prompt_of = examples_and_case if adapter is None else case_alone
    return TeacherForcing(model, prompt_of=prompt_of, base=base)


def examples_and_case(fired: EditDraft, probe: Probe) -> str:
    """What `FewShotCounterfactualModel` shows a model that is not trained on our prompt."""
    return fact_prompt(
        first_version(fired, namespace=DEFAULT_NAMESPACE), _query(probe), field_chars=MAX_FIELD_CHARS
    )


def case_alone(fired: EditDraft, probe: Probe) -> str:
    """What a model is shown that is trained on our prompt."""
    return trained_prompt(
        first_version(fired, namespace=DEFAULT_NAMESPACE), _query(probe), field_chars=MAX_FIELD_CHARS
    )


def _query(probe: Probe) -> Query:
    return Query(text=probe.text, context=tuple(turn.text for turn in probe.context))


def _matches(logits_LV: npt.NDArray[np.float32], target_ids: Sequence[int]) -> list[bool]:
    """The logits at a position choose the token after it."""
    chosen_T = logits_LV[-len(target_ids) - 1 : -1].argmax(axis=-1)
    return [bool(token == other) for token, other in zip(chosen_T, target_ids, strict=True)]
