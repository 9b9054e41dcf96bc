"""The rules of what stands behind an edit: who, why, by which document and on what legal basis.

The fields are an edit's own (see edits.py). `author`, `reason` and `ticket` belong to one version; what the
content rests on is handed on to the next version unless that one says otherwise.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from serac_gateway.errors import InvalidRequestError

MAX_NOTE_CHARS = 2_000
"""Limit of each text about an edit, and of the URL of its document."""

OF_ONE_VERSION = ("author", "reason", "ticket")
"""Who makes a version and why: not handed on to the next."""

NOTES = (*OF_ONE_VERSION, "institution", "source", "legal_basis")
"""The fields that are free text."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\xa0\"<>\\^`{|}]")
"""What a URL can hold only percent-encoded (RFC 3986, 2), of ASCII and the controls behind it."""


def check_text(field: str, text: str, limit: int) -> None:
    """Return if `text` is one that an edit may hold as its `field`.

    Raises:
        InvalidRequestError: It is blank, longer than `limit` characters or no valid Unicode.
    """
    if not text.strip():
        raise InvalidRequestError(
            f"{field} {text[:40]!r} is blank; give it a text", field=field, details={"value": text[:40]}
        )
    if len(text) > limit:
        raise InvalidRequestError(
            f"{field} has {len(text):,} characters; the limit is {limit:,}; shorten it"
            f" (it begins {text[:40]!r})",
            field=field,
            details={"value": len(text), "limit": limit},
        )
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequestError(
            f"{field} holds a lone surrogate at character {exc.start}; send valid Unicode", field=field
        ) from exc


def checked_note(field: str, text: str | None) -> str | None:
    """`text` itself, which is one of `NOTES`.

    Raises:
        InvalidRequestError: It is blank, too long or no valid Unicode; the error names `field`.
    """
    if text is not None:
        check_text(field, text, MAX_NOTE_CHARS)
    return text


def check_document(url: str | None, sha256: str | None) -> None:
    """Return if these can say where an edit's source lies, and which bytes it had.

    A console links to the URL, so it can run nothing and gives no password away. It is not fetched.

    Raises:
        InvalidRequestError: The URL is none of http or https, or the digest is not 64 digits.
    """
    if url is not None:
        check_text("source_url", url, MAX_NOTE_CHARS)
        if fault := _url_fault(url):
            raise InvalidRequestError(
                f"source_url {url[:80]!r} {fault}; give the document's whole address, such as"
                " 'https://example.org/minutes.pdf', and what has none as source",
                field="source_url",
                details={"value": url[:80]},
            )
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise InvalidRequestError(
            f"source_sha256 {sha256[:80]!r} is no SHA-256 digest; give the 64 digits 0-9 and a-f that"
            " `sha256sum FILE` prints of the document",
            field="source_sha256",
            details={"value": sha256[:80], "limit": 64},
        )


def _url_fault(url: str) -> str | None:
    if unfit := _NOT_IN_URLS.search(url):
        return f"holds {unfit[0]!r}, which stands in no address unless percent-encoded"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError where it is no port
    except ValueError as exc:
        return f"is no URL ({exc})"
    if parts.scheme not in ("http", "https"):
        return f"has the scheme {parts.scheme[:20]!r}, not 'http' or 'https'"
    if not parts.hostname:
        return "names no host"
    if "@" in parts.netloc:
        return "holds a user name or password, which everybody could read"
    return None
