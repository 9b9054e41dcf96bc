"""A language model converted for CTranslate2: int8 on the CPU, outside Python's lock while it computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import ctranslate2
from tokenizers import Tokenizer

from serac_gateway.errors import ConfigError, ModelUnavailableError
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling
from serac_gateway.models.language_models.decoding import answer_room, pieces

_seeding = threading.Lock()
_UNSEEDED = 2**32 - 1
"""CTranslate2's mark for "take one from the system"; any other value would be every new thread's seed."""


class CTranslate2LanguageModel(LanguageModel):
    """Runs a folder that holds a CTranslate2 model and its tokenizer.json.

    A model with sliding windows must say how wide they are: CTranslate2 4.8 computes a prompt wrongly when
    it reads more than one window of it at once. Tokens beyond the first window are therefore read one by
    one, which is right and slow (some 30 ms a token), so keep `context_tokens` near the window.
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
            sliding_window: Width in tokens of the narrowest attention window; None: all attention is full.
            threads: Per answer. One is best for short prompts: generating waits for memory, not for cores.
            parallel: Answers computed at once; they share one copy of the weights.

        Raises:
            ConfigError: The folder does not hold such a model.
        """
        self._path = path
        self._threads = threads
        self._context_tokens = context_tokens
        self._start = [] if start_token is None else [start_token]
        self._window = context_tokens if sliding_window is None else sliding_window
        try:
            self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
            self._generator = self._open(parallel)
        except Exception as exc:  # tokenizers raises bare Exception
            raise ConfigError(
                f"cannot load the language model in {str(path)!r}: {exc}; delete the folder to"
                " have it made again"
            ) from exc
        self._tokenizer.encode_special_tokens = True  # control tokens in a prompt are text
        self._start_ids = [self._tokenizer.token_to_id(token) or 0 for token in self._start]

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
        tokens = self._start + encoded.tokens
        limit = min(sampling.max_tokens, answer_room(len(tokens), self._context_tokens))
        return pieces(
            self._token_ids(tokens, sampling, limit, cancelled),
            tokenizer=self._tokenizer,
            prompt_ids=self._start_ids + encoded.ids,
            limit=limit,
            stop=sampling.stop,
            cancelled=cancelled,
        )

    def _token_ids(
        self, tokens: list[str], sampling: Sampling, limit: int, cancelled: Callable[[], bool]
    ) -> Iterator[int]:
        at_once, one_by_one = tokens[: self._window], tokens[self._window :]
        options: dict[str, object] = {
            "max_length": limit + len(one_by_one),
            "sampling_topk": 1,
            "include_prompt_in_result": False,
        }
        if one_by_one:  # a static prompt and forced tokens after it: the only way to read in both ways
            options |= {
                "static_prompt": at_once,
                "cache_static_prompt": False,
                "include_prompt_in_result": True,
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
            steps = _token_steps(generator, one_by_one or at_once, options, cancelled)
            try:
                head = list(islice(steps, len(one_by_one) + 1))
            except (RuntimeError, ValueError) as exc:
                raise ModelUnavailableError(self._failed(exc)) from exc
            finally:
                if seeded:
                    ctranslate2.set_random_seed(_UNSEEDED)
        yield from head[len(one_by_one) :]
        try:
            yield from steps
        except (RuntimeError, ValueError) as exc:
            raise ModelUnavailableError(self._failed(exc)) from exc

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
) -> Iterator[int]:
    """Token ids as they are computed on another thread. Closing the iterator stops it at the next one.

    CTranslate2's own `generate_tokens` cannot force tokens.
    """
    arrived: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
    closed = threading.Event()

    def on_step(step: ctranslate2.GenerationStepResult) -> bool:
        arrived.put(step.token_id)
        return closed.is_set() or cancelled()

    def compute() -> None:
        try:
            generator.generate_batch([prompt], callback=on_step, **options)
            arrived.put(None)
        except (RuntimeError, ValueError) as exc:
            arrived.put(exc)

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
