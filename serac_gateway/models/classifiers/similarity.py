"""Scope by the encoder's cosine alone: one calibrated logistic curve and one threshold.

The baseline, and the gateway's fallback without trained weights. It measures how similar two texts are, not
whether one answers the other: weights/similarity-minilm/calibration.json has its error rates.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from serac_gateway.domain.queries import Query
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import Candidate, Classification, ScopeClassifier

CALIBRATION_FILE = "calibration.json"

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class SimilarityCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that `serac-train calibrate-similarity` writes."""

    encoder_fingerprint: str
    """The encoder whose cosines were calibrated. Cosines of other encoders have another scale."""
    slope: Annotated[float, msgspec.Meta(gt=0)]
    intercept: float
    """scope_probability = 1 / (1 + exp(-(slope * similarity + intercept)))."""
    scope_threshold: Probability
    provenance: dict[str, Any] = {}
    """Data files with their digests, rows, date, command, and the numbers at the threshold."""


class SimilarityClassifier(ScopeClassifier):
    """In scope iff the candidate is similar enough."""

    def __init__(self, folder: Path, *, encoder_fingerprint: str) -> None:
        """Load the calibration in `folder`.

        Raises:
            ConfigError: It is missing or damaged, or was made for another encoder.
        """
        path = folder / CALIBRATION_FILE
        remedy = "make one with: serac-train calibrate-similarity"
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise ConfigError(f"cannot read the calibration {str(path)!r}: {exc.strerror}; {remedy}") from exc
        try:
            calibration = msgspec.json.decode(data, type=SimilarityCalibration)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ConfigError(f"the calibration {str(path)!r} is damaged: {exc}; {remedy}") from exc
        if calibration.encoder_fingerprint != encoder_fingerprint:
            raise ConfigError(
                f"the calibration {str(path)!r} was made for the encoder"
                f" {calibration.encoder_fingerprint!r}, but this gateway runs {encoder_fingerprint!r};"
                f" cosines of different encoders cannot share a threshold: {remedy}, or leave models.encoder"
                " out of the configuration"
            )
        self._calibration = calibration
        self._fingerprint = f"similarity-{hashlib.sha256(data).hexdigest()[:12]}"

    @property
    def scope_threshold(self) -> float:
        """The calibrated threshold, the same for all data."""
        return self._calibration.scope_threshold

    @property
    def similarity_floor(self) -> float:
        """No floor: a probability costs nothing here, and `serac explain` lists the nearest edits."""
        return -1.0

    @property
    def fingerprint(self) -> str:
        """Digest of the calibration file."""
        return self._fingerprint

    def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        """See `ScopeClassifier.classify`. Only the similarity of a candidate counts."""
        slope, intercept = self._calibration.slope, self._calibration.intercept
        return [
            Classification(scope_probability=logistic(slope * candidate.similarity + intercept))
            for candidate in candidates
        ]


def logistic(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
