"""Trains the linear map of the encoder's vectors: in seconds, once some thousand edits are encoded.

It begins as the identity behind the mean, which alone spreads the cosines (see `losses.centred`), and is held
near it, so that what the data does not show stays as it is.

Shape suffixes: T texts, N examples, B of a batch, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.numpy import save_file

from serac_gateway.domain.vectors import Vectors
from serac_gateway.models.bert_graph import Projection
from serac_gateway.models.e5.conversion_request import PROJECTION_FILE
from serac_gateway.models.encoders.base import Encoder
from training.data.pairs import Pair
from training.encoder.examples import Example, batches
from training.encoder.losses import contrastive_loss
from training.runs import TrainingError

_DRAWN = 48
"""Edits that are drawn together."""
_ENCODED = 256
"""Texts between two reports of progress."""


class ProjectionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train it."""

    examples: int = 7_000
    """Edits that are drawn with a request, of which those with one short question are taken."""
    neighbours: int = 4
    statement_share: float = 0.25
    negative_share: float = 0.35
    longest_request: int = 200
    """In characters; of longer ones only a part is the question."""
    steps: int = 150
    batch_size: int = 768
    learning_rate: float = 3e-3
    temperature: float = 0.05
    negative_weight: float = 0.3
    alike: float = 0.85
    """Edits whose prompts are this near, by centred cosine, ask the same."""
    identity_weight: float = 1.0
    """Of the mean squared distance of a row from the identity's."""
    threads: int = 2
    seed: int = 17


class _Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where the texts of the examples stand among the vectors. *Shape:* (N,); -1: no negative."""

    prompts_N: torch.Tensor
    forms_N: torch.Tensor
    requests_N: torch.Tensor
    negatives_N: torch.Tensor


def train_projection(
    pairs: Sequence[Pair],
    encoder: Encoder,
    settings: ProjectionSettings,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Projection:
    """Fit a projection of the vectors of `encoder`, which has none itself, on `pairs`.

    Raises:
        TrainingError: Too few edits with a request in scope, or a loss that is not finite.
        ModelUnavailableError: The encoder failed.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    examples = projection_examples(pairs, settings)
    texts = list(dict.fromkeys(chain.from_iterable(map(_texts, examples))))
    vectors_TD = torch.from_numpy(_encoded(encoder, texts, progress))
    mean_D = vectors_TD.mean(0)
    apart_TD = vectors_TD - mean_D
    places = _places(examples, texts)
    matrix_DD = torch.eye(encoder.width, requires_grad=True)
    optimizer = torch.optim.Adam([matrix_DD], lr=settings.learning_rate)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps)
        drawn_B = torch.randperm(len(examples))[: settings.batch_size]
        loss = _loss(matrix_DD, apart_TD, places, drawn_B, settings)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss became {loss.item()!r} at step {step}; lower learning_rate")
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress(f"loss {loss.item():.4f}", step + 1, settings.steps)
    return Projection(mean_D=mean_D.numpy(), matrix_DD=matrix_DD.detach().numpy())


def projection_examples(pairs: Sequence[Pair], settings: ProjectionSettings) -> list[Example]:
    """The edits to learn from, each with a request that is one question, and some with a negative.

    Raises:
        TrainingError: There are not two of them.
    """
    drawn = chain.from_iterable(
        batches(
            pairs,
            steps=-(-settings.examples // _DRAWN),
            batch_size=_DRAWN,
            neighbours=settings.neighbours,
            statement_share=settings.statement_share,
            negative_share=settings.negative_share,
            seed=settings.seed,
        )
    )
    examples = [
        example
        for example in drawn
        if len(example.requests) == 1 and len(example.requests[0]) < settings.longest_request
    ]
    if len(examples) < 2:
        raise TrainingError("there are not two edits with a request of one sentence; give more pairs")
    return examples


def save_projection(projection: Projection, folder: Path) -> Path:
    """Write it into `folder` as the gateway reads it, the matrix in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {
        "mean": projection.mean_D,
        "matrix": projection.matrix_DD.astype(np.float16),
    }
    save_file(arrays, folder / PROJECTION_FILE)
    return folder / PROJECTION_FILE


def _texts(example: Example) -> list[str]:
    negative = [] if example.negative is None else [example.negative]
    return [example.prompt, example.form, *example.requests, *negative]


def _places(examples: Sequence[Example], texts: Sequence[str]) -> _Places:
    at = {text: place for place, text in enumerate(texts)}
    return _Places(
        prompts_N=torch.tensor([at[example.prompt] for example in examples]),
        forms_N=torch.tensor([at[example.form] for example in examples]),
        requests_N=torch.tensor([at[example.requests[0]] for example in examples]),
        negatives_N=torch.tensor([-1 if e.negative is None else at[e.negative] for e in examples]),
    )


def _encoded(encoder: Encoder, texts: Sequence[str], progress: Callable[[str, int, int], None]) -> Vectors:
    parts = []
    for start in range(0, len(texts), _ENCODED):
        parts.append(encoder.encode(texts[start : start + _ENCODED]))
        progress("texts encoded", min(start + _ENCODED, len(texts)), len(texts))
    return np.concatenate(parts)


def _loss(
    matrix_DD: torch.Tensor,
    apart_TD: torch.Tensor,
    places: _Places,
    drawn_B: torch.Tensor,
    settings: ProjectionSettings,
) -> torch.Tensor:
    def mapped(places_B: torch.Tensor) -> torch.Tensor:
        return F.normalize(apart_TD[places_B] @ matrix_DD, dim=-1)

    prompts_BD = F.normalize(apart_TD[places.prompts_N[drawn_B]], dim=-1)
    negatives_B = places.negatives_N[drawn_B]
    owners = (negatives_B >= 0).nonzero()[:, 0]
    contrast = contrastive_loss(
        mapped(places.forms_N[drawn_B]), mapped(places.requests_N[drawn_B]), mapped(negatives_B[owners]),
        owners, prompts_BD @ prompts_BD.T >= settings.alike,
        temperature=settings.temperature, negative_weight=settings.negative_weight,
    )  # fmt: skip
    moved = (matrix_DD - torch.eye(len(matrix_DD))).square().sum() / len(matrix_DD)
    return contrast + settings.identity_weight * moved
