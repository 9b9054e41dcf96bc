"""Calibrates the similarity classifier: cosine -> probability and one threshold, in the deployed form.

All edits of all sets lie in one index, several forms an edit. What is calibrated is the nearest edit's
cosine: a query is a hit only if the nearest edit is the right one, so a near miss of a wrong edit counts
against the curve. No test set is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from serac_gateway.domain.edits import first_version, forms
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.similarity import CALIBRATION_FILE, SimilarityCalibration, logistic
from serac_gateway.models.encoders.base import Encoder
from training.benchmarks import counterfact, knowedit, wikifactdiff, zsre
from training.benchmarks.base import Benchmark, Probe, Role, chosen, prepared
from training.data.files import data_folder, read_rows

_TRAFFIC_FILE = "paraphrase_pairs/similiar_qqp_full.jsonl.gz"
"""Stands for unrelated traffic, so that the unrelated-traffic benchmark stays unseen."""
_TRAFFIC_ROWS = 4_000

_LEFT_OUT = frozenset({"prompt", "generation", "forgetfulness"})
"""Kinds without information about a cut: equal by definition, not about the edit, above any cut."""

FILES = (
    counterfact.VALIDATION_FILE,
    wikifactdiff.FILE,
    zsre.SMALL_TRAIN_FILE,
    *knowedit.FILES,
    _TRAFFIC_FILE,
)


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """The nearest edit's cosine for the probes of one kind of one set."""

    name: str
    in_scope: bool
    similarity_B: NDArray[np.float64]
    right_B: NDArray[np.bool_]
    """Whether the nearest edit is the probe's own; all False where the probes are negatives."""


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The rates at one cosine."""

    similarity: float
    hit: float
    """Mean over the positive sets."""
    no_fire: float
    """Mean over the negative sets."""
    harmonic: float
    by_set: dict[str, float]


def validation_sets() -> list[Benchmark]:
    """What the curve is fitted on; none of it is marked test.

    Raises:
        ConfigError: The data folder is missing or damaged.
    """
    traffic = tuple(
        Probe(kind="unrelated", text=row["text_a"], in_scope=False)
        for row in read_rows(data_folder() / _TRAFFIC_FILE)[:_TRAFFIC_ROWS]
    )
    small_zsre = zsre.read(data_folder() / zsre.SMALL_TRAIN_FILE, name="zsre-train-1k", role=Role.TRAIN)
    benchmarks = [counterfact.load_validation(), wikifactdiff.load(), small_zsre, knowedit.load()]
    return [
        *(prepared(chosen(benchmark, edits=None, seed=0)) for benchmark in benchmarks),
        Benchmark(name="qqp", role=Role.TRAIN, cases=(), traffic=traffic),
    ]


def measured(benchmarks: Sequence[Benchmark], encoder: Encoder, index: EditIndex) -> list[Outcomes]:
    """Store all edits in `index` (given empty), ask all probes, and keep the nearest edit's cosine.

    Contested negatives are left out.
    """
    for benchmark in benchmarks:
        index.put(
            (case.id, encoder.encode(forms(first_version(case.edit, namespace="calibration"))))
            for case in benchmark.cases
        )
    outcomes = []
    for benchmark in benchmarks:
        probes = [(probe, {case.id, *case.rivals}) for case in benchmark.cases for probe in case.probes]
        probes += [(probe, set()) for probe in benchmark.traffic]
        for kind in sorted({probe.kind for probe, _ in probes} - _LEFT_OUT):
            rows = [(probe, own) for probe, own in probes if probe.kind == kind and not probe.contested]
            nearest = [
                neighbours[0]
                for neighbours in index.search(encoder.encode([probe.text for probe, _ in rows]), 1)
            ]
            in_scope = rows[0][0].in_scope
            outcomes.append(
                Outcomes(
                    name=f"{benchmark.name}/{kind}",
                    in_scope=in_scope,
                    similarity_B=np.array([neighbour.similarity for neighbour in nearest]),
                    right_B=np.array(
                        [
                            in_scope and neighbour.edit_id in own
                            for neighbour, (_, own) in zip(nearest, rows, strict=True)
                        ]
                    ),
                )
            )
    return outcomes


def operating_point(outcomes: Sequence[Outcomes], similarity: float) -> OperatingPoint:
    """The rates if everything at `similarity` or above fires."""
    by_set = {}
    for outcome in outcomes:
        fires_B = outcome.similarity_B >= similarity
        by_set[outcome.name] = float(np.mean(fires_B & outcome.right_B if outcome.in_scope else ~fires_B))
    hit = float(np.mean([by_set[outcome.name] for outcome in outcomes if outcome.in_scope]))
    no_fire = float(np.mean([by_set[outcome.name] for outcome in outcomes if not outcome.in_scope]))
    harmonic = 2 * hit * no_fire / (hit + no_fire) if hit + no_fire else 0.0
    return OperatingPoint(similarity=similarity, hit=hit, no_fire=no_fire, harmonic=harmonic, by_set=by_set)


def fitted(outcomes: Sequence[Outcomes]) -> tuple[float, float]:
    """Slope and intercept of P(nearest edit is right | cosine); every set weighs the same on its side.

    Raises:
        ConfigError: There are no positives or no negatives, so nothing can be calibrated.
    """
    weights = []
    for side in (True, False):
        names = [outcome for outcome in outcomes if outcome.in_scope is side and len(outcome.similarity_B)]
        if not names:
            raise ConfigError(
                f"the calibration data has no {'positive' if side else 'negative'} probes; it needs both"
            )
        weights += [(outcome, 1.0 / (len(names) * len(outcome.similarity_B))) for outcome in names]
    model = LogisticRegression(C=1e6).fit(
        np.concatenate([outcome.similarity_B for outcome, _ in weights])[:, None],
        np.concatenate([outcome.right_B for outcome, _ in weights]),
        sample_weight=np.concatenate(
            [np.full(len(outcome.similarity_B), weight) for outcome, weight in weights]
        )
        * 10_000,
    )
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def calibrate(
    *,
    encoder: Encoder,
    make_index: Callable[[], EditIndex],
    benchmarks: Sequence[Benchmark],
    provenance: dict[str, object],
) -> SimilarityCalibration:
    """The curve, and the threshold with the best harmonic mean of hit and no-fire.

    Raises:
        ConfigError: The data is one-sided.
    """
    outcomes = measured(benchmarks, encoder, make_index())
    slope, intercept = fitted(outcomes)
    grid = np.round(np.arange(0.30, 1.0, 0.002), 3)
    best = max((operating_point(outcomes, float(cut)) for cut in grid), key=lambda point: point.harmonic)
    return SimilarityCalibration(
        encoder_fingerprint=encoder.fingerprint,
        slope=round(slope, 4),
        intercept=round(intercept, 4),
        scope_threshold=round(logistic(round(slope, 4) * best.similarity + round(intercept, 4)), 6),
        provenance={
            **provenance,
            "edits": sum(len(benchmark.cases) for benchmark in benchmarks),
            "probes": {outcome.name: len(outcome.similarity_B) for outcome in outcomes},
            "at_threshold": msgspec.to_builtins(_rounded(best)),
        },
    )


def write(calibration: SimilarityCalibration, folder: Path) -> Path:
    """Write `calibration` into `folder` and return the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CALIBRATION_FILE
    path.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n")
    return path


def provenance(command: str) -> dict[str, object]:
    """When, by what command and from which bytes the calibration comes."""
    folder = data_folder()
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "data_sha256": {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in FILES},
        "threshold_rule": "best harmonic mean of hit and no-fire, each a mean over its sets, in one index",
    }


def _rounded(point: OperatingPoint) -> OperatingPoint:
    return OperatingPoint(
        similarity=point.similarity,
        hit=round(point.hit, 4),
        no_fire=round(point.no_fire, 4),
        harmonic=round(point.harmonic, 4),
        by_set={name: round(rate, 4) for name, rate in point.by_set.items()},
    )
