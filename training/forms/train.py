"""Trains the heads that read forms: logistic regression on the embedded encoder's vectors.

What is reported is measured on requests, and on questions of contrast sets, that the measured heads were not
fitted on; the heads that are written were fitted on all but those sets.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.forms import heads
from training.data.contrasts import load_contrast_sets
from training.forms.examples import (
    Labelled,
    halves,
    key_examples,
    kind_examples,
    load_form_requests,
    questions,
    wanted_examples,
)

_STRENGTH = {heads.KINDS: 30.0, heads.WANTED: 100.0, heads.SPOKEN: 100.0, heads.KEY: 30.0}
"""C of scikit-learn: the inverse of the weight of the squared norm."""
_FOLDS = 5
_SEED = 7
_MAX_QUESTIONS, _MAX_HELD_OUT, _MAX_HALVED = 1_500, 500, 500


class HeadReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one head does on texts whose sources it was not fitted on."""

    examples: int
    right: float
    """Share."""
    false_forms: float | None = None
    """Share of questions of held-out contrast sets in which the head sees a form; None: it sees none."""


class Examples(msgspec.Struct, frozen=True, kw_only=True):
    """What each head is fitted on, and questions that it is not."""

    of_head: dict[str, list[Labelled]]
    held_out: list[Labelled]


def make_examples(seed: int = _SEED) -> Examples:
    """All examples; the same for the same seed."""
    rng = random.Random(seed)
    requests, sets = load_form_requests(), load_contrast_sets()
    queries = list(questions([each for each in sets if not each.is_held_out], rng))
    held_out = list(questions([each for each in sets if each.is_held_out], rng))
    rng.shuffle(queries)
    rng.shuffle(held_out)
    queries, held_out = queries[:_MAX_QUESTIONS], held_out[:_MAX_HELD_OUT]
    kinds = list(kind_examples(requests, rng))
    formless = [each for each in kinds if each.label == heads.NO_FORM]
    plain = [msgspec.structs.replace(each, label=heads.NO_FORM) for each in queries]
    spoken = [
        Labelled(text=each.text, label=request.language, source=request.text)
        for request in requests
        for each in kind_examples([request], random.Random(seed))
    ]
    return Examples(
        of_head={
            heads.KINDS: [*kinds, *plain, *halves([*queries[:_MAX_HALVED], *formless], rng)],
            heads.WANTED: list(wanted_examples(requests, rng)),
            heads.SPOKEN: [*spoken, *queries],
            heads.KEY: list(key_examples(requests, queries, rng)),
        },
        held_out=held_out,
    )  # fmt: skip


def train_heads(encoder: Encoder, examples: Examples, out: Path) -> dict[str, HeadReport]:
    """Fit all heads, write them to `out` and report on each."""
    vectors = _Vectors(encoder)
    reports: dict[str, HeadReport] = {}
    tensors: dict[str, NDArray[np.float16] | NDArray[np.float32]] = {}
    metadata = {heads.FINGERPRINT: encoder.fingerprint}
    held_out_HD = vectors.of(examples.held_out)
    for head, labelled in examples.of_head.items():
        vectors_BD, labels_B = vectors.of(labelled), np.array([each.label for each in labelled])
        reports[head] = _report(head, labelled, vectors_BD, labels_B, held_out_HD)
        fitted = _fitted(head, vectors_BD, labels_B)
        weight, bias, labels = _softmax_form(fitted)
        tensors |= {  # safetensors writes the bytes as they lie
            f"{head}.weight": np.ascontiguousarray(weight, dtype=np.float16),
            f"{head}.bias": np.ascontiguousarray(bias, dtype=np.float32),
        }
        metadata[head] = ",".join(labels)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / heads.HEADS_FILE, metadata=metadata)
    (out / heads.HEADS_FILE).chmod(0o644)  # safetensors writes it for its owner alone
    return reports


class _Vectors:
    """Vectors by the encoder, each text embedded once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, NDArray[np.float32]] = {}

    def of(self, labelled: Sequence[Labelled]) -> NDArray[np.float32]:
        missing = [text for text in dict.fromkeys(each.text for each in labelled) if text not in self._known]
        self._known.update(zip(missing, self._encoder.encode(missing), strict=True))
        return np.stack([self._known[each.text] for each in labelled])


def _fitted(head: str, vectors_BD: NDArray[np.float32], labels_B: NDArray[np.str_]) -> LogisticRegression:
    balance = "balanced" if head == heads.KEY else None
    model = LogisticRegression(C=_STRENGTH[head], max_iter=1_000, class_weight=balance)
    return model.fit(vectors_BD, labels_B)


def _report(
    head: str,
    labelled: Sequence[Labelled],
    vectors_BD: NDArray[np.float32],
    labels_B: NDArray[np.str_],
    held_out_HD: NDArray[np.float32],
) -> HeadReport:
    sources = sorted({each.source for each in labelled})
    random.Random(_SEED).shuffle(sources)
    fold_of = {source: place % _FOLDS for place, source in enumerate(sources)}
    folds_B = np.array([fold_of[each.source] for each in labelled])
    right, false_forms = 0, []
    for fold in range(_FOLDS):
        model = _fitted(head, vectors_BD[folds_B != fold], labels_B[folds_B != fold])
        right += int((model.predict(vectors_BD[folds_B == fold]) == labels_B[folds_B == fold]).sum())
        if head == heads.KINDS:
            false_forms.append(float((model.predict(held_out_HD) != heads.NO_FORM).mean()))
    return HeadReport(
        examples=len(labelled),
        right=right / len(labelled),
        false_forms=float(np.mean(false_forms)) if false_forms else None,
    )


def _softmax_form(model: LogisticRegression) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Weights, biases and labels of a softmax; scikit-learn has one row for two labels."""
    labels = [str(label) for label in model.classes_]
    if len(labels) > 2:
        return model.coef_, model.intercept_, labels
    return np.vstack([-model.coef_, model.coef_]) / 2, np.r_[-model.intercept_, model.intercept_] / 2, labels
