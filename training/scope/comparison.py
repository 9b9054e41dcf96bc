"""New weights beside the current ones: what each gets right on rows that neither was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.table import Table

from serac_gateway.models.classifiers.cross_encoder import ScopeCalibration
from training.scope.calibration import at_threshold, outcomes
from training.scope.observations import Observation

OWN, GENERAL = "own", "general"
TOLERANCE = 0.02
"""A rate of the general set, or the no-fire of the own rows, may fall by so much, or by one row."""
ENOUGH_ROWS = 30
"""Held-out rows of each side under which a difference of a tenth may well be chance."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A share of right decisions, by both weights on the same rows."""

    rows: str
    """`OWN`: the held-out rows of the user; `GENERAL`: sets of ours that nobody trains on."""
    side: str
    """"hit": in scope, and the right edit answers; "no-fire": out of scope, and none does."""
    count: int
    current: float
    new: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The report on a run on a user's own data."""

    current: str
    """The folder of the current weights."""
    trained_rows: int
    rates: tuple[Rate, ...]
    too_few: tuple[str, ...]
    """What there is too little of to judge by; one sentence each."""
    worse: tuple[str, ...]
    """Why the new weights should not replace the current ones, with numbers; empty: they may."""


def compared(
    current: tuple[Sequence[Observation], ScopeCalibration],
    new: tuple[Sequence[Observation], ScopeCalibration],
    *,
    current_name: str,
    trained_rows: int,
) -> Comparison:
    """The report on observations of `OWN` and `GENERAL` rows, each read by weights with their calibration."""
    rates = []
    for rows in (OWN, GENERAL):
        points = []
        for observed, calibration in (current, new):
            chosen = [observation for observation in observed if observation.benchmark == rows]
            points.append(at_threshold(outcomes(chosen, calibration.stack), calibration.scope_threshold))
        inside = sum(o.in_scope for o in new[0] if o.benchmark == rows)
        outside = sum(not o.in_scope for o in new[0] if o.benchmark == rows)
        before, after = points
        if inside:
            rates.append(Rate(rows=rows, side="hit", count=inside, current=before.hit, new=after.hit))
        if outside:
            rates.append(
                Rate(rows=rows, side="no-fire", count=outside, current=before.no_fire, new=after.no_fire)
            )
    return Comparison(
        current=current_name,
        trained_rows=trained_rows,
        rates=tuple(rates),
        too_few=tuple(_too_few(rates)),
        worse=tuple(_worse(rates)),
    )


def _too_few(rates: Sequence[Rate]) -> list[str]:
    counts = {rate.side: rate.count for rate in rates if rate.rows == OWN}
    said = {"hit": "in the scope of a held-out edit", "no-fire": "in no edit's scope, held out,"}
    return [
        f"{counts.get(side, 0)} rows {where} are too few to judge by; about {ENOUGH_ROWS} are needed, so"
        f" collect some {4 * ENOUGH_ROWS} rows of this kind"
        for side, where in said.items()
        if counts.get(side, 0) < ENOUGH_ROWS
    ]


def _worse(rates: Sequence[Rate]) -> list[str]:
    reasons = [_sentence(rate) for rate in rates if rate.new < rate.current - _allowed(rate) - 1e-9]
    own = [rate for rate in rates if rate.rows == OWN]
    if not any(rate.side == "hit" for rate in own):
        return [*reasons, "no row is in the scope of a held-out edit, so nothing shows that it became better"]
    mean_current = sum(rate.current for rate in own) / len(own)
    mean_new = sum(rate.new for rate in own) / len(own)
    if not reasons and mean_new < mean_current:
        reasons.append(
            f"your held-out rows are right less often: {mean_new:.3f} instead of {mean_current:.3f}, mean of"
            " hit and no-fire"
        )
    return reasons


def _allowed(rate: Rate) -> float:
    """A single row may be chance, and an own hit may fall where no-fires rise: their mean counts."""
    return 1.0 if (rate.rows, rate.side) == (OWN, "hit") else max(TOLERANCE, 1.0 / rate.count)


def _sentence(rate: Rate) -> str:
    whose = "your held-out rows" if rate.rows == OWN else "the general set"
    return f"{rate.side} on {whose} falls from {rate.current:.3f} to {rate.new:.3f} ({rate.count} rows)"


def comparison_table(comparison: Comparison) -> Table:
    """The rates side by side."""
    table = Table("rows", "side", "count", "current", "new", title=f"compared with {comparison.current}")
    names = {OWN: "yours, held out", GENERAL: "general, never trained"}
    for rate in comparison.rates:
        style = "red" if rate.new < rate.current else "green" if rate.new > rate.current else None
        numbers = (f"{rate.count:,}", f"{rate.current:.3f}", f"{rate.new:.3f}")
        table.add_row(names[rate.rows], rate.side, *numbers, style=style)
    return table
