"""A run of the scope classifier from data to shippable weights; the commands call these."""

from __future__ import annotations

import platform
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from serac_gateway.edit_index.opening import index_maker
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import PairModel
from serac_gateway.models.classifiers.cross_encoder import (
    DependsCalibration,
    ScopeCalibration,
    read_calibration,
)
from serac_gateway.models.classifiers.runtimes import open_pair_model
from serac_gateway.models.classifiers.similarity import CALIBRATION_FILE
from serac_gateway.models.devices import ON_CPU
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.loading import SHIPPED_CLASSIFIER
from training.benchmarks.decision_cases import open_cases
from training.data.embedding import open_embed
from training.data.files import data_folder
from training.data.pairs import Pair
from training.data.world import World, load_world
from training.evaluation.gateway_models import open_encoder
from training.progress import OnProgress
from training.runs import TrainingError, begin_run, load_records, save_records
from training.scope import calibration as calibrating
from training.scope import observations as observing
from training.scope.config import ScopeConfig, digest, starting_weights
from training.scope.export import export
from training.scope.mined import mined_pairs, unrelated_requests, without_easy
from training.scope.mixture import WIDE, training_pairs
from training.scope.suppression_threshold import with_suppression_threshold
from training.scope.train import Trained, train_scope
from training.scope.validation_sets import validation_benchmarks

PAIRS_FILE = "pairs.jsonl"
OWN_FILE = "own.json"
"""In the folder of a run on a user's own data: what the data was."""
WEIGHTS_FOLDER, CONVERTED_FOLDER, MINING_FOLDER = "weights", "converted", "mining"
DEPENDS_THRESHOLD = 0.5
"""More likely than not: it is asked only where a namespace opts in, and no more than states edits."""


def train(config: ScopeConfig, run: Path, *, on_progress: OnProgress) -> Trained:
    """Make the pairs of the mixture once, then train or go on training.

    Raises:
        TrainingError: See `train_scope`; also a run folder of another configuration.
        ConfigError: The public data is missing.
    """
    _check_not_own(run)
    begin_run(run, config)
    if not (run / PAIRS_FILE).is_file():
        data = data_folder()
        world = load_world(data)
        pairs = training_pairs(world, data, config.mixture, open_embed())
        if config.mined.edits:
            pairs += mined(config, run, world, on_progress=on_progress)
        rng = random.Random(config.mixture.seed)
        if config.mined.easy_share < 1:
            pairs = without_easy(
                pairs, _starting_model(config, run), config.mined, rng, on_progress=on_progress
            )
        rng.shuffle(pairs)
        save_records(run / PAIRS_FILE, pairs)
    return train_pairs(config, run, on_progress=on_progress)


def mined(config: ScopeConfig, run: Path, world: World, *, on_progress: OnProgress) -> list[Pair]:
    """Hard negatives for the weights that the run begins with, retrieved as those that ship do.

    Raises:
        ConfigError: The public data is missing, or the run begins with weights that classify nothing yet.
    """
    model = _starting_model(config, run)
    data, seed = data_folder(), config.mixture.seed
    rng = random.Random(seed)
    wide = msgspec.structs.replace(WIDE, held_out_relations=config.mixture.held_out_relations, seed=seed)
    pairs = training_pairs(world, data, wide, open_embed())
    _, ships = read_calibration(SHIPPED_CLASSIFIER)
    encoder = open_encoder()
    return mined_pairs(
        pairs,
        unrelated_requests(data, pairs, world.passages, config.mined, rng),
        encoder=encoder,
        make_index=index_maker(encoder.width),
        model=model,
        floor=ships.similarity_floor,
        margin=ships.similarity_margin,
        unlikely=ships.unlikely_similarity,
        edits=config.mined.edits,
        rng=rng,
        on_progress=on_progress,
    )


def _starting_model(config: ScopeConfig, run: Path) -> PairModel:
    """What the run begins with, as a gateway would run it.

    Raises:
        ConfigError: It classifies nothing yet, or its folder is damaged.
    """
    start_from = starting_weights(config)
    if start_from is None:
        raise ConfigError(
            f"start_from = {config.start_from!r} is no classifier, so it knows of no pair whether it is hard;"
            " set mined.edits to 0 and mined.easy_share to 1, or begin with weights"
        )
    export(start_from, run / MINING_FOLDER)
    return open_pair_model(
        run / MINING_FOLDER, run / CONVERTED_FOLDER, max_tokens=config.training.max_tokens, placement=ON_CPU
    )


def train_pairs(config: ScopeConfig, run: Path, *, on_progress: OnProgress) -> Trained:
    """Train, or go on training, on the pairs that lie in the folder of the run.

    Raises:
        TrainingError: See `train_scope`.
    """

    def stepped(step: int, steps: int, loss: float) -> None:
        on_progress(f"loss {loss:.4f}", step, steps)

    return train_scope(
        load_records(run / PAIRS_FILE, Pair),
        start_from=starting_weights(config),
        run=run,
        settings=config.training,
        progress=stepped,
    )


def _check_not_own(run: Path) -> None:
    if (run / OWN_FILE).is_file():
        raise TrainingError(
            f"{str(run)!r} is a run on your own data: serac-train scope --edits … --traffic … goes on with it"
            " and calibrates it, and serac-train promote writes its weights"
        )


def calibrate(
    config: ScopeConfig, run: Path, out: Path, *, reuse: bool = False,
    max_false_fire_rate: float | None = None, on_progress: OnProgress,
) -> tuple[ScopeCalibration, list[observing.Observation]]:  # fmt: skip
    """Export the run's checkpoint into `out`, observe the validation sets with it, fit and choose.

    The threshold of suppressions is chosen after that, on sets of their own.

    `reuse` takes the observations of an earlier call and the weights it exported.

    Raises:
        ConfigError: Data is missing or one-sided, or no threshold keeps `max_false_fire_rate`.
        TrainingError: The checkpoint is of another architecture, or of a run on a user's own data, whose
            rows would be observed that were trained.
    """
    _check_not_own(run)
    kept = run / observing.OBSERVATIONS_FILE
    encoder = open_encoder()
    if not reuse:
        export(run / "checkpoint", out, start=starting_weights(config), trained_share=config.trained_share)
    model = open_pair_model(
        out, run / CONVERTED_FOLDER, max_tokens=config.training.max_tokens, threads=1, placement=ON_CPU
    )
    if not reuse:
        observed = _observed(config, model, encoder, on_progress)
        calibrating.check_floor(observed, config.validation.floor)
        save_records(kept, observed)
    observed = observing.load(run)
    stack = calibrating.fitted_stack(observed)
    point = calibrating.chosen_threshold(
        calibrating.outcomes(observed, stack), max_false_fire_rate=max_false_fire_rate
    )
    bins = calibrating.reliability(observed, stack)
    depends = depends_calibration(observed)
    made = ScopeCalibration(
        encoder_fingerprint=encoder.fingerprint,
        stack=stack,
        scope_threshold=point.threshold,
        similarity_floor=max(-1.0, min(config.validation.floor, calibrating.similarity_floor(observed))),
        similarity_margin=calibrating.similarity_margin(observed),
        unlikely_similarity=calibrating.unlikely_similarity(observed),
        max_tokens=config.training.max_tokens,
        depends=depends,
        provenance={
            "date": datetime.now(UTC).date().isoformat(),
            "config_digest": digest(config),
            "command": "serac-train scope, serac-train calibrate",
            "python": platform.python_version(),
            "held_out_relations": list(config.mixture.held_out_relations),
            "validation_sets": list(config.validation.benchmarks),
            "threshold_rule": (
                "best harmonic mean of hit and no-fire, each a mean over the benchmarks, in one index"
                if max_false_fire_rate is None
                else f"lowest with mean false fires <= {max_false_fire_rate}"
            ),
            "expected_calibration_error": round(calibrating.expected_calibration_error(bins), 4),
            "hit": round(point.hit, 4),
            "no_fire": round(point.no_fire, 4),
            "by_set": point.by_set,
        },
    )
    write_calibration(out, made)
    made = with_suppression_threshold(
        made, out, open_cases("suppressions-calibration"), encoder=encoder, model=model,
        on_progress=on_progress,
    )  # fmt: skip
    write_calibration(out, made)
    return made, observed


def write_calibration(folder: Path, calibration: ScopeCalibration) -> None:
    """Write it beside the weights in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n"
    (folder / CALIBRATION_FILE).write_bytes(written)


def depends_calibration(observed: Sequence[observing.Observation]) -> DependsCalibration | None:
    """The second question's calibration; None of weights with one output."""
    turned = calibrating.depended_on(observed)
    if not turned:
        return None
    return DependsCalibration(stack=calibrating.fitted_stack(turned), threshold=DEPENDS_THRESHOLD)


class WorstError(msgspec.Struct, frozen=True, kw_only=True):
    """A probe that is decided wrongly."""

    error: str
    """"false fire" or "miss"."""
    set_name: str
    query: str
    edit: str
    """Of the most probable candidate."""
    scope_probability: float
    similarity: float | None
    logit: float | None


def worst(observed: Sequence[observing.Observation], made: ScopeCalibration, count: int) -> list[WorstError]:
    """The worst false fires (most probable first), then the worst misses (least probable first)."""
    false_fires: list[WorstError] = []
    misses: list[WorstError] = []
    for observation in observed:
        best = max(observation.readings, key=lambda r: made.stack.probability(r.evidence), default=None)
        probability = made.stack.probability(best.evidence) if best else 0.0
        fires = best is not None and probability >= made.scope_threshold
        is_right = best is not None and best.right
        if fires == observation.in_scope and (is_right or not fires):
            continue
        row = WorstError(
            error="false fire" if fires else "miss",
            set_name=observation.set_name,
            query=" >> ".join((*observation.context, observation.text)),
            edit=f"{best.prompt} -> {best.target}" if best else "(no candidate)",
            scope_probability=round(probability, 4),
            similarity=round(best.evidence.similarity, 3) if best else None,
            logit=round(best.evidence.logit, 2) if best else None,
        )
        (false_fires if fires else misses).append(row)
    false_fires.sort(key=lambda row: -row.scope_probability)
    misses.sort(key=lambda row: row.scope_probability)
    return [*false_fires[:count], *misses[:count]]


def _observed(
    config: ScopeConfig, model: PairModel, encoder: Encoder, on_progress: OnProgress
) -> list[observing.Observation]:
    return observing.observe(
        validation_benchmarks(
            config.validation.benchmarks, held_out=config.mixture.held_out_relations, seed=config.mixture.seed
        ),
        encoder=encoder,
        make_index=index_maker(encoder.width),
        model=model,
        floor=config.validation.floor,
        cases=config.validation.cases,
        traffic=config.validation.traffic,
        skip=frozenset({"prompt", "forgetfulness", "generation"}),
        on_progress=on_progress,
    )
