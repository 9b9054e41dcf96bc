"""The measurement of conflicts counts what is found and what should not be."""

from __future__ import annotations

from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.testing import ThresholdClassifier, WordEncoder
from training.benchmarks.base import Benchmark, Role, fact, probes
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.scope import conflicts

PLACES = ("Oru", "Ketti", "Moss", "Vala")


def models() -> GatewayModels:
    encoder = WordEncoder(width=1_024)
    return GatewayModels(
        encoder=encoder,
        classifier=ThresholdClassifier(0.9),
        make_index=lambda: FaissFlatIndex(encoder.width),
    )


def stored() -> Benchmark:
    return Benchmark(
        name="places",
        role=Role.VALIDATION,
        cases=tuple(
            fact(
                f"place-{number}",
                prompt=f"Who is mayor of {place}?",
                target_new=f"mayor {number}",
                subject=place,
                probes=(
                    *probes("rephrase", [f"{place}: who is mayor of it?"], in_scope=True),
                    *probes("rephrase", [f"mayor of {place}: who is?"], in_scope=True),
                    *probes("same_subject", [f"How deep is the lake near {place}?"], in_scope=False),
                ),
            )
            for number, place in enumerate(PLACES)
        ),
    )


async def test_contradictions_are_counted_by_kind_with_their_times() -> None:
    seen: list[str] = []
    results = await conflicts.measure(
        models(), stored=stored(), count=3, seed=0, on_progress=lambda what, done, of: seen.append(what)
    )
    same, rephrased, agreeing, neighbours = results
    assert (same.edits, same.detected, same.right) == (3, 3, "all")
    assert (rephrased.edits, rephrased.right) == (3, "all")
    assert (agreeing.edits, agreeing.detected, agreeing.right) == (3, 0, "none")
    assert (neighbours.edits, neighbours.detected) == (3, 0)
    assert all(result.look.median_ms > 0 for result in results)
    assert set(seen) == {"storing edits", "looking"}


async def test_the_table_has_a_row_a_kind() -> None:
    results = await conflicts.measure(models(), stored=stored(), count=9, seed=0)
    head, *rows = conflicts.rows(results)
    assert len(rows) == 4
    assert all(len(row) == len(head) for row in rows)
    assert rows[0][:3] == ("same prompt, other answer, 4", "4", "all")
