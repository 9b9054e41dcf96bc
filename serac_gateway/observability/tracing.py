"""The seam to distributed tracing: spans of a request, and the trace that it belongs to upstream."""

from __future__ import annotations

from abc import ABC, abstractmethod

from typing_extensions import override

from serac_gateway.config.model import TracingConfig
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import ConfigError
from serac_gateway.observability.request_record import FinishedRequest


class RequestTrace(ABC):
    """The spans of one request."""

    @abstractmethod
    def upstream_headers(self, headers: Headers) -> Headers:
        """The headers that the upstream is sent: with our span as its parent."""

    @abstractmethod
    def upstream_called_off(self) -> None:
        """End the span of a request whose reply is of no interest any more."""

    @abstractmethod
    def end(self, request: FinishedRequest) -> None:
        """End the spans of a request that has ended."""


class Tracing(ABC):
    """Begins traces. Belongs to one event loop."""

    @abstractmethod
    def begin(self, exchange: Exchange) -> RequestTrace:
        """The trace of a request that begins, within the client's trace if it names one."""

    @abstractmethod
    def close(self) -> None:
        """Send what waits to be sent; it may block. Idempotent."""


class Untraced(Tracing, RequestTrace):
    """Tracing that is off: the client's trace context reaches the upstream as it came."""

    @override
    def begin(self, exchange: Exchange) -> RequestTrace:
        return self

    @override
    def upstream_headers(self, headers: Headers) -> Headers:
        return headers

    @override
    def upstream_called_off(self) -> None:
        pass

    @override
    def end(self, request: FinishedRequest) -> None:
        pass

    @override
    def close(self) -> None:
        pass


def open_tracing(config: TracingConfig) -> Tracing:
    """Tracing as configured; what it needs is imported, and need be installed, only if it is on.

    Raises:
        ConfigError: It is on and not installed.
    """
    if config.endpoint is None:
        return Untraced()
    try:
        from serac_gateway.observability.otel import OtelTracing
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"tracing.endpoint {config.endpoint!r} is set and {exc.name} is not installed; install it with"
            ' pip install "serac_gateway[otel]", or leave the endpoint out'
        ) from exc
    return OtelTracing.exporting(config)
