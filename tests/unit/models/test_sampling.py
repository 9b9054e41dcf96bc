"""Tokens picked from logits."""

from __future__ import annotations

import math

import pytest
import torch

from serac_gateway.models.language_models.base import GeneratedToken, Sampling
from serac_gateway.models.language_models.sampling import TokenPicker

LOGITS = torch.tensor([3.0, 2.5, 2.0, -1.0])


def picked(sampling: Sampling, tokens: int) -> list[GeneratedToken]:
    picker = TokenPicker(sampling)
    return [picker.pick(LOGITS) for _ in range(tokens)]


def ids(**sampling: object) -> list[int]:
    return [token.token_id for token in picked(Sampling(max_tokens=9, **sampling), 6)]


def test_without_penalties_the_most_probable_token_is_taken_each_time() -> None:
    assert ids() == [0] * 6


def test_a_frequency_penalty_counts_and_a_presence_penalty_does_not() -> None:
    # 3.0 2.5 2.0 -1.0; each token taken loses 0.6 a time: 0 (3.0→2.4), 1 (2.5→1.9), 0 (2.4→1.8), 2, 1, 0
    assert ids(frequency_penalty=0.6) == [0, 1, 0, 2, 1, 0]
    # 0 is left at 2.4 from then on, 1 at 1.9, 2 at 1.4.
    assert ids(presence_penalty=0.6) == [0, 1, 0, 0, 0, 0]
    assert ids(frequency_penalty=-2.0) == [0] * 6


def test_penalties_leave_the_logits_of_others_and_log_probabilities_as_they_are() -> None:
    tokens = picked(Sampling(max_tokens=9, logprobs=2, frequency_penalty=0.6, temperature=0.5, seed=1), 6)
    wanted = LOGITS.log_softmax(-1).tolist()
    for token in tokens:
        assert token.logprob == pytest.approx(wanted[token.token_id])
        assert [other for other, _ in token.likeliest] == [0, 1]
        assert sum(math.exp(logprob) for _, logprob in token.likeliest) < 1
    assert LOGITS.tolist() == [3.0, 2.5, 2.0, -1.0]


def test_log_probabilities_are_computed_where_they_are_wanted() -> None:
    (token,) = picked(Sampling(max_tokens=1), 1)
    assert (token.logprob, token.likeliest) == (None, ())
    (token,) = picked(Sampling(max_tokens=1, logprobs=0), 1)
    assert token.logprob is not None
    assert token.likeliest == ()
    (token,) = picked(Sampling(max_tokens=1, logprobs=20), 1)
    assert len(token.likeliest) == len(LOGITS)


def test_a_seed_gives_the_same_tokens_and_top_p_keeps_the_likeliest() -> None:
    assert ids(temperature=1.5, seed=3) == ids(temperature=1.5, seed=3)
    assert len({tuple(ids(temperature=1.5, seed=seed)) for seed in range(8)}) > 1
    assert ids(temperature=1.5, seed=3, top_p=1e-6) == [0] * 6
