"""Losses of the scope classifier as pure functions."""

from __future__ import annotations

import torch
from torch.nn import functional

DEPENDS_WEIGHT = 0.3
"""Of the second question, whether the answer depends on the edit, against the first."""


def two_question_loss(
    logits_B2: torch.Tensor, labels_B2: torch.Tensor, *, smoothing: float = 0.0
) -> torch.Tensor:
    """`scope_loss` of both questions: in scope, and depends on the edit; a label of NaN counts for nothing.

    *Shape:* both (B, 2), labels 0, 1 or NaN; the first column has no NaN.
    """
    loss = scope_loss(logits_B2[:, 0], labels_B2[:, 0], smoothing=smoothing)
    known_B = ~torch.isnan(labels_B2[:, 1])
    if not known_B.any():
        return loss
    depends = scope_loss(logits_B2[known_B, 1], labels_B2[known_B, 1], smoothing=smoothing)
    return loss + DEPENDS_WEIGHT * depends


def scope_loss(logits_B: torch.Tensor, labels_B: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """Binary cross-entropy in which both labels weigh half, as in SERAC (Mitchell et al. 2022, balanced BCE).

    A batch of one label only is weighed as it is. *Shape:* both (B,), labels 0 or 1. `smoothing` moves the
    labels by that much towards the middle, which keeps logits small enough to calibrate.

    Raises:
        ValueError: The shapes differ or the batch is empty.
    """
    if logits_B.shape != labels_B.shape or logits_B.numel() == 0:
        raise ValueError(
            f"logits {tuple(logits_B.shape)} and labels {tuple(labels_B.shape)} must be equal and not empty"
        )
    soft_B = labels_B * (1 - 2 * smoothing) + smoothing
    each_B = functional.binary_cross_entropy_with_logits(logits_B, soft_B, reduction="none")
    positives = labels_B.sum()
    negatives = labels_B.numel() - positives
    if positives == 0 or negatives == 0:
        return each_B.mean()
    weights_B = labels_B / positives + (1 - labels_B) / negatives
    return (each_B * weights_B).sum() / 2
