"""A run on a user's own edits and traffic: from the shipped weights, with rehearsal, compared with them.

Nothing of it needs public data. The threshold is chosen on contrast sets that no training reads, so that the
new weights fire no more often there than the current ones; the report counts rows of edits that were held
out, and sets of another writer.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from serac_gateway.config.loading import load_config
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.cross_encoder import ScopeCalibration, read_calibration
from serac_gateway.models.classifiers.runtimes import open_pair_model
from serac_gateway.models.classifiers.similarity import CALIBRATION_FILE
from serac_gateway.models.e5.conversion_request import WEIGHTS_FILE
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.loading import SHIPPED_CLASSIFIER
from training.benchmarks.base import Benchmark
from training.benchmarks.decision_cases import open_cases
from training.data.contrasts import load_contrast_sets
from training.data.own_data import OwnData, own_pairs, read_own
from training.data.pairs import Pair
from training.data.rehearsal import rehearsal_pairs
from training.evaluation.gateway_models import open_encoder
from training.progress import OnProgress
from training.runs import TrainingError, WorseWeightsError, begin_run, save_records
from training.scope import calibration as calibrating
from training.scope import observations as observing
from training.scope.comparison import GENERAL, OWN, Comparison, compared
from training.scope.config import ScopeConfig, digest
from training.scope.export import export
from training.scope.run import (
    CONVERTED_FOLDER,
    OWN_FILE,
    PAIRS_FILE,
    WEIGHTS_FOLDER,
    depends_calibration,
    train_pairs,
    write_calibration,
)
from training.scope.suppression_threshold import with_suppression_threshold
from training.scope.validation_sets import contrast_benchmark, general_benchmark, own_benchmark

COMPARISON_FILE = "comparison.json"
_HIGHEST_THRESHOLD = 0.994
_SEED = 0
"""Of the drawn sets: the same for every run, so that reports can be compared."""


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    """What `OWN_FILE` says."""

    digest: str


def train_own(
    config: ScopeConfig,
    run: Path,
    *,
    edits: Path,
    traffic: Path,
    current: Path = SHIPPED_CLASSIFIER,
    encoder: Encoder | None = None,
    on_progress: OnProgress,
) -> Comparison:
    """Train on the rows that are not held out, calibrate, and compare with the weights in `current`.

    A stopped run of the same configuration and files goes on. The new weights stay in the folder of the run
    until `promote` writes them elsewhere.

    Raises:
        TrainingError: See `train_scope`; also a run folder of other data or another configuration.
        ConfigError: The user's files or the current weights are damaged, or those were made for another
            encoder.
    """
    own = read_own(edits, traffic)
    _check(own, run)
    begin_run(run, config)
    (run / OWN_FILE).write_bytes(msgspec.json.encode(_Data(digest=own.digest)))
    encoder = encoder or open_encoder()
    _, calibration = read_calibration(current)
    if calibration.encoder_fingerprint != encoder.fingerprint:
        raise ConfigError(
            f"the weights in {str(current)!r} were calibrated for the encoder"
            f" {calibration.encoder_fingerprint!r}, and this is {encoder.fingerprint!r}; name weights of this"
            " encoder with --current"
        )
    if not (run / PAIRS_FILE).is_file():
        on_progress("making pairs", 0, 1)
        save_records(run / PAIRS_FILE, _pairs(config, own, encoder))
    train_pairs(config, run, on_progress=on_progress)
    weights = run / WEIGHTS_FOLDER
    export(run / "checkpoint", weights)
    benchmarks = _benchmarks(config, own)
    before = _observed(
        current, load_config().data_path, calibration.max_tokens, calibration, benchmarks, encoder,
        "current weights", on_progress,
    )  # fmt: skip
    after = _observed(
        weights, run / CONVERTED_FOLDER, config.training.max_tokens, calibration, benchmarks, encoder,
        "new weights", on_progress,
    )  # fmt: skip
    made = _calibrated(config, own, calibration, before, after)
    write_calibration(weights, made)
    made = _with_suppressions(config, run, made, encoder, on_progress)
    comparison = compared(
        (before, calibration), (after, made), current_name=str(current), trained_rows=len(own.trained)
    )
    provenance = {**made.provenance, "comparison": msgspec.to_builtins(comparison)}
    write_calibration(weights, msgspec.structs.replace(made, provenance=provenance))
    save_records(run / observing.OBSERVATIONS_FILE, after)
    written = msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n"
    (run / COMPARISON_FILE).write_bytes(written)
    return comparison


def _with_suppressions(
    config: ScopeConfig, run: Path, made: ScopeCalibration, encoder: Encoder, on_progress: OnProgress
) -> ScopeCalibration:
    weights, cases = run / WEIGHTS_FOLDER, open_cases("suppressions-calibration")
    drawn = random.Random(_SEED).sample(cases, min(config.own.suppression_cases, len(cases)))
    model = open_pair_model(weights, run / CONVERTED_FOLDER, max_tokens=config.training.max_tokens)
    return with_suppression_threshold(
        made, weights, drawn, encoder=encoder, model=model, on_progress=on_progress
    )


def promote(run: Path, folder: Path, *, force: bool = False) -> Comparison:
    """Write the weights of a run on a user's own data into `folder`, in place of weights that are there.

    Raises:
        TrainingError: The run has no weights yet, or `folder` holds something else than weights.
        WorseWeightsError: They are worse than the current ones, and `force` is not set; nothing is written.
    """
    weights = run / WEIGHTS_FOLDER
    if not (run / COMPARISON_FILE).is_file() or not (weights / CALIBRATION_FILE).is_file():
        raise TrainingError(
            f"{str(run)!r} holds no finished run on your own data; run serac-train scope --edits …"
            f" --traffic … --run {run} first"
        )
    comparison = msgspec.json.decode((run / COMPARISON_FILE).read_bytes(), type=Comparison)
    if comparison.worse and not force:
        raise WorseWeightsError(
            f"the new weights are worse than those in {comparison.current!r}: {'; '.join(comparison.worse)};"
            " nothing was written: train on more rows, or give --force"
        )
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / CALIBRATION_FILE).is_file()
    ):
        raise TrainingError(
            f"{str(folder)!r} holds something else than weights; give --to a folder that is new or empty, or"
            " one that serac-train wrote"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (folder.with_name(f".{folder.name}.{part}") for part in ("new", "old"))
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(weights, fresh)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return comparison


def _check(own: OwnData, run: Path) -> None:
    written = run / OWN_FILE
    if written.is_file():
        known = msgspec.json.decode(written.read_bytes(), type=_Data)
        if known.digest != own.digest:
            raise TrainingError(
                f"{str(run)!r} is the run of other edits and traffic; give another --run, or delete it"
            )
    elif (run / PAIRS_FILE).is_file():
        raise TrainingError(f"{str(run)!r} is no run on your own data; give another --run")
    if not any(logged.edit_id is not None for logged in own.trained):
        raise TrainingError(
            f"of {len(own.trained)} rows that may be trained none is in an edit's scope (one edit in four is"
            " held out for the report); collect rows of more edits"
        )


def _pairs(config: ScopeConfig, own: OwnData, encoder: Encoder) -> list[Pair]:
    rng = random.Random(config.mixture.seed)
    pairs = own_pairs(own.trained_edits, own.trained, encoder.encode, rng)[: config.own.max_pairs]
    pairs += rehearsal_pairs(rng, config.own.rehearsal_pairs)
    rng.shuffle(pairs)
    return pairs


def _benchmarks(config: ScopeConfig, own: OwnData) -> list[Benchmark]:
    contrasts = contrast_benchmark(load_contrast_sets(), seed=_SEED)
    drawn = random.Random(_SEED).sample(
        contrasts.cases, min(config.own.calibration_sets, len(contrasts.cases))
    )
    return [
        msgspec.structs.replace(own_benchmark(own.edits, own.held_out), name=OWN),
        general_benchmark(GENERAL, sets=config.own.general_sets, seed=_SEED),
        msgspec.structs.replace(contrasts, cases=tuple(drawn)),
    ]


def _observed(
    weights: Path,
    data_path: Path,
    max_tokens: int,
    calibration: ScopeCalibration,
    benchmarks: Sequence[Benchmark],
    encoder: Encoder,
    name: str,
    on_progress: OnProgress,
) -> list[observing.Observation]:
    if not (weights / WEIGHTS_FILE).is_file():
        raise ConfigError(f"{str(weights)!r} holds no {WEIGHTS_FILE}; name weights that serac-train wrote")
    return observing.observe(
        benchmarks,
        encoder=encoder,
        make_index=index_maker(encoder.width),
        model=open_pair_model(weights, data_path, max_tokens=max_tokens),
        floor=calibration.similarity_floor,
        margin=calibration.similarity_margin,
        unlikely=calibration.unlikely_similarity,
        on_progress=lambda part, done, total: on_progress(f"{name}, {part}", done, total),
    )


def _calibrated(
    config: ScopeConfig,
    own: OwnData,
    current: ScopeCalibration,
    before: Sequence[observing.Observation],
    after: Sequence[observing.Observation],
) -> ScopeCalibration:
    """The calibration of the new weights: as careful on the contrast sets as the current ones are."""
    kept = [observation for observation in after if observation.benchmark not in (OWN, GENERAL)]
    same = [observation for observation in before if observation.benchmark not in (OWN, GENERAL)]
    stack = calibrating.fitted_stack(kept)
    no_fire = calibrating.at_threshold(
        calibrating.outcomes(same, current.stack), current.scope_threshold
    ).no_fire
    outcomes = calibrating.outcomes(kept, stack)
    try:
        point = calibrating.chosen_threshold(outcomes, max_false_fire_rate=1 - no_fire)
    except ConfigError:  # the report refuses weights that fire more often
        point = calibrating.at_threshold(outcomes, _HIGHEST_THRESHOLD)
    return msgspec.structs.replace(
        current,
        stack=stack,
        scope_threshold=point.threshold,
        max_tokens=config.training.max_tokens,
        depends=depends_calibration(kept),
        provenance={
            "date": datetime.now(UTC).date().isoformat(),
            "config_digest": digest(config),
            "command": "serac-train scope --edits … --traffic …",
            "own_rows": len(own.trained),
            "threshold_rule": "no-fire on kept contrast sets at least that of the weights before",
            "no_fire_before": round(no_fire, 4),
            "hit": round(point.hit, 4),
            "no_fire": round(point.no_fire, 4),
        },
    )
