"""The sections of the configuration that say what the gateway tells of itself, and whom."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

PositiveInt = Annotated[int, msgspec.Meta(gt=0)]


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What /metrics tells Prometheus, and whom."""

    open: bool = False
    """Whether it is told without an API key where keys are demanded, because only Prometheus gets there."""
    namespaces: bool = True
    """Whether counts carry the name of their namespace."""
    max_namespaces: PositiveInt = 100
    """So many at most; further ones are counted together as "other"."""


class FeedbackConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reports on requests. The text of a query is kept where `traffic` records it."""

    remembered_requests: PositiveInt = 10_000
    """The latest that were decided on; only these can be reported on."""
    max_reports: PositiveInt = 10_000
    """Kept of a namespace: the latest."""


class TracingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenTelemetry traces, if the extra `otel` is installed."""

    endpoint: Annotated[str, msgspec.Meta(pattern="^https?://.")] | None = None
    """A collector's base URL for OTLP over HTTP; None: no traces."""
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Of requests that come without a trace; one that comes with a trace is sampled as that is."""
    service_name: str = "serac_gateway"


class LogFormat(StrEnum):
    """What a line of the log looks like."""

    TEXT = "text"
    """For people."""
    JSON = "json"
    """One object."""


class LogLevel(StrEnum):
    """From which level on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LoggedRequests(StrEnum):
    """Which requests of /v1 leave a line in the log."""

    ALL = "all"
    DECIDED = "decided"
    """Those that were decided on: not those of other endpoints or of namespaces without edits."""
    NONE = "none"


class LoggingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log, on stderr."""

    format: LogFormat = LogFormat.TEXT
    level: LogLevel = LogLevel.INFO
    requests: LoggedRequests = LoggedRequests.ALL
    content: bool = False
    """Whether the line of a request holds the query that was decided on."""
