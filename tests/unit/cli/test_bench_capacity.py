"""The capacity model: its queues against closed forms, its numbers against what must hold of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from serac_gateway.cli.bench.capacity import Demand, Figures, gateway_bytes, planned
from serac_gateway.cli.bench.queueing import Distribution, erlang_c, mean_wait_s, simulated
from serac_gateway.cli.main import app

CUSTOMERS = 200_000


@pytest.mark.parametrize(
    ("load", "workers", "expected"), [(0.5, 1, 0.5), (1.0, 2, 1 / 3), (8.0, 10, 0.409180), (0.0, 4, 0.0)]
)
def test_erlang_c_is_that_of_the_textbooks(load: float, workers: int, expected: float) -> None:
    assert erlang_c(load, workers) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("load", [2.0, 2.5])
def test_a_queue_that_would_grow_for_ever_is_refused(load: float) -> None:
    with pytest.raises(ValueError, match="grow for ever"):
        erlang_c(load, 2)
    with pytest.raises(ValueError, match="grow for ever"):
        simulated(np.random.default_rng(1), rate=load, service_s=np.ones(1_000), workers=2)


@pytest.mark.parametrize(("workers", "utilisation"), [(1, 0.5), (2, 0.7), (4, 0.8)])
def test_the_simulation_is_that_of_m_m_c(workers: int, utilisation: float) -> None:
    rng, mean_s = np.random.default_rng(7), 0.01
    rate = utilisation * workers / mean_s
    service_s = rng.exponential(mean_s, CUSTOMERS)
    waiting = simulated(rng, rate=rate, service_s=service_s, workers=workers)
    exact = erlang_c(rate * mean_s, workers) * mean_s / (workers * (1 - utilisation))
    assert waiting.mean_wait_s == pytest.approx(exact, rel=0.08)
    if workers == 1:  # the time in M/M/1 is exponential
        assert waiting.p99_s == pytest.approx(math.log(100) * mean_s / (1 - utilisation), rel=0.08)


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_the_simulation_is_that_of_m_g_1(utilisation: float) -> None:
    """Pollaczek and Khinchine: the wait is rate * E[S^2] / (2 (1 - utilisation))."""
    rng = np.random.default_rng(11)
    service_s = Distribution(median_ms=4.0, p95_ms=20.0, p99_ms=40.0).sample_s(rng, CUSTOMERS)
    rate = utilisation / float(service_s.mean())
    exact = rate * float((service_s**2).mean()) / (2 * (1 - utilisation))
    assert mean_wait_s(rate, service_s, 1) == pytest.approx(exact)
    waiting = simulated(rng, rate=rate, service_s=service_s, workers=1)
    assert waiting.mean_wait_s == pytest.approx(exact, rel=0.08)


def test_a_replayed_distribution_has_the_quantiles_that_were_measured() -> None:
    times = Distribution(median_ms=4.3, p95_ms=5.3, p99_ms=6.5)
    sample_ms = 1_000 * times.sample_s(np.random.default_rng(3), CUSTOMERS)
    assert np.quantile(sample_ms, [0.5, 0.95, 0.99]) == pytest.approx([4.3, 5.3, 6.5], rel=0.01)


def demand(**changes: float) -> Demand:
    given = {"edits": 10_000, "largest_namespace": 10_000, "requests_per_second": 50.0} | changes
    return msgspec.convert(given, Demand)


def test_a_small_load_needs_a_single_gateway_and_has_no_problems() -> None:
    plan = planned(demand(), Figures())
    assert (plan.groups, plan.gateways, plan.problems, plan.gpus) == (1, 1, [], None)
    assert plan.waiting.p99_s < 0.15
    assert 1_000 * plan.waiting.mean_wait_s == pytest.approx(plan.mean_wait_by_formula_ms, rel=0.15, abs=0.1)


def test_the_largest_load_is_computed_and_every_limit_is_kept() -> None:
    everything = demand(
        edits=100_000_000, requests_per_second=100_000.0, memory_gib=64.0, cores=16, writes_per_second=1_000.0
    )
    plan = planned(everything, Figures())
    assert plan.gateways >= 100_000 * plan.decision_ms / 1_000 / 16
    assert plan.gateway_memory_gib <= 0.8 * 64
    assert plan.groups * 0.8 * 64 > 100_000_000 * 2 * Figures().bytes_per_row / 2**30
    assert plan.waiting.p99_s * 1_000 <= everything.p99_ms
    assert plan.waiting.utilisation <= everything.utilisation + 1e-9
    assert any("installations" in problem for problem in plan.problems)


def test_more_of_anything_never_takes_less() -> None:
    few, many = (planned(demand(requests_per_second=rate), Figures()) for rate in (500.0, 2_000.0))
    assert many.gateways > few.gateways
    assert gateway_bytes(2_000, 500, 2, Figures()) > gateway_bytes(1_000, 500, 2, Figures())
    busy = planned(demand(writes_per_second=2_000.0), Figures())
    assert busy.replication_cpu == pytest.approx(0.74)
    assert busy.commits_share == pytest.approx(4.0)
    assert len(busy.problems) == 2
    assert planned(demand(writes_per_second=4_000.0), Figures()).replication_lag_ms == math.inf


def test_cards_are_computed_from_a_measured_time_only() -> None:
    plan = planned(demand(requests_per_second=6_000.0), Figures(gpu_decision_ms=0.2))
    assert plan.gpus == 3  # 1.2 busy cards at 60 %, and a spare one


def test_a_namespace_too_large_for_an_exact_search_is_refused_with_the_remedy() -> None:
    huge = demand(edits=10_000_000, largest_namespace=10_000_000, memory_gib=512.0)
    with pytest.raises(ValueError, match="split the largest namespace"):
        planned(huge, Figures())
    assert planned(huge, Figures(search_ms=2.0)).search_ms == 2.0


def test_a_gateway_whose_models_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="give it more"):
        planned(demand(memory_gib=0.5), Figures())


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["bench", "capacity", *words])
    return result.exit_code, result.output


def test_the_command_prints_the_plan_as_json(tmp_path: Path) -> None:
    code, output = run("--edits", "1M", "--qps", "500", "--json", "--out", str(tmp_path / "plan.json"))
    assert code == 0, output
    plan = json.loads(output)
    assert plan == json.loads((tmp_path / "plan.json").read_text("utf-8"))
    assert plan["gateways"] >= 4
    assert plan["figures"]["commits_per_second"] == 500


def test_the_command_says_of_every_number_how_it_is_known() -> None:
    code, output = run("--edits", "20M", "--qps", "5k", "--search-ms", "2")
    assert code == 0, output
    for words in ("computed", "simulated", "replayed from measured", "given", "! the edits exceed"):
        assert words in output


def test_the_command_replays_decisions_that_were_measured_elsewhere(tmp_path: Path) -> None:
    times = {"count": 500, "median_ms": 1.0, "p95_ms": 1.5, "p99_ms": 2.0}
    measured = tmp_path / "decision.json"
    result = {"edits": 10_000, "everyday": times, "near": times, "nothing": times}
    measured.write_text(json.dumps(result), "utf-8")
    code, output = run("--decisions", str(measured), "--json")
    assert code == 0, output
    assert json.loads(output)["decision_ms"] < 2.0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--edits", "many"), "no number of at least 1"),
        (("--qps", "0"), "no number of at least 1"),
        (("--edits", "2000M"), "is more than"),
        (("--decisions", "/nowhere.json"), "serac bench decision --out"),
        (("--p99-ms", "2"), "without any wait"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_a_reason(words: tuple[str, ...], reason: str) -> None:
    code, output = run(*words)
    assert code == 2
    assert reason in " ".join(output.split())
