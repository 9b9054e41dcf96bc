"""Prometheus gauges: the state of the process, read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serac_gateway import __version__
from serac_gateway.auth.audience_labels import AudienceLabels
from serac_gateway.config.model import ModelsConfig
from serac_gateway.domain.edits import ACTIVE_STATES
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.follower import LogFollower
from serac_gateway.observability.counts import EngineCounts, RouteCounts
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.readiness import Readiness


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """The components that the gauges read."""

    generation: Callable[[], int]
    """The number of the configuration in force: 1 at the start, one more with each reload."""
    models: Callable[[], ModelsConfig]
    """Its section `models`."""
    counts: RouteCounts
    active_edits: ActiveEdits
    purge_pending: Callable[[], bool]
    follower: LogFollower
    engine: EngineCounts
    audience_labels: Callable[[], AudienceLabels]
    """Those of the configuration in force."""
    readiness: Readiness
    instruments: Instruments


def build_info() -> Metric:
    """Which version runs."""
    return _labelled("serac_build_info", "Which version runs", "version", {__version__: 1})


def request_gauges(counts: RouteCounts) -> Iterator[Metric]:
    """What is counted of requests and is no instrument of metrics.py."""
    yield GaugeMetricFamily(
        "serac_requests_in_flight",
        "Requests of /v1 that are being served",
        counts.in_flight + sum(list(counts.in_flight_of_workers.values())),
    )
    yield CounterMetricFamily(
        "serac_clients_left",
        "Requests whose client left before the response was complete",
        counts.clients_left,
    )


class Gauges(Collector):
    """Reads `Sources`. Any thread may collect; a scrape costs sums over namespaces and over review dates."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        yield build_info()
        yield GaugeMetricFamily(
            "serac_config_generation",
            "Which generation of the configuration is in force: 1 at the start, one more with each reload",
            self._sources.generation(),
        )
        yield from request_gauges(self._sources.counts)
        yield from self._models()
        yield from self._edits()

    def _models(self) -> Iterator[Metric]:
        models, engine = self._sources.models(), self._sources.engine
        yield GaugeMetricFamily(
            "serac_answers_open",
            "Answers of the counterfactual model under way or waiting",
            engine.open_answers,
        )
        yield GaugeMetricFamily(
            "serac_answers_queued",
            "Those of them that wait for a thread",
            max(0, engine.open_answers - models.answer_threads),
        )
        yield GaugeMetricFamily(
            "serac_answers_queue_limit",
            "How many may wait before the failure policy applies",
            models.max_queued_answers,
        )
        yield CounterMetricFamily(
            "serac_answer_tokens", "Tokens that the counterfactual model answered with", engine.answer_tokens
        )
        yield GaugeMetricFamily(
            "serac_decisions_open", "Decisions under way or waiting", engine.open_decisions
        )
        yield GaugeMetricFamily(
            "serac_decisions_queued",
            "Those of them that wait for a thread",
            max(0, engine.open_decisions - models.decision_threads),
        )

    def _edits(self) -> Iterator[Metric]:
        follower = self._sources.follower
        states = self._sources.active_edits.states()
        yield GaugeMetricFamily(
            "serac_index_edits", "Edits in the index", sum(sum(counts.values()) for counts in states.values())
        )
        by_state = GaugeMetricFamily(
            "serac_edits", "Edits that requests are decided with", labels=["namespace", "state"]
        )
        labelled: dict[tuple[str, str], int] = {}
        for namespace, counts in states.items():
            label = self._sources.instruments.label(namespace)
            for state in ACTIVE_STATES:
                key = (label, state.value)
                labelled[key] = labelled.get(key, 0) + counts.get(state, 0)
        for labels, count in labelled.items():
            by_state.add_metric(labels, count)
        yield by_state
        overdue: dict[str, float] = {}
        for namespace, count in self._sources.active_edits.overdue().items():
            label = self._sources.instruments.label(namespace)
            overdue[label] = overdue.get(label, 0) + count
        yield _labelled(
            "serac_edits_overdue",
            "Edits in force that should have been reviewed before today",
            "namespace",
            overdue,
        )
        labels_in_force = self._sources.audience_labels()
        yield GaugeMetricFamily(
            "serac_edits_unreachable",
            "Edits for audiences that no request can be in, as their labels or values are not configured",
            sum(
                not labels_in_force.is_reachable(edit.audience)
                for namespace in states
                for edit in self._sources.active_edits.with_audience(namespace)
            ),
        )
        quarantine = self._sources.active_edits.quarantine
        yield GaugeMetricFamily(
            "serac_quarantined_namespaces",
            "Namespaces of which something stored cannot be read, so that their requests are refused",
            len(quarantine.all()),
        )
        yield GaugeMetricFamily(
            "serac_purge_pending",
            "Whether something that was purged may still lie in the embedded store's files",
            self._sources.purge_pending(),
        )
        yield GaugeMetricFamily(
            "serac_damaged_records",
            "Damaged records that are read from another place where they are stored, or made anew",
            quarantine.damaged_records,
        )
        ready = not self._sources.readiness.missing and follower.problem is None
        yield GaugeMetricFamily("serac_ready", "Whether requests are decided with current edits", ready)
        yield GaugeMetricFamily(
            "serac_index_lag_seconds",
            "How long ago all that was committed to the log was in force in this process",
            follower.staleness_s,
        )
        yield GaugeMetricFamily(
            "serac_store_up", "Whether the edit store could be read last", follower.store_answers
        )
        yield CounterMetricFamily(
            "serac_log_read_failures", "How often the log could not be read", follower.failures
        )


def _labelled(name: str, documentation: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
