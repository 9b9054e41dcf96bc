"""The configuration of a scope training run: one TOML file, unknown keys refused by name."""

from __future__ import annotations

import hashlib

import msgspec

from training.scope.mixture import MixtureSettings
from training.scope.train import TrainingSettings


class ValidationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the threshold is chosen on."""

    benchmarks: tuple[str, ...] = ("counterfact-hard",)
    cases: int = 200
    traffic: int = 1_000
    floor: float = 0.25
    """Candidates less similar are not read while calibrating; the shipped floor is at most as high."""


class ScopeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `configs/training/scope.toml`."""

    start_from: str | None = None
    """A folder with a BERT to begin from; None: the embedded all-MiniLM-L6-v2."""
    mixture: MixtureSettings = MixtureSettings()
    training: TrainingSettings = TrainingSettings()
    validation: ValidationSettings = ValidationSettings()


def digest(config: ScopeConfig) -> str:
    """Names a configuration: equal ones have equal digests."""
    return hashlib.sha256(msgspec.json.encode(config)).hexdigest()[:16]
