"""A run of the encoder from pairs to shippable weights, and what it retrieves; the commands call these."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from serac_gateway.config.loading import load_config
from serac_gateway.models.e5.embedded import embedded_e5
from serac_gateway.models.encoders.e5 import open_e5_encoder
from training.data.embedding import open_embed
from training.data.files import data_folder
from training.data.pairs import Pair
from training.data.world import load_world
from training.encoder.projection import ProjectionSettings, save_projection, train_projection
from training.encoder.recall import GroupRecall, Limits, chosen_limits, report, retrieval_material, retrieved
from training.encoder.train import TrainedEncoder, TrainingSettings, train_encoder
from training.encoder.weights import load_encoder, save_encoder
from training.progress import OnProgress
from training.runs import begin_run, load_records, save_records
from training.scope.mixture import MixtureSettings, training_pairs

PAIRS_FILE = "pairs.jsonl"


class EncoderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `configs/training/encoder.toml`."""

    mixture: MixtureSettings = MixtureSettings()
    """Of the pairs: the scope classifier's sources, with what is held out there."""
    training: TrainingSettings = TrainingSettings()
    projection: ProjectionSettings = ProjectionSettings()


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """What an encoder retrieves among all stored edits."""

    fingerprint: str
    edits: int
    limits: Limits
    groups: list[GroupRecall]


def train(config: EncoderConfig, run: Path, *, on_progress: OnProgress) -> TrainedEncoder:
    """Make the pairs once, then train or go on training. Pairs that lie in the run's folder are taken.

    Raises:
        TrainingError: See `train_encoder`; also a run folder of another configuration.
        ConfigError: The public data is missing.
    """
    return train_encoder(
        _pairs(config, run),
        run=run,
        settings=config.training,
        progress=lambda step, steps, loss: on_progress(f"loss {loss:.4f}", step, steps),
    )


def project(config: EncoderConfig, run: Path, out: Path, *, on_progress: OnProgress) -> Path:
    """Train the projection of multilingual-e5-small's vectors on the same pairs, and write it into `out`.

    Raises:
        TrainingError: See `train_projection`; also a run folder of another configuration.
        ConfigError: The public data is missing.
    """
    encoder = open_e5_encoder(embedded_e5(), load_config().data_path / "models")
    return save_projection(
        train_projection(_pairs(config, run), encoder, config.projection, on_progress), out
    )


def _pairs(config: EncoderConfig, run: Path) -> list[Pair]:
    begin_run(run, config)
    if not (run / PAIRS_FILE).is_file():
        data = data_folder()
        save_records(run / PAIRS_FILE, training_pairs(load_world(data), data, config.mixture, open_embed()))
    return load_records(run / PAIRS_FILE, Pair)


def export(run: Path, out: Path) -> Path:
    """Write the run's checkpoint into `out` as the gateway reads it: float16, without the words.

    Raises:
        TrainingError: The run has no checkpoint.
    """
    return save_encoder(load_encoder(run / "checkpoint"), out, embedded_e5(), dtype=torch.float16)


def recall(
    weights: Path | None, projection: Path | None, *, per_group: int, seed: int, on_progress: OnProgress
) -> Recall:
    """Measure the encoder in `weights`, None: that of the package, converted as the gateway has it.

    `projection` is the folder of that of its vectors.

    Raises:
        ConfigError: The weights or the public data cannot be read.
    """
    encoder = open_e5_encoder(
        embedded_e5(), load_config().data_path / "models", weights=weights, projection=projection
    )
    cases, queries = retrieval_material(data_folder(), per_group=per_group, seed=seed)
    results = retrieved(encoder, cases, queries, on_progress)
    limits = chosen_limits(results)
    return Recall(
        fingerprint=encoder.fingerprint,
        edits=len({case.edit.prompt for case in cases}),
        limits=limits,
        groups=report(results, limits),
    )
