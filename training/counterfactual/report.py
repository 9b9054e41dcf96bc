"""Prints and keeps what the validation of the counterfactual model found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from training.counterfactual.validation import Outcome, Row


def answer_table(rows: Sequence[Row]) -> Table:
    """The rows as a table; shares are of 1, times in milliseconds."""
    table = Table(
        "form", "count", "contains target", "served", "yes/no right", "stopped", "says more", "tokens",
        "first ms", "whole ms", title="held-out examples, greedy, int8",
    )  # fmt: skip
    for row in rows:
        agreement = "" if row.agreement is None else f"{row.agreement:.3f}"
        table.add_row(
            row.name, str(row.count), f"{row.contains_target:.3f}", f"{row.served_contains_target:.3f}",
            agreement, f"{row.stopped:.3f}", f"{row.says_more:.3f}", f"{row.mean_tokens:.1f}",
            f"{row.median_first_token_ms:.0f}", f"{row.median_whole_ms:.0f}",
        )  # fmt: skip
    return table


def write_answers(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write every outcome as a line of JSON, for reading by hand."""
    path.write_bytes(b"".join(msgspec.json.encode(outcome) + b"\n" for outcome in outcomes))
