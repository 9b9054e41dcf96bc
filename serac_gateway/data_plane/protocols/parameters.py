"""A request's parameters as lenient servers read them: numbers in quotes, values out of range. Pure.

Parameters that only shape sampling are never a reason to lose an edit. So a value that cannot be honoured is
moved into the range that can, or left out; what changes the form of the answer is left to the protocols.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from serac_gateway.domain.queries import without_surrogates

MAX_TOKENS = 1_000_000
"""More than any context window; a larger number is a mistake."""
MAX_STOP_TEXTS = 16
SEEDS = 2**31
"""Generators take 32 bits at most, OpenAI's clients send 64 with a sign."""
UNNAMED_MODEL = "default"
"""The model in an answer to a request that names none."""

_SAMPLING_ONLY = frozenset({
    "best_of", "frequency_penalty", "logit_bias", "min_p", "presence_penalty", "repetition_penalty", "top_k",
    "web_search_options",
})  # fmt: skip
"""Ignored: they choose among words, or allow what the model may do and need not."""
_TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_STOPS = ("stop", "stop_sequences")
_SMALLEST_TOP_P = 1e-6
_TRUE = frozenset({"true", "1", "yes", "y", "on", "t"})


def lenient_parameters(
    body: Mapping[str, Any], *, path_model: str | None, max_temperature: float
) -> dict[str, Any]:
    """The members of `body`, with every parameter that is honoured in its range; others are left out."""
    given = {name: value for name, value in body.items() if name not in _SAMPLING_ONLY and value is not None}
    model = given.get("model")
    named = model if isinstance(model, str) and model else path_model or UNNAMED_MODEL
    given["model"] = without_surrogates(named)
    for name in _TOKEN_LIMITS:
        _replace(given, name, _token_limit(given.get(name)))
    _replace(given, "temperature", _within(given.get("temperature"), 0.0, max_temperature))
    _replace(given, "top_p", _within(given.get("top_p"), _SMALLEST_TOP_P, 1.0))
    choices = _within(given.get("n"), 1, MAX_TOKENS)
    _replace(given, "n", None if choices is None else int(choices))
    _replace(given, "seed", _seed(given.get("seed")))
    given["stream"] = is_true(given.get("stream"))
    options = given.pop("stream_options", None)
    if isinstance(options, Mapping):
        given["stream_options"] = {"include_usage": is_true(options.get("include_usage"))}
    for name in _STOPS:
        _replace(given, name, _stop_texts(given.get(name)))
    return given


def is_true(value: object) -> bool:
    """A flag: true, a number but 0, or a word for yes."""
    if isinstance(value, str):
        return value.strip().lower() in _TRUE
    return bool(value)


def _replace(given: dict[str, Any], name: str, value: object) -> None:
    if value is None:
        given.pop(name, None)
    else:
        given[name] = value


def _number(value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.copysign(math.inf, value)
    return None if math.isnan(number) else number


def _within(value: object, lowest: float, highest: float) -> float | None:
    number = _number(value)
    return None if number is None else min(max(number, lowest), highest)


def _token_limit(value: object) -> int | None:
    """Without a limit also for 0 and -1, which servers take for none."""
    number = _number(value)
    return None if number is None or number < 1 else int(min(number, MAX_TOKENS))


def _seed(value: object) -> int | None:
    if isinstance(value, int):
        return value % SEEDS
    number = _number(value)
    return None if number is None or math.isinf(number) else int(number) % SEEDS


def _stop_texts(value: object) -> list[str] | None:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        return None
    return [without_surrogates(text) for text in texts if isinstance(text, str)][:MAX_STOP_TEXTS]
