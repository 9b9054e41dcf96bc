"""Prometheus gauges of a gateway whose engine is another process, and of an engine that serves gateways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serac_gateway.observability.counts import RouteCounts
from serac_gateway.observability.gauges import build_info, request_gauges


class EngineSources(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that the gauges read."""

    counts: RouteCounts
    is_ready: Callable[[], bool]
    away_s: Callable[[], float]
    """0 while the engine is connected."""
    open_calls: Callable[[], int]
    connects: Callable[[], int]
    calls: Callable[[], Mapping[str, int]]
    """Calls by outcome."""


class EngineGauges(Collector):
    """Of a gateway without models. Any thread may collect."""

    def __init__(self, sources: EngineSources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        sources = self._sources
        yield build_info()
        yield from request_gauges(sources.counts)
        yield GaugeMetricFamily(
            "serac_ready", "Whether requests are decided with current edits", sources.is_ready()
        )
        away_s = sources.away_s()
        yield GaugeMetricFamily("serac_engine_up", "Whether the engine is connected", away_s == 0)
        yield GaugeMetricFamily("serac_engine_away_seconds", "For how long it has not been", away_s)
        yield GaugeMetricFamily(
            "serac_engine_calls_open", "Calls to the engine under way", sources.open_calls()
        )
        yield CounterMetricFamily(
            "serac_engine_connects", "How often the engine was connected", sources.connects()
        )
        calls = CounterMetricFamily(
            "serac_engine_calls",
            "Calls to the engine: ok, refused by it, failed on the way, not made as it is away, or as too"
            " many were open (full)",
            labels=["outcome"],
        )
        counted = dict(sources.calls())
        for outcome in ("ok", "refused", "failed", "away", "full"):
            calls.add_metric([outcome], counted.get(outcome, 0))
        yield calls


class EngineServerGauges(Collector):
    """Of an engine."""

    def __init__(self, gateways: Callable[[], int]) -> None:
        self._gateways = gateways

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        yield GaugeMetricFamily(
            "serac_engine_gateways", "Gateways that this engine serves now", self._gateways()
        )
