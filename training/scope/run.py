"""A run of the scope classifier from data to shippable weights; the commands call these."""

from __future__ import annotations

import platform
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from serac_gateway.config.loading import load_config
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.models.classifiers.cross_encoder import DependsCalibration, ScopeCalibration
from serac_gateway.models.classifiers.runtimes import open_pair_model
from serac_gateway.models.classifiers.similarity import CALIBRATION_FILE
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.encoders.sentence_transformer import embedded_minilm_path
from training.benchmarks.base import Benchmark
from training.data.embedding import open_embed
from training.data.files import data_folder
from training.data.own_data import own_pairs, read_edits, read_traffic
from training.data.pairs import Pair
from training.data.world import load_world
from training.evaluation.gateway_models import open_encoder
from training.runs import begin_run, load_records, save_records
from training.scope import calibration as calibrating
from training.scope import observations as observing
from training.scope.config import ScopeConfig, digest
from training.scope.export import export
from training.scope.mixture import training_pairs
from training.scope.train import Trained, train_scope
from training.scope.validation_sets import own_benchmark, validation_benchmarks

PAIRS_FILE = "pairs.jsonl"
WEIGHTS_FOLDER = "weights"
DEPENDS_THRESHOLD = 0.5
"""More likely than not: it is asked only where a namespace opts in, and no more than states edits."""

OnProgress = Callable[[str, int, int], None]


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """Files of a user's own edits and traffic."""

    edits: Path
    traffic: Path


def train(config: ScopeConfig, run: Path, *, own: Own | None = None, on_progress: OnProgress) -> Trained:
    """Make the pairs once, then train or go on training. With `own`, only the user's data is trained on.

    Raises:
        TrainingError: See `train_scope`; also a run folder of another configuration.
        ConfigError: The user's files are damaged.
    """
    begin_run(run, config)
    pairs_path = run / PAIRS_FILE
    if not pairs_path.is_file():
        save_records(pairs_path, _pairs(config, own))
    start = Path(config.start_from) if config.start_from else embedded_minilm_path()

    def stepped(step: int, steps: int, loss: float) -> None:
        on_progress(f"loss {loss:.4f}", step, steps)

    return train_scope(
        load_records(pairs_path, Pair), start_from=start, run=run, settings=config.training, progress=stepped
    )


def calibrate(
    config: ScopeConfig, run: Path, out: Path, *, own: Own | None = None, reuse: bool = False,
    max_false_fire_rate: float | None = None, on_progress: OnProgress,
) -> tuple[ScopeCalibration, list[observing.Observation]]:  # fmt: skip
    """Export the run's checkpoint into `out` (int8), observe the validation sets with it, fit and choose.

    `reuse` takes the observations of an earlier call and the weights it exported.

    Raises:
        ConfigError: Data is missing or one-sided, or no threshold keeps `max_false_fire_rate`.
        TrainingError: The checkpoint is of another architecture.
    """
    kept = run / observing.OBSERVATIONS_FILE
    encoder = open_encoder()
    if not reuse:
        export(run / "checkpoint", out)
        observed = _observed(config, out, encoder, own, on_progress)
        save_records(kept, observed)
    observed = observing.load(run)
    stack = calibrating.fitted_stack(observed)
    point = calibrating.chosen_threshold(
        calibrating.outcomes(observed, stack), max_false_fire_rate=max_false_fire_rate
    )
    bins = calibrating.reliability(observed, stack)
    depends = _depends(observed)
    made = ScopeCalibration(
        encoder_fingerprint=encoder.fingerprint,
        stack=stack,
        scope_threshold=point.threshold,
        similarity_floor=max(-1.0, min(config.validation.floor, calibrating.similarity_floor(observed))),
        similarity_margin=calibrating.similarity_margin(observed),
        max_tokens=config.training.max_tokens,
        depends=depends,
        provenance={
            "date": datetime.now(UTC).date().isoformat(),
            "config_digest": digest(config),
            "command": "serac-train scope, serac-train calibrate",
            "python": platform.python_version(),
            "held_out_relations": list(config.mixture.held_out_relations),
            "validation_sets": list(config.validation.benchmarks) if own is None else ["own"],
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
    out.mkdir(parents=True, exist_ok=True)
    (out / CALIBRATION_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    return made, observed


def _depends(observed: Sequence[observing.Observation]) -> DependsCalibration | None:
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


def _pairs(config: ScopeConfig, own: Own | None) -> list[Pair]:
    embed = open_embed()
    if own is None:
        data = data_folder()
        return training_pairs(load_world(data), data, config.mixture, embed)
    edits = read_edits(own.edits)
    return own_pairs(edits, read_traffic(own.traffic, edits), embed, random.Random(config.mixture.seed))


def _observed(
    config: ScopeConfig, weights: Path, encoder: Encoder, own: Own | None, on_progress: OnProgress
) -> list[observing.Observation]:
    benchmarks: list[Benchmark]
    if own is None:
        benchmarks = validation_benchmarks(
            config.validation.benchmarks, held_out=config.mixture.held_out_relations, seed=config.mixture.seed
        )
    else:
        edits = read_edits(own.edits)
        benchmarks = [own_benchmark(edits, read_traffic(own.traffic, edits))]
    return observing.observe(
        benchmarks,
        encoder=encoder,
        make_index=index_maker(encoder.width),
        model=open_pair_model(
            weights, load_config().data_path, max_tokens=config.training.max_tokens, threads=1, on_gpu=False
        ),
        floor=config.validation.floor,
        cases=config.validation.cases,
        traffic=config.validation.traffic,
        skip=frozenset({"prompt", "forgetfulness", "generation"}),
        on_progress=on_progress,
    )
