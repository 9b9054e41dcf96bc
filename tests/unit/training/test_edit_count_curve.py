"""The curve over store sizes, and the times of decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from serac_gateway.domain.edits import EditDraft
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.testing import ThresholdClassifier, WordEncoder
from training.benchmarks.base import Benchmark, Probe, Role, fact, probes
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.scope import edit_count_curve as curve
from training.evaluation.scope import latency

PLACES = ("Oru", "Ketti", "Moss", "Vala", "Brin", "Dorn")


def models() -> GatewayModels:
    encoder = WordEncoder(width=1_024)  # wide: words that differ are hardly similar
    return GatewayModels(
        encoder=encoder, classifier=ThresholdClassifier(), make_index=lambda: FaissFlatIndex(encoder.width)
    )


def measured() -> Benchmark:
    return Benchmark(
        name="places",
        role=Role.VALIDATION,
        cases=tuple(
            fact(
                f"place-{number}",
                prompt=f"Who is mayor of {place}?",
                target_new="x",
                subject=place,
                probes=(
                    *probes("rephrase", [f"Who is the mayor of {place}?"], in_scope=True),
                    *probes("same_subject", [f"How deep is the lake near {place}?"], in_scope=False),
                ),
            )
            for number, place in enumerate(PLACES)
        ),
    )


def competing(benchmark: Benchmark) -> Iterator[EditDraft]:
    """The worst fillers: newer edits that put the measured questions in the very same words."""
    for number, case in enumerate(benchmark.cases):
        yield EditDraft(id=f"filler-{number}", prompt=case.probes[1].text, target_new="y")


async def test_small_sizes_part_the_cases_and_large_ones_fill_the_store_up() -> None:
    points = await curve.measure(models(), sizes=[9, 1, 4], measured=measured(), fillers=competing)
    assert [(point.edits, point.stores) for point in points] == [(1, 6), (4, 2), (9, 1)]
    assert [point.summary.hit.total for point in points] == [6, 6, 6]
    assert [point.summary.hit.count for point in points[:2]] == [6, 6]
    assert points[2].summary.hit.count < 6
    assert all(point.summary.no_fire.value == 1.0 for point in points)


async def test_a_size_beyond_all_fillers_is_reported_as_what_there_is() -> None:
    (point,) = await curve.measure(models(), sizes=[100], measured=measured(), fillers=competing)
    assert point.edits == 12


async def test_the_curve_is_written_as_table_numbers_and_plot(tmp_path: Path) -> None:
    points = await curve.measure(models(), sizes=[2, 6], measured=measured(), fillers=competing)
    head, *rows = curve.write(points, tmp_path, classifier="fake")
    assert [row[0] for row in rows] == ["2", "6"]
    assert (tmp_path / "curve.md").read_text().splitlines()[0] == f"| {' | '.join(head)} |"
    assert json.loads((tmp_path / "curve.json").read_text())["classifier"] == "fake"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


async def test_decisions_are_timed_apart_by_whether_there_was_a_candidate() -> None:
    texts = ["Who is the mayor of Oru?", "bread", "Who is mayor of Vala?"]
    times = await latency.measure(models(), stored=measured(), texts=texts)
    assert times.with_candidate is not None
    assert times.without_candidate is not None
    assert (times.with_candidate.whole.queries, times.without_candidate.whole.queries) == (2, 1)
    assert times.edits == 6
    with_candidate = times.with_candidate
    assert with_candidate.whole.median_ms >= with_candidate.encode.median_ms > 0
    assert times.without_candidate.classify.median_ms == 0
    assert ("edits in the store; threshold", "6", "", "") in latency.rows(times)


def test_long_queries_and_follow_ups_are_not_timed() -> None:
    traffic = (
        Probe(kind="unrelated", text="short one", in_scope=False),
        Probe(kind="unrelated", text="word " * 30, in_scope=False),
        Probe(kind="unrelated", text="second", in_scope=False),
        Probe(kind="unrelated", text="third", in_scope=False),
    )
    assert latency.queries_of(measured(), traffic, count=2) == [
        "short one", "second", "Who is the mayor of Oru?", "Who is the mayor of Ketti?",
    ]  # fmt: skip
