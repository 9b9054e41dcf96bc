"""The seam to causal language models that run in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import msgspec


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How to sample tokens and when to stop."""

    max_tokens: int
    """At least 1; the model's context window is a further limit."""
    temperature: float = 0.0
    """0 is greedy; 0..2."""
    top_p: float = 1.0
    """0 < top_p <= 1."""
    seed: int | None = None
    """None: not reproducible unless greedy."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time that the answer has it already; -2..2."""
    presence_penalty: float = 0.0
    """Taken once from the logits of the tokens that the answer has already; -2..2."""
    logprobs: int | None = None
    """How many of the most probable tokens to report beside each token; None: report nothing, not even the
    token's own log probability."""

    @property
    def needs_logits(self) -> bool:
        """Whether picking a token takes more than a temperature and `top_p`."""
        return bool(self.frequency_penalty or self.presence_penalty) or self.logprobs is not None


class GeneratedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that a model has picked."""

    token_id: int
    logprob: float | None = None
    """Natural logarithm of its probability before temperature and penalties; None: not wanted."""
    likeliest: tuple[tuple[int, float], ...] = ()
    """The most probable tokens with their log probabilities, best first, as many as were wanted."""


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """A token and how probable it was where it stands."""

    text: str
    """U+FFFD for a token that is only part of a character."""
    logprob: float
    likeliest: tuple[TokenLogprob, ...] = ()
    """The most probable tokens there, best first."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an answer as it is generated."""

    text: str
    """Whole Unicode characters, never part of a stop text. May be empty in the last piece."""
    tokens: int
    """Tokens generated since the previous piece."""
    finish_reason: str | None = None
    """"stop" or "length" in the last piece, None before."""
    stop_text: str | None = None
    """In the last piece the stop text that ended the answer, if there was one."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens of the answer's text since the piece before, if the request wants them."""


class LanguageModel(ABC):
    """A causal language model. Sync and thread-safe; called on worker threads only."""

    @property
    @abstractmethod
    def context_tokens(self) -> int:
        """The maximum number of tokens of prompt and answer together."""

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, without the start token."""

    @abstractmethod
    def generate(
        self, prompt: str, sampling: Sampling, *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Piece]:
        """Continue `prompt` piece by piece; the last piece has a finish_reason.

        `cancelled` is called between tokens; once it is true the iterator ends without a last piece.
        `prompt` is plain text: control tokens written in it are read as text.

        Raises:
            InvalidRequestError: The prompt does not leave room for one token in the context window.
            ModelUnavailableError: The model failed.
        """
