"""The trained scope classifier: a cross-encoder reads edit and request together.

A logistic function of its logit is the scope_probability. Similarity says nothing more: across languages a
right edit is less similar than a wrong one within one language. Nor do names, which are spelt in another
script or capitalised like any German noun, nor numbers, which the model has learned to compare
(training/LOG.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from serac_gateway.domain.edits import wordings
from serac_gateway.domain.queries import Query
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import Candidate, Classification, PairModel, ScopeClassifier
from serac_gateway.models.classifiers.pair_text import edit_text, request_text
from serac_gateway.models.classifiers.runtimes import open_pair_model
from serac_gateway.models.classifiers.similarity import CALIBRATION_FILE, Probability, logistic
from serac_gateway.models.classifiers.spelling import asks_the_same, says_something, speaks
from serac_gateway.models.devices import Placement
from serac_gateway.models.encoders.base import have_same_weights
from serac_gateway.models.progress import OnStep

CERTAIN_LOGIT = 1_000.0
"""Larger than any model's, and finite, so that JSON can hold it."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a query and a candidate."""

    logit: float
    """The cross-encoder's."""
    similarity: float
    """Of the bi-encoder, for reports; the probability does not depend on it."""


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """The logistic function from the logit to a probability (Platt 1999).

    scope_probability = 1 / (1 + exp(-(logit_weight * logit + intercept))). Files of earlier versions have a
    weight of differing numbers too, which is left out.
    """

    logit_weight: Annotated[float, msgspec.Meta(gt=0)]
    intercept: float

    def probability(self, evidence: Evidence) -> float:
        """The scope_probability of a pair, 0..1."""
        return logistic(self.logit_weight * evidence.logit + self.intercept)


class DependsCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same for the second logit: whether a right answer depends on the edit."""

    stack: Stack
    threshold: Probability


class ScopeCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that `serac-train calibrate` writes beside the weights."""

    encoder_fingerprint: str
    """The encoder whose cosines were calibrated. Cosines of other encoders have another scale."""
    stack: Stack
    scope_threshold: Probability
    suppression_threshold: Probability | None = None
    """Of suppressions; None, as in files of earlier versions: the scope_threshold is theirs too."""
    similarity_floor: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    """A less similar candidate is out of scope without being read by the cross-encoder."""
    similarity_margin: Annotated[float, msgspec.Meta(ge=0, le=2)] = 2.0
    """Nor is one that is this much less similar than the nearest."""
    unlikely_similarity: Annotated[float, msgspec.Meta(ge=-1, le=1)] = -1.0
    """Unrelated questions have no edit nearer than this, and right edits below it are the nearest ones: few
    candidates are read there."""
    max_tokens: Annotated[int, msgspec.Meta(ge=16, le=512)]
    depends: DependsCalibration | None = None
    """None: the weights have no such output."""
    provenance: dict[str, Any] = {}
    """Data, config digest, date and results."""


class CrossEncoderClassifier(ScopeClassifier):
    """Reads every candidate together with the query. One instance serves all threads."""

    def __init__(
        self,
        folder: Path,
        *,
        encoder_fingerprint: str,
        model: PairModel | None = None,
        data_path: Path | None = None,
        placement: Placement | None = None,
        on_step: OnStep = lambda step: None,
    ) -> None:
        """Load calibration and weights from `folder`; `model` replaces the weights (calibrating).

        Weights that need converting are converted into `data_path`, see `open_pair_model`.

        Raises:
            ConfigError: A file is missing or damaged, or was made for another encoder.
        """
        data, self._calibration = read_calibration(folder)
        if not have_same_weights(self._calibration.encoder_fingerprint, encoder_fingerprint):
            raise ConfigError(
                f"the calibration {str(folder / CALIBRATION_FILE)!r} was made for the encoder"
                f" {self._calibration.encoder_fingerprint!r}, but this gateway runs {encoder_fingerprint!r};"
                " cosines of different encoders cannot share a threshold: run serac-train calibrate,"
                " or leave models.encoder out of the configuration"
            )
        self._model = model or open_pair_model(
            folder,
            data_path,
            max_tokens=self._calibration.max_tokens,
            placement=placement,
            on_step=on_step,
        )
        self._fingerprint = f"cross-encoder-{hashlib.sha256(data).hexdigest()[:12]}"

    @property
    def scope_threshold(self) -> float:
        """The calibrated threshold, the same for all data."""
        return self._calibration.scope_threshold

    @property
    def suppression_threshold(self) -> float | None:
        """Chosen on suppressions alone, if the calibration has one."""
        return self._calibration.suppression_threshold

    @property
    def similarity_floor(self) -> float:
        """Below it no calibration pair was in scope, with a margin."""
        return self._calibration.similarity_floor

    @property
    def similarity_margin(self) -> float:
        """Hardly any calibration pair in scope was this much less similar than the nearest edit."""
        return self._calibration.similarity_margin

    @property
    def unlikely_similarity(self) -> float:
        """Hardly any unrelated calibration question had an edit as similar as this."""
        return self._calibration.unlikely_similarity

    @property
    def fingerprint(self) -> str:
        """Digest of the calibration file, which identifies its weights."""
        return self._fingerprint

    @property
    def depends_threshold(self) -> float | None:
        """The calibrated threshold, if the weights have that output."""
        return self._calibration.depends.threshold if self._calibration.depends else None

    def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        """See `ScopeClassifier.classify`."""
        logits_KO = self._model.logits([pair_texts(query, candidate) for candidate in candidates])
        depends = self._calibration.depends
        return [
            Classification(
                scope_probability=self._calibration.stack.probability(
                    evidence(query, candidate, float(logits_O[0]), self._model)
                ),
                depends_probability=None
                if depends is None
                else depends.stack.probability(evidence(query, candidate, float(logits_O[1]), self._model)),
            )
            for logits_O, candidate in zip(logits_KO, candidates, strict=True)
        ]


def pair_texts(query: Query, candidate: Candidate) -> tuple[str, str]:
    """The cross-encoder's input: the edit with its prompt or the most similar paraphrase, and the query."""
    edit = edit_text(_nearest_prompt(candidate), candidate.edit.target_new)
    return edit, request_text(query.text, query.context, query.instructions, edit)


def evidence(query: Query, candidate: Candidate, logit: float, model: PairModel) -> Evidence:
    """What is known of a query and a candidate, given the `logit` of `model`.

    An edit's own prompt, asked by itself, is in its scope by definition: its logit is `CERTAIN_LOGIT`. With
    earlier turns or instructions it may be about another subject, or the material of a task. Texts that say
    nothing, of invisible characters or marks, are in the scope of nothing: what a model makes of them is
    chance. Nor are texts that it cannot read, see `is_legible`.
    """
    prompt = _nearest_prompt(candidate)
    if not (says_something(prompt) and any(map(says_something, (query.text, *query.context)))):
        logit = -CERTAIN_LOGIT
    elif not query.context and not query.instructions and asks_the_same(prompt, query.text):
        logit = CERTAIN_LOGIT
    elif not is_legible(prompt, query, model):
        logit = -CERTAIN_LOGIT
    return Evidence(logit=logit, similarity=candidate.similarity)


def is_legible(prompt: str, query: Query, model: PairModel) -> bool:
    """Whether `model` can compare both texts: all characters that its tokenizer lacks are the same to it.

    It cannot where such characters are most of one of them, or where each has some and they share none: two
    names in Gothic letters, two emoji of this year.
    """
    texts = " ".join((*query.context, query.text))
    of_edit, of_query = (set(filter(speaks, model.unreadable(text))) for text in (prompt, texts))
    if not of_edit and not of_query:
        return True
    if of_edit and of_query and not of_edit & of_query:
        return False
    return not (_is_mostly(of_edit, prompt) or _is_mostly(of_query, query.text))


def _is_mostly(characters: set[str], text: str) -> bool:
    if not characters:
        return False
    speaking = list(filter(speaks, text))
    return 2 * sum(char in characters for char in speaking) > len(speaking)


def _nearest_prompt(candidate: Candidate) -> str:
    return candidate.form if candidate.form in wordings(candidate.edit) else candidate.edit.prompt


def read_calibration(folder: Path) -> tuple[bytes, ScopeCalibration]:
    """The calibration in `folder`, as bytes and as a record.

    Raises:
        ConfigError: It is missing or damaged.
    """
    path = folder / CALIBRATION_FILE
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"cannot read the calibration {str(path)!r}: {exc.strerror}; make one with: serac-train calibrate"
        ) from exc
    try:
        return data, msgspec.json.decode(data, type=ScopeCalibration)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"the calibration {str(path)!r} is damaged: {exc}; make one with: serac-train calibrate"
        ) from exc
