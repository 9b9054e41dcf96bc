"""Whether a form was sent by a page of this console (CSRF).

Browsers say with every request where it comes from: Sec-Fetch-Site over https and on loopback, Origin with
every POST. The token of the session, which is in every form, is the second layer, and finds forms that are
older than the session.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl

from serac_gateway.console.cookies import header
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import ForeignOriginError, InvalidRequestError, UnsupportedMediaTypeError

CSRF_FIELD = "csrf"
FORM_TYPE = "application/x-www-form-urlencoded"
_MAX_FIELDS = 500


def check_own_page(headers: Headers) -> None:
    """Return if the request comes from a page of this console.

    Raises:
        ForeignOriginError: It comes from elsewhere, or does not say where from.
    """
    site = header(headers, b"sec-fetch-site")
    origin, host = header(headers, b"origin"), header(headers, b"host")
    if site:
        own = site in ("same-origin", "none")  # none: the user's own act, such as a reload
    else:
        own = bool(host) and origin.partition("://")[2].lower() == host.lower()
    if not own:
        raise ForeignOriginError(
            f"this form was not sent by a page of the console (origin {origin[:200]!r}, {site[:40]!r}); open"
            " the console itself and send it there; programs use the API",
            field="origin",
            details={"value": origin[:200], "reason": "foreign origin"},
        )


def is_of_session(fields: Mapping[str, str], csrf_token: str) -> bool:
    """Whether a form with these fields was rendered in the session with that token."""
    return hmac.compare_digest(fields.get(CSRF_FIELD, "").encode(), csrf_token.encode())


def form_fields(body: bytes, content_type: str) -> dict[str, str]:
    """The fields of a form; of several of one name the last, line breaks as line feeds.

    Raises:
        UnsupportedMediaTypeError: The body is no form.
        InvalidRequestError: It has too many fields, or is no UTF-8.
    """
    if content_type.partition(";")[0].strip().lower() != FORM_TYPE:
        raise UnsupportedMediaTypeError(
            f"the body's content type is {content_type[:100]!r}; the console takes {FORM_TYPE}",
            field="content-type",
            details={"value": content_type[:100]},
        )
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as exc:  # UnicodeDecodeError is one
        raise InvalidRequestError(
            f"the form cannot be read ({exc}); at most {_MAX_FIELDS} fields in UTF-8 are", field="body"
        ) from exc
    return {name: value.replace("\r\n", "\n").replace("\r", "\n") for name, value in pairs}
