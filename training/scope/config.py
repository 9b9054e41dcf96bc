"""The configuration of a scope training run: one TOML file, unknown keys refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec

from serac_gateway.models.loading import SHIPPED_CLASSIFIER
from training.scope.mined import MiningSettings
from training.scope.mixture import MixtureSettings
from training.scope.train import TrainingSettings

SHIPPED, ENCODER = "shipped", "multilingual-e5-small"


class ValidationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the threshold is chosen on."""

    benchmarks: tuple[str, ...] = ("counterfact-hard",)
    cases: int = 200
    traffic: int = 1_000
    floor: float = 0.25
    """Candidates less similar are not read while calibrating; the shipped floor is at most as high."""


class OwnSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of what goes into a run on a user's own data."""

    max_pairs: int = 6_000
    """Of the user's rows and their negatives."""
    rehearsal_pairs: int = 2_000
    """Of our own material, trained beside them."""
    calibration_sets: int = 16
    """Contrast sets kept from all training, on which the threshold is chosen."""
    suppression_cases: int = 200
    """Requests near suppressions, kept as well, on which the threshold of suppressions is chosen."""
    general_sets: int = 24
    """Sets of the general rows that the report counts."""


class ScopeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `configs/training/scope.toml`."""

    start_from: str = SHIPPED
    """"shipped": the weights of this checkout; "multilingual-e5-small": the encoder itself; else a folder of
    weights or of a checkpoint."""
    trained_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Of the trained weights in what is calibrated and ships; the rest is of those that it began with."""
    own: OwnSettings = OwnSettings()
    mixture: MixtureSettings = MixtureSettings()
    mined: MiningSettings = MiningSettings()
    training: TrainingSettings = TrainingSettings()
    validation: ValidationSettings = ValidationSettings()


def starting_weights(config: ScopeConfig) -> Path | None:
    """The folder that `config` begins from; None: the encoder itself, out of its package."""
    if config.start_from == ENCODER:
        return None
    return SHIPPED_CLASSIFIER if config.start_from == SHIPPED else Path(config.start_from)


def digest(config: ScopeConfig) -> str:
    """Names a configuration: equal ones have equal digests."""
    return hashlib.sha256(msgspec.json.encode(config)).hexdigest()[:16]
