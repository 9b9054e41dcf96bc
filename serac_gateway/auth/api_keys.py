"""API keys: their form, how they are made and checked. Pure: no I/O, no clock but the one passed in.

A key is ``sk-serac-<id>-<secret>``. The id is public: it is the key of the record and appears in
logs. The secret is 43 random characters of 62, which are 256 bits; it is printed once, and only its
HMAC-SHA256 is stored.

Why no slow password hash: it makes guesses expensive where people choose the secret. Nobody guesses 256
random bits, so argon2 would protect nothing here and cost every request 50 ms.

Why a pepper: without SERAC_KEY_PEPPER, write access to the store is not enough to forge the digest of a key.
Where none is set, the digest is keyed by a fixed text, and the store must be trusted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from datetime import datetime

import msgspec

from serac_gateway.auth.principals import EVERY_NAMESPACE, Role
from serac_gateway.domain.audiences import checked_audience
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, AwareDatetime, check_namespace
from serac_gateway.errors import ConfigError, InvalidRequestError

KEY_PREFIX = "sk-serac-"
MAX_KEY_NAME_CHARS = 100
MAX_KEY_NAMESPACES = 64
MAX_REQUESTS_PER_MINUTE = 1_000_000
MIN_PEPPER_CHARS = 32

_ALPHABET = string.digits + string.ascii_letters
_ID_CHARS = 12
_SECRET_CHARS = 43
_KEY = re.compile(rf"{KEY_PREFIX}([0-9A-Za-z]{{{_ID_CHARS}}})-[0-9A-Za-z]{{{_SECRET_CHARS}}}")
_KEY_IN_TEXT = re.compile(rf"({KEY_PREFIX}[0-9A-Za-z]{{{_ID_CHARS}}}-)[0-9A-Za-z]+")
_TOKEN_IN_TEXT = re.compile(r"(?<![A-Za-z0-9_-])ey[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*+")
_NO_PEPPER = b"serac_gateway API key"
_NO_DIGEST = "0" * 64


class ApiKeyDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The properties of a key to be made."""

    name: str
    """Whose key it is: it becomes the author of the edits made with it."""
    role: Role
    namespaces: tuple[str, ...] | None = None
    """The only ones that it may use, `["*"]` for every one. None: all for an admin, else the default one."""
    requests_per_minute: int | None = None
    """In each gateway process, as many at once included; None: unlimited."""
    expires_at: AwareDatetime | None = None
    labels: dict[str, str] = {}
    """Of requests with the key: what audiences of edits name; see `routing.audience_from`."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret."""

    id: str
    name: str
    role: Role
    namespaces: tuple[str, ...]
    created_at: AwareDatetime
    created_by: str | None = None
    requests_per_minute: int | None = None
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    last_used_at: AwareDatetime | None = None
    """To within a minute or so."""
    labels: dict[str, str] = {}

    def is_active(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class StoredApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as a store keeps it."""

    key: ApiKey
    digest: str
    """HMAC-SHA256 of the whole text of the key, in hex."""
    pepper_id: str
    """Identifies the pepper of the digest, without revealing it."""


class NewApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was just made, with the text that will never be seen again."""

    stored: StoredApiKey
    text: str


class PresentedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A well-formed key out of a request."""

    id: str
    text: str


def new_api_key(draft: ApiKeyDraft, *, pepper: bytes, created_by: str | None, now: datetime) -> NewApiKey:
    """A key with a fresh id and a fresh secret.

    Raises:
        InvalidRequestError: The draft breaks a rule.
    """
    _check(draft, now)
    namespaces = draft.namespaces
    if namespaces is None:
        namespaces = (EVERY_NAMESPACE,) if draft.role is Role.ADMIN else (DEFAULT_NAMESPACE,)
    key_id = _random(_ID_CHARS)
    text = f"{KEY_PREFIX}{key_id}-{_random(_SECRET_CHARS)}"
    key = ApiKey(
        id=key_id,
        name=draft.name,
        role=draft.role,
        namespaces=tuple(sorted(set(namespaces))),
        created_at=now,
        created_by=created_by,
        requests_per_minute=draft.requests_per_minute,
        expires_at=draft.expires_at,
        labels=_checked_labels(draft.labels),
    )
    stored = StoredApiKey(key=key, digest=_digest(text, pepper), pepper_id=pepper_id(pepper))
    return NewApiKey(stored=stored, text=text)


def presented_key(value: bytes) -> PresentedKey | None:
    """The key that `value` is, from the first byte to the last; None if it is none."""
    text = value.decode("latin-1")
    match = _KEY.fullmatch(text)
    return None if match is None else PresentedKey(id=match[1], text=text)


def fits(presented: PresentedKey, stored: StoredApiKey | None, pepper: bytes) -> bool:
    """Whether it is that key. An unknown one takes the same steps, and no step depends on what is equal."""
    expected = _NO_DIGEST if stored is None else stored.digest
    equal = hmac.compare_digest(_digest(presented.text, pepper), expected)
    return equal and stored is not None


def check_key_id(key_id: str) -> str:
    """`key_id`, if it can be one.

    Raises:
        InvalidRequestError: It cannot.
    """
    if not re.fullmatch(rf"[0-9A-Za-z]{{{_ID_CHARS}}}", key_id):
        abbreviated = redacted(key_id)[:80]
        raise InvalidRequestError(
            f"key id {abbreviated!r} is not allowed; it is the {_ID_CHARS} letters and digits after"
            f" {KEY_PREFIX!r}, which the list of keys shows",
            field="key_id",
            details={"value": abbreviated},
        )
    return key_id


def checked_pepper(text: str | None) -> bytes:
    """The key of all digests, from SERAC_KEY_PEPPER.

    Raises:
        ConfigError: It is too short to be worth anything.
    """
    if not text:
        return b""
    if len(text) < MIN_PEPPER_CHARS:
        raise ConfigError(
            f"SERAC_KEY_PEPPER has {len(text)} characters and needs {MIN_PEPPER_CHARS} or more; make one with"
            " `openssl rand -hex 32`, and give the same to every gateway on the store"
        )
    return text.encode("utf-8", "surrogateescape")


def pepper_id(pepper: bytes) -> str:
    """A short name for a pepper, from which it cannot be computed."""
    return hmac.new(pepper or _NO_PEPPER, b"which pepper", hashlib.sha256).hexdigest()[:16]


def redacted(text: str) -> str:
    """`text` with the secret of every key, and every bearer token, in it replaced by ``***``."""
    if KEY_PREFIX in text:
        text = _KEY_IN_TEXT.sub(r"\1***", text)
    return _TOKEN_IN_TEXT.sub("ey***", text) if "ey" in text else text


def _check(draft: ApiKeyDraft, now: datetime) -> None:
    if (
        draft.name != draft.name.strip()
        or not draft.name.isprintable()
        or not (0 < len(draft.name) <= MAX_KEY_NAME_CHARS)
    ):
        raise _refused("name", draft.name[:80], f"1 to {MAX_KEY_NAME_CHARS} printable characters on one line,"
                       " with no space at either end")  # fmt: skip
    rate = draft.requests_per_minute
    if rate is not None and not 1 <= rate <= MAX_REQUESTS_PER_MINUTE:
        raise _refused("requests_per_minute", rate, f"1 to {MAX_REQUESTS_PER_MINUTE:,}, or null for no limit")
    if draft.expires_at is not None and draft.expires_at <= now:
        raise _refused("expires_at", draft.expires_at.isoformat(), "a moment still to come")
    if draft.namespaces is not None and draft.namespaces != (EVERY_NAMESPACE,):
        _check_namespaces(draft.namespaces)


def _check_namespaces(namespaces: tuple[str, ...]) -> None:
    if not 1 <= len(namespaces) <= MAX_KEY_NAMESPACES:
        allowed = f"1 to {MAX_KEY_NAMESPACES} names, or [{EVERY_NAMESPACE!r}] for every one"
        raise _refused("namespaces", len(namespaces), allowed)
    for namespace in namespaces:
        try:
            check_namespace(namespace)
        except InvalidRequestError as error:
            raise InvalidRequestError(error.message, field="namespaces", details=error.details) from error


def _checked_labels(labels: dict[str, str]) -> dict[str, str]:
    """`labels` as an audience of one value each writes them."""
    try:
        audience = checked_audience({label: (value,) for label, value in labels.items()})
    except InvalidRequestError as error:
        message = error.message.replace("audience", "labels", 1)
        raise InvalidRequestError(message, field="labels", details=error.details) from error
    return {label: value for label, (value,) in audience.items()}


def _refused(field: str, value: object, allowed: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{field} {value!r} is not allowed; give {allowed}", field=field, details={"value": value}
    )


def _digest(text: str, pepper: bytes) -> str:
    return hmac.new(pepper or _NO_PEPPER, text.encode("latin-1"), hashlib.sha256).hexdigest()


def _random(chars: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(chars))
