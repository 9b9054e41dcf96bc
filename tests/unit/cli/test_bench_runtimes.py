"""`serac bench runtimes`: two ways to compute decide on the same queries, and where they differ is listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from serac_gateway.cli.bench.runtimes import bench_queries, compare, placed, read_queries
from serac_gateway.config.model import Device, GatewayConfig, Precision
from serac_gateway.errors import ConfigError


def test_int8_and_bf16_on_the_cpu_decide_alike_on_a_few_queries(tmp_path: Path) -> None:
    config = GatewayConfig(data_dir=str(tmp_path))
    steps: list[str] = []
    result = compare(
        config,
        ("cpu:int8", "cpu:bf16"),
        edits=20,
        queries=bench_queries(20, 40),
        threads=4,
        say=steps.append,
    )
    assert (result.edits, result.queries, sum(result.routes.values())) == (20, 40, 40)
    assert result.routes["counterfactual"] >= 5
    assert result.other_route + result.other_edit == len(result.listed) <= 4
    assert 0 < result.largest_difference < 0.5
    assert result.first.encoder.startswith("e5-int8-")
    assert result.second.encoder.startswith("e5-bf16-")
    assert result.second.latencies.count == 40
    assert steps[0] == "opening cpu:int8"


def test_queries_are_as_many_as_wanted_and_near_edits_and_not() -> None:
    queries = bench_queries(100, 300)
    assert len(queries) == 300
    assert len(set(queries)) > 200
    assert len(bench_queries(1, 500)) == 500


def test_what_is_no_device_or_no_file_of_queries_is_named(tmp_path: Path) -> None:
    models = placed(GatewayConfig(), "cpu:fp32").models
    assert (models.device, models.precision) == (Device.CPU, Precision.FP32)
    with pytest.raises(ConfigError, match="'tpu:int8' is no device and precision; give cpu:int8"):
        placed(GatewayConfig(), "tpu:int8")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(ConfigError, match="has no queries"):
        read_queries(empty, 5)
    with pytest.raises(ConfigError, match="cannot read the queries"):
        read_queries(tmp_path / "none.txt", 5)
    empty.write_text("Who?\n\nWhen?\nWhere?\n")
    assert read_queries(empty, 2) == ["Who?", "When?"]
