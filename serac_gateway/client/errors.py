"""What can go wrong with a call.

ClientError
├── UnreachableError   no gateway answers, or it broke off
└── ApiError           the gateway answered with an error
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from serac_gateway.client.replies import Reply

_PREFIX = "urn:serac:problem:"


class ClientError(Exception):
    """Base of what the clients raise."""


class UnreachableError(ClientError):
    """No gateway answers, or its response broke off; of a write nobody knows whether it was made."""


class ApiError(ClientError):
    """The gateway answered with an error.

    Attributes:
        status: The HTTP status; 200 if the body is not what the call returns.
        code: As the API's page lists them: "edit_conflict"; "" if it is no gateway's error.
        detail: One or two sentences with the bad value and what to do.
        field: The offending field, parameter or header, if there is one.
        members: All members of the error, such as `limit`, `current` and `needed`.
        request_id: For the gateway's log.
        retry_after_s: How long to wait before it makes sense to try again; None: it does not say.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str = "",
        members: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{detail} ({status}, request {request_id})" if request_id else detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.members: Mapping[str, Any] = members or {}
        field = self.members.get("field")
        self.field = field if isinstance(field, str) else None
        self.request_id = request_id
        self.retry_after_s = retry_after_s


def api_error(reply: Reply, *, request: str) -> ApiError:
    """The error that `reply` is: a problem's, one of OpenAI's shape, else one that quotes its status.

    `request` is method and URL.
    """
    try:
        body = msgspec.json.decode(reply.raw)
    except (msgspec.DecodeError, RecursionError):
        body = None
    members: Mapping[str, Any] = body if isinstance(body, dict) else {}
    of_openai = members.get("error")
    if isinstance(of_openai, dict):
        members, detail = of_openai, of_openai.get("message")
        code = of_openai.get("code")
    else:
        detail = members.get("detail")
        code = str(members.get("type", "")).removeprefix(_PREFIX).replace("-", "_")
    if not isinstance(detail, str):
        detail, code = f"{request} answered {reply.status}, not as a gateway does", ""
    return ApiError(
        detail,
        status=reply.status,
        code=code if isinstance(code, str) else "",
        members=members,
        request_id=reply.headers.get("x-serac-request-id"),
        retry_after_s=_seconds(reply.headers.get("retry-after")),
    )


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() and len(header) < 10 else None
