"""Prometheus metrics of requests: counters and histograms. The gauges are in gauges.py.

They belong to a registry of their own, not to the client library's global one. A request costs some
microseconds: the instrument of each combination of labels is looked up once and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from serac_gateway.auth.audience_labels import AudienceLabels
from serac_gateway.config.diff import ReloadOutcome
from serac_gateway.config.model import MetricsConfig
from serac_gateway.domain.edits import EditState
from serac_gateway.domain.feedback import FeedbackVerdict
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.observability.shadow import ShadowOutcome
from serac_gateway.routing.router import RouteDecision

OTHER_NAMESPACES = "other"
"""The label of namespaces without edits, of which a client can invent any number, and of namespaces beyond
`metrics.max_namespaces`."""


class ProposalEvent(StrEnum):
    """What can happen to a proposal."""

    OPENED = "opened"
    APPROVED = "approved"
    """Somebody agreed; the last one's agreement counts as `accepted` as well."""
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    EXPEDITED = "expedited"
    """An admin wrote without one."""


_SHORT_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_LONG_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


_DEFAULTS = MetricsConfig()


class Instruments:
    """Counters and histograms. Belongs to the event loop; a scrape may run on any thread."""

    def __init__(
        self, config: MetricsConfig = _DEFAULTS, *, has_edits: Callable[[str], bool] = lambda name: True
    ) -> None:
        """A namespace gets a label of its own once `has_edits(namespace)` is true."""
        self.registry = CollectorRegistry()
        self.open = config.open
        """Whether /metrics can be read without an API key."""
        self._by_namespace = config.namespaces
        self._max_namespaces = config.max_namespaces
        self._has_edits = has_edits
        self._labels: dict[str, str] = {}
        self._requests = self._counter(
            "serac_requests", "Requests of /v1 that have ended", "route", "reason", "namespace", "status"
        )
        self._overhead = self._histogram(
            "serac_overhead_seconds",
            "Time in the gateway of requests that the upstream answered, up to the response's headers,"
            " without waiting for the client's body or for the upstream",
            _SHORT_S,
            "route",
        )
        self._decision = self._histogram(
            "serac_decision_seconds",
            "Time of a decision by stage; total includes waiting for a thread",
            _SHORT_S,
            "stage",
        )
        self._first_token = self._histogram(
            "serac_time_to_first_token_seconds",
            "From the request's first line to the first event of a streamed response",
            _LONG_S,
            "route",
        )
        self._trials = self._counter(
            "serac_trials", "Requests in the scope of a shadow or canary edit", "state", "outcome"
        )
        self._upstream_errors = self._counter(
            "serac_upstream_errors",
            "Upstream failures by kind: how a connection failed, or the status of an answer 429 or 5xx",
            "kind",
        )
        self._failures = self._counter(
            "serac_failures",
            "Requests that the gateway failed to decide or answer, so that the failure policy applied: open"
            " (the base model answered) or closed (refused)",
            "reason",
            "policy",
        )
        self._cuts = self._counter(
            "serac_replies_cut",
            "Replies of the base model that had the value of a suppression, so that they were cut",
            "namespace",
        )
        self._redactions = self._counter(
            "serac_requests_redacted",
            "Requests to the base model out of which the value of a suppression was taken",
            "namespace",
        )
        self._speculations = self._counter(
            "serac_sent_ahead",
            "Requests that were sent to the upstream before the decision: used, or called off",
            "outcome",
        )
        self._feedback = self._counter(
            "serac_feedback", "Reports on requests, by what they say", "namespace", "verdict"
        )
        self._shadow = self._counter(
            "serac_shadow_decisions",
            "Decisions of the scope classifier on trial, compared with those in force",
            "outcome",
        )
        self._proposals = self._counter(
            "serac_proposals", "What happened to proposals, by namespace and event", "namespace", "event"
        )
        self._audience = self._counter(
            "serac_audience_requests",
            "Requests that were decided on, by each label that audiences can name: its value where the"
            " configuration lists the values, else other; none: without the label",
            "label",
            "value",
            "route",
        )
        self._webhooks = self._counter(
            "serac_webhook_events",
            "Events for receivers of webhooks, by outcome: delivered; retried, at each attempt that failed;"
            " failed, after the last; dropped, never sent",
            "webhook",
            "outcome",
        )
        self._webhooks_waiting = Gauge(
            "serac_webhook_events_waiting",
            "Events that wait in the store for the receiver of a webhook, as this gateway saw last",
            ["webhook"],
            registry=self.registry,
        )
        self._store_errors = self._counter("serac_store_errors", "Failures of the edit store", "seen_by")
        self._reloads = self._counter(
            "serac_config_reloads",
            "Reloads of the configuration: reloaded, unchanged, or refused, so that all stays as it was",
            "outcome",
        )
        for outcome in ReloadOutcome:  # a series that exists from the start shows its first event as a change
            self._reloads.labels(outcome.value)
        self._of_request: dict[tuple[str, ...], Callable[[], None]] = {}
        self._overhead_of: dict[str, Callable[[float], None]] = {}
        self._first_token_of: dict[str, Callable[[float], None]] = {}
        stages = ("encode", "search", "classify", "total")
        self._encode, self._search, self._classify, self._total = (
            self._decision.labels(stage).observe for stage in stages
        )
        for verdict in FeedbackVerdict:  # for the same reason
            self._feedback.labels("", verdict.value)
        for event in ProposalEvent:
            self._proposals.labels("", event.value)
        for compared in ShadowOutcome:
            self._shadow.labels(compared.value)
        self._webhooks.labels("", "delivered")
        self._webhooks_waiting.labels("")
        ProcessCollector(registry=self.registry)

    def add(self, request: FinishedRequest) -> None:
        """Count a request that has ended."""
        namespace = self.label(request.namespace)
        key = (request.route.value, request.reason, namespace, _status_class(request))
        increment = self._of_request.get(key)
        if increment is None:
            increment = self._of_request[key] = self._requests.labels(*key).inc
        increment()
        if request.overhead_s is not None:
            _instrument(self._overhead_of, self._overhead, request.route.value)(request.overhead_s)
            if request.status is not None and (request.status == 429 or request.status >= 500):
                self._upstream_errors.labels(str(request.status)).inc()
        if request.upstream_error is not None:
            self._upstream_errors.labels(request.upstream_error).inc()
        if request.cut_by_edit is not None:
            self._cuts.labels(namespace).inc()
        if request.redacted_edits:
            self._redactions.labels(namespace).inc()
        if request.speculation is not None:
            self._speculations.labels(request.speculation).inc()
        if request.failure is not None:
            self._failures.labels(request.failure.reason, request.failure.policy.value).inc()
        if request.key_store_failed:
            self.add_store_error("api keys")
        if request.streamed and request.first_byte_s is not None:
            _instrument(self._first_token_of, self._first_token, request.route.value)(request.first_byte_s)
        if request.decide_s is not None:
            self._total(request.decide_s)
        if request.decision is not None:
            self._add_decision(request.decision)

    def add_labels(self, request: FinishedRequest, labels: AudienceLabels) -> None:
        """Count a request that was decided on by its labels; there are as many as `labels` configures."""
        if request.decision is not None:
            for label, value in labels.counted(request.labels):
                self._audience.labels(label, value, request.route.value).inc()

    def add_feedback(self, namespace: str, verdict: FeedbackVerdict) -> None:
        """Count a report on a request."""
        self._feedback.labels(self.label(namespace), verdict.value).inc()

    def add_shadow_decision(self, outcome: ShadowOutcome) -> None:
        """Count a decision of the scope classifier on trial by how it compares with the one in force."""
        self._shadow.labels(outcome.value).inc()

    def add_proposal(self, namespace: str, event: ProposalEvent) -> None:
        """Count what happened to a proposal."""
        self._proposals.labels(self.label(namespace), event.value).inc()

    def add_webhook_event(self, webhook: str, outcome: str) -> None:
        """Count an event for a webhook by what became of it."""
        self._webhooks.labels(webhook, outcome).inc()

    def set_webhook_waiting(self, webhook: str, waiting: int) -> None:
        """Note how many events wait for its receiver."""
        self._webhooks_waiting.labels(webhook).set(waiting)

    def add_store_error(self, seen_by: str) -> None:
        """Count a failure of the edit store; `seen_by` names the kind of call that failed."""
        self._store_errors.labels(seen_by).inc()

    def add_reload(self, outcome: ReloadOutcome) -> None:
        """Count a reload of the configuration."""
        self._reloads.labels(outcome.value).inc()

    def label(self, namespace: str | None) -> str:
        """The value of the label `namespace`; "" for None, and where labels by namespace are off."""
        if namespace is None or not self._by_namespace:
            return ""
        label = self._labels.get(namespace)
        if label is None:
            if len(self._labels) >= self._max_namespaces or not self._has_edits(namespace):
                return OTHER_NAMESPACES
            label = self._labels[namespace] = namespace
        return label

    def _add_decision(self, decision: RouteDecision) -> None:
        timings = decision.timings
        if timings.encode_s:
            self._encode(timings.encode_s)
            self._search(timings.search_s)
        if timings.classify_s:
            self._classify(timings.classify_s)
        if decision.withheld is not None:
            self._trials.labels(decision.withheld.state.value, "withheld").inc()
        elif decision.edit is not None and decision.edit.state is EditState.CANARY:
            self._trials.labels(decision.edit.state.value, "applied").inc()

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _histogram(
        self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, documentation, labels, buckets=buckets, registry=self.registry)


def _instrument(
    by_label: dict[str, Callable[[float], None]], histogram: Histogram, label: str
) -> Callable[[float], None]:
    observe = by_label.get(label)
    if observe is None:
        observe = by_label[label] = histogram.labels(label).observe
    return observe


def _status_class(request: FinishedRequest) -> str:
    return "none" if request.status is None else f"{request.status // 100}xx"
