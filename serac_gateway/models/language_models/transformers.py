"""Any causal language model that transformers can load, by id or path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serac_gateway.errors import ConfigError, ModelUnavailableError
from serac_gateway.models.language_models.base import GeneratedToken, LanguageModel, Piece, Sampling
from serac_gateway.models.language_models.decoding import answer_room, pieces
from serac_gateway.models.language_models.lora import merge_adapter
from serac_gateway.models.language_models.sampling import TokenPicker

MAX_CONTEXT_TOKENS = 8_192
"""The rest of a longer window is not used: its memory would be missing for other answers."""


class TransformersLanguageModel(LanguageModel):
    """Runs in torch: bfloat16 on a GPU, else float32, which is faster on a CPU, and exact."""

    def __init__(self, id_or_path: str, *, adapter: Path | None = None) -> None:
        """Load the model, with `adapter` merged in.

        Raises:
            ConfigError: The model or the adapter is not on this machine, or it cannot be read.
        """
        self._name = id_or_path
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        try:
            tokenizer = AutoTokenizer.from_pretrained(id_or_path)
            model = AutoModelForCausalLM.from_pretrained(id_or_path, dtype=dtype)
        except (OSError, ValueError) as exc:
            raise ConfigError(
                f"cannot load the language model {id_or_path!r}: {str(exc).splitlines()[0]}; give a causal"
                " LM's id or folder, or leave it out for the embedded Gemma 3 270M"
            ) from exc
        if not tokenizer.is_fast:
            raise ConfigError(
                f"language model {id_or_path!r} has no tokenizer.json; convert its tokenizer first"
            )
        if adapter is not None:
            merge_adapter(model, adapter)
        self._model = model.to(self._device).eval()
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.encode_special_tokens = True  # control tokens in a prompt are text
        self._start_ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        ends = model.generation_config.eos_token_id
        self._end_ids = frozenset([ends] if isinstance(ends, int) else ends or [])
        window = getattr(model.config, "max_position_embeddings", None) or MAX_CONTEXT_TOKENS
        self._context_tokens = min(window, MAX_CONTEXT_TOKENS)

    @property
    def context_tokens(self) -> int:
        """See `LanguageModel.context_tokens`."""
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        """See `LanguageModel.count_tokens`."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def generate(
        self, prompt: str, sampling: Sampling, *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Piece]:
        """See `LanguageModel.generate`."""
        prompt_ids = self._start_ids + self._tokenizer.encode(prompt, add_special_tokens=False).ids
        limit = min(sampling.max_tokens, answer_room(len(prompt_ids), self._context_tokens))
        return pieces(
            self._tokens(prompt_ids, sampling, limit),
            tokenizer=self._tokenizer,
            prompt_ids=prompt_ids,
            limit=limit,
            stop=sampling.stop,
            cancelled=cancelled,
        )

    def _tokens(self, prompt_ids: list[int], sampling: Sampling, limit: int) -> Iterator[GeneratedToken]:
        picker = TokenPicker(sampling)
        cache = None
        unread = prompt_ids
        for _ in range(limit):
            try:
                logits_V, cache = self._read(unread, cache)
            except RuntimeError as exc:  # out of memory among them
                raise ModelUnavailableError(f"the language model {self._name!r} failed: {exc}") from exc
            token = picker.pick(logits_V)
            if token.token_id in self._end_ids:
                return
            yield token
            unread = [token.token_id]

    @torch.inference_mode()
    def _read(self, token_ids: list[int], cache: object) -> tuple[torch.Tensor, object]:
        """Logits of the next token, *shape* (V,), and the cache with `token_ids` added."""
        ids_BL = torch.tensor([token_ids], device=self._device)
        output = self._model(input_ids=ids_BL, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[0, -1].float().cpu(), output.past_key_values
