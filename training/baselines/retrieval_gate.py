"""Chooses the gate τ of RAG on rows that no table reports: `python -m training.baselines.retrieval_gate`.

Edits of counterfact-validation and of zsRE's training rows lie in one index; each rephrased prompt must find
its own edit above τ, each neighbour's or unrelated prompt none. τ has the best harmonic mean of both rates.
"""

from __future__ import annotations

import sys

from serac_gateway.config.loading import load_config
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.loading import open_embedded_encoder
from training.baselines.context import EditIndex
from training.benchmarks import counterfact, zsre
from training.benchmarks.base import Case, chosen

Nearest = tuple[float, bool, bool]
"""Similarity of the nearest edit, whether the query is in the scope of an edit, whether that is this one."""


def main(edits: int = 150) -> None:
    """Print the rates at the best τ, of both sets together and of each."""
    encoder = open_embedded_encoder(load_config().data_path)
    by_set = {
        benchmark.name: nearest(encoder, chosen(benchmark, edits=edits, seed=0).cases)
        for benchmark in (counterfact.load_validation(), zsre.load_10k())
    }
    gate = best_gate([observed for rows in by_set.values() for observed in rows])
    sys.stdout.write(f"min_similarity = {gate:.3f}\n")
    for name, rows in by_set.items():
        sys.stdout.write(
            f"{name}: right edit above {hit(rows, gate):.3f}, none above {quiet(rows, gate):.3f}\n"
        )


def nearest(encoder: Encoder, cases: tuple[Case, ...]) -> list[Nearest]:
    """What the index gives for the probes of all cases, their prompts aside."""
    index = EditIndex(encoder)
    index.add([case.edit for case in cases])
    observed = []
    for case in cases:
        for probe in case.probes[1:4]:
            if probe.kind != "generation":
                ((similarity, edit),) = index.nearest(probe.text, 1)
                observed.append((similarity, probe.in_scope, edit.id == case.id))
    return observed


def best_gate(rows: list[Nearest]) -> float:
    """The similarity with the best harmonic mean of `hit` and `quiet`; of equal ones the lowest."""
    return max(
        sorted({similarity for similarity, _, _ in rows}),
        key=lambda gate: 2 / (1 / max(1e-9, hit(rows, gate)) + 1 / max(1e-9, quiet(rows, gate))),
    )


def hit(rows: list[Nearest], gate: float) -> float:
    """The share of queries in scope whose own edit is the nearest and passes the gate."""
    in_scope = [is_own and similarity >= gate for similarity, in_scope, is_own in rows if in_scope]
    return sum(in_scope) / len(in_scope)


def quiet(rows: list[Nearest], gate: float) -> float:
    """The share of queries in no edit's scope for which no edit passes."""
    outside = [similarity < gate for similarity, in_scope, _ in rows if not in_scope]
    return sum(outside) / len(outside)


if __name__ == "__main__":
    main()
