"""A language model converted for CTranslate2: int8 on the CPU, outside Python's lock while it computes."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import ctranslate2
from tokenizers import Tokenizer

from serac_gateway.errors import ConfigError, ModelUnavailableError
from serac_gateway.models.language_models.base import GeneratedToken, LanguageModel, Piece, Sampling
from serac_gateway.models.language_models.decoding import answer_room, pieces
from serac_gateway.models.language_models.turns import Turn, Turns

if TYPE_CHECKING:
    from serac_gateway.models.language_models.gemma3_torch import Gemma3

_seeding = threading.Lock()
_UNSEEDED = 2**32 - 1
"""CTranslate2's mark for "take one from the system"; any other value would be every new thread's seed."""


class CTranslate2LanguageModel(LanguageModel):
    """Runs a folder that holds a Gemma 3 converted for CTranslate2, and its tokenizer.json.

    CTranslate2 4.8 computes a prompt wrongly when it is longer than the attention window (see
    gemma3_torch.py) and shows no logits before it has picked a token. Requests with a longer prompt, with
    penalties, or for log probabilities are therefore computed in torch, from the same file of weights: an
    answer's token takes as long, a long prompt 1 ms a token and more beyond some thousands, and the first
    such request a second more, for importing torch.
    """

    def __init__(
        self,
        path: Path,
        *,
        context_tokens: int,
        start_token: str | None = "<bos>",
        sliding_window: int | None = None,
        threads: int = 1,
        parallel: int = 1,
    ) -> None:
        """Load the model.

        Args:
            path: The folder.
            context_tokens: The most tokens that prompt and answer may have together.
            start_token: Put before every prompt; None: nothing is.
            sliding_window: Width in tokens of the narrowest attention window; None: all attention is full,
                and CTranslate2 reads prompts of any length.
            threads: Per answer. One is best for short prompts: generating waits for memory, not for cores.
            parallel: Answers generated at once; they share one copy of the weights. Each reads its prompt as
                it comes, and then computes its tokens in turns with the others.

        Raises:
            ConfigError: The folder does not hold such a model.
        """
        self._path = path
        self._threads = threads
        self._context_tokens = context_tokens
        self._start = [] if start_token is None else [start_token]
        self._window = context_tokens if sliding_window is None else sliding_window
        self._turns = Turns(max(1, len(os.sched_getaffinity(0)) // threads))
        self._torch: Gemma3 | None = None
        self._opening = threading.Lock()
        try:
            self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
            self._generator = self._open(parallel)
            ends = json.loads((path / "config.json").read_text("utf-8"))["eos_token"]
        except Exception as exc:  # tokenizers raises bare Exception
            raise ConfigError(
                f"cannot load the language model in {str(path)!r}: {exc}; delete the folder to"
                " have it made again"
            ) from exc
        self._tokenizer.encode_special_tokens = True  # control tokens in a prompt are text
        self._start_ids = [self._tokenizer.token_to_id(token) or 0 for token in self._start]
        self._end_ids = frozenset([self._tokenizer.token_to_id(ends) or 0])

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
        encoded = self._tokenizer.encode(prompt, add_special_tokens=False)
        prompt_ids = self._start_ids + encoded.ids
        limit = min(sampling.max_tokens, answer_room(len(prompt_ids), self._context_tokens))
        if sampling.needs_logits or len(prompt_ids) > self._window:
            tokens = self._tokens_by_torch(prompt_ids, sampling, limit, cancelled)
        else:
            tokens = self._tokens(self._start + encoded.tokens, sampling, limit, cancelled)
        return pieces(
            tokens,
            tokenizer=self._tokenizer,
            prompt_ids=prompt_ids,
            limit=limit,
            stop=sampling.stop,
            cancelled=cancelled,
        )

    def _tokens(
        self, prompt: list[str], sampling: Sampling, limit: int, cancelled: Callable[[], bool]
    ) -> Iterator[GeneratedToken]:
        options: dict[str, object] = {
            "max_length": limit,
            "sampling_topk": 1,
            "include_prompt_in_result": False,
        }
        if sampling.temperature > 0:
            options |= {
                "sampling_topk": 0,
                "sampling_topp": sampling.top_p,
                "sampling_temperature": sampling.temperature,
            }
        seeded = sampling.seed is not None and sampling.temperature > 0
        with _seeding if seeded else nullcontext():
            # A worker thread is seeded when it first samples and never again, so a seed needs a generator of
            # its own. Loading one takes 0.3 s. The first token must be there before the seed is taken back.
            generator = self._generator
            if seeded:
                ctranslate2.set_random_seed(sampling.seed)
                generator = self._open(1)
            steps = _token_steps(generator, prompt, options, cancelled, Turn(self._turns))
            try:
                head = list(islice(steps, 1))
            except (RuntimeError, ValueError) as exc:
                raise ModelUnavailableError(self._failed(exc)) from exc
            finally:
                if seeded:
                    ctranslate2.set_random_seed(_UNSEEDED)
        try:
            for token_id in chain(head, steps):
                yield GeneratedToken(token_id=token_id)
        except (RuntimeError, ValueError) as exc:
            raise ModelUnavailableError(self._failed(exc)) from exc

    def _tokens_by_torch(
        self, prompt_ids: list[int], sampling: Sampling, limit: int, cancelled: Callable[[], bool]
    ) -> Iterator[GeneratedToken]:
        try:
            yield from self._torch_model().generate(prompt_ids, sampling, limit, cancelled)
        except ConfigError as exc:
            raise ModelUnavailableError(exc.message) from exc
        except RuntimeError as exc:  # out of memory among them
            raise ModelUnavailableError(self._failed(exc)) from exc

    def _torch_model(self) -> Gemma3:
        with self._opening:
            if self._torch is None:
                # Imported here: torch takes a second and 200 MB, and most gateways never need it.
                import torch

                from serac_gateway.models.language_models.gemma3_torch import Gemma3

                # For the whole process. With a thread per core, torch's own choice, answers that are computed
                # at once wait for each other: four times as long on two busy cores.
                torch.set_num_threads(self._threads)
                self._torch = Gemma3(self._path, end_ids=self._end_ids)
            return self._torch

    def _failed(self, exc: Exception) -> str:
        return f"the language model in {str(self._path)!r} failed: {exc}"

    def _open(self, parallel: int) -> ctranslate2.Generator:
        return ctranslate2.Generator(
            str(self._path), device="cpu", intra_threads=self._threads, inter_threads=parallel
        )


def _token_steps(
    generator: ctranslate2.Generator,
    prompt: list[str],
    options: Mapping[str, object],
    cancelled: Callable[[], bool],
    turn: Turn,
) -> Iterator[int]:
    """Token ids as they are computed on another thread. Closing the iterator stops it at the next one.

    The first token takes no turn: prompts are long, and all are read at once.

    CTranslate2's own `generate_tokens` does the same without a way to stop.
    """
    arrived: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
    closed = threading.Event()

    def on_step(step: ctranslate2.GenerationStepResult) -> bool:
        arrived.put(step.token_id)
        if not (closed.is_set() or cancelled()):
            turn.next()
        return closed.is_set() or cancelled()

    def compute() -> None:
        try:
            generator.generate_batch([prompt], callback=on_step, **options)
            arrived.put(None)
        except (RuntimeError, ValueError) as exc:
            arrived.put(exc)
        finally:
            turn.end()

    thread = threading.Thread(target=compute, name="generate", daemon=True)
    thread.start()
    try:
        while (item := arrived.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()  # within one token; the interpreter must not end while the thread is in C++
