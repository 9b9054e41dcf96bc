"""The seam to distributed tracing: the spans of a request, and the trace context that the upstream gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from typing_extensions import override

from serac_gateway.domain.headers import Headers
from serac_gateway.observability.request_record import FinishedRequest, RequestMarks


class TracedRequest(Protocol):
    """The fields of a running request that a trace reads; `data_plane/exchange.py` has them."""

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
        """`headers` with a new span as the upstream's parent: that of the request to the upstream."""

    @abstractmethod
    def upstream_canceled(self) -> None:
        """End the span of a request to the upstream whose reply is not used."""

    @abstractmethod
    def end(self, request: FinishedRequest) -> None:
        """End all spans: the request has ended."""


class Tracing(ABC):
    """Begins traces. Belongs to one event loop."""

    @abstractmethod
    def begin(self, request: TracedRequest) -> RequestTrace:
        """The trace of a request that begins, within the client's trace if its headers name one."""

    @abstractmethod
    def close(self) -> None:
        """Send the spans that wait to be sent; may block. Idempotent."""


class Untraced(Tracing, RequestTrace):
    """Tracing that is off: the client's trace context reaches the upstream as it came."""

    @override
    def begin(self, request: TracedRequest) -> RequestTrace:
        return self

    @override
    def upstream_headers(self, headers: Headers) -> Headers:
        return headers

    @override
    def upstream_canceled(self) -> None:
        pass

    @override
    def end(self, request: FinishedRequest) -> None:
        pass

    @override
    def close(self) -> None:
        pass
