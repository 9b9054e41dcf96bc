"""One log line for each request of /v1: its outcome and its durations, without content."""

from __future__ import annotations

import logging

from serac_gateway.config.model import LoggedRequests, LoggingConfig
from serac_gateway.observability.logging import FIELDS
from serac_gateway.observability.request_record import FinishedRequest

log = logging.getLogger("serac_gateway.requests")


class RequestLog:
    """Writes the lines that the configuration wants."""

    def __init__(self, config: LoggingConfig) -> None:
        self._requests = config.requests
        self._content = config.content

    def add(self, request: FinishedRequest) -> None:
        """Write the line of a request that has ended."""
        if self._requests is LoggedRequests.NONE or not log.isEnabledFor(logging.INFO):
            return
        if self._requests is LoggedRequests.DECIDED and request.decision is None:
            return
        # Not by `log.info`, which looks for the line of code that calls it: no format has it.
        log.handle(
            log.makeRecord(
                log.name,
                logging.INFO,
                __file__,
                0,
                "request",
                (),
                None,
                extra={FIELDS: self._fields(request)},
            )
        )

    def _fields(self, request: FinishedRequest) -> dict[str, object]:
        """The named values of the line, durations in milliseconds; a value that is None is left out."""
        decision = request.decision
        fields: dict[str, object] = {
            "request": request.request_id,
            "upstream_request": request.upstream_request_id,
            "method": request.method,
            "path": request.path,
            "route": request.route.value,
            "reason": request.reason,
            "status": request.status,
            "client_left": request.client_left or None,
            "namespace": request.namespace,
            "key": request.key_id,
            "upstream_error": request.upstream_error,
            "cut_by": request.cut_by_edit,
            "redacted": request.redacted_edits or None,
            "bytes_in": request.bytes_in,
            "bytes_out": request.bytes_out,
            "total_ms": _ms(request.total_s),
            "overhead_ms": _ms(request.overhead_s),
            "upstream_ms": _ms(request.upstream_s),
            "first_byte_ms": _ms(request.first_byte_s),
        }
        if decision is not None:
            edit, timings = decision.scoped_edit, decision.timings
            fields |= {
                "edit": None if edit is None else edit.id,
                "edits": [each.id for each in decision.governing_edits] if decision.parts else None,
                "edit_version": None if edit is None else edit.version,
                "withheld": decision.withheld is not None or None,
                "probability": _rounded(decision.scope_probability),
                "similarity": _rounded(decision.similarity),
                "decide_ms": _ms(request.decide_s),
                "encode_ms": _ms(timings.encode_s),
                "search_ms": _ms(timings.search_s),
                "classify_ms": _ms(timings.classify_s),
                "read": None if request.query is None else request.query.sizes,
            }
        if self._content and request.query is not None:
            fields["query"] = request.query.text
        return {name: value for name, value in fields.items() if value is not None}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1_000, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
