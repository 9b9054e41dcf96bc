"""The seam to distributed tracing: spans of a request, and the trace that it belongs to upstream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from typing_extensions import override

from serac_gateway.domain.headers import Headers
from serac_gateway.observability.request_record import FinishedRequest, RequestMarks


class TracedRequest(Protocol):
    """What a trace reads of a request that begins; data_plane/exchange.py has it."""

    method: str
    headers: Headers
    request_id: bytes
    marks: RequestMarks

    @property
    def raw_path(self) -> bytes:
        """As the client wrote it, without the query string."""


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
    def begin(self, request: TracedRequest) -> RequestTrace:
        """The trace of a request that begins, within the client's trace if it names one."""

    @abstractmethod
    def close(self) -> None:
        """Send what waits to be sent; it may block. Idempotent."""


class Untraced(Tracing, RequestTrace):
    """Tracing that is off: the client's trace context reaches the upstream as it came."""

    @override
    def begin(self, request: TracedRequest) -> RequestTrace:
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
