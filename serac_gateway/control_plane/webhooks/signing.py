"""Signatures of webhooks after the text of Standard Webhooks 1.0.0: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from serac_gateway.config.model import webhook_secret_variable
from serac_gateway.errors import ConfigError

SECRET_PREFIX = "whsec_"
_MIN_BYTES, _MAX_BYTES = 24, 64


def webhook_secrets(name: str, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    """The secrets of the webhook of that name, at least one: several while they are changed.

    Raises:
        ConfigError: There is none, or one is malformed; the message does not repeat it.
    """
    variable = webhook_secret_variable(name)
    secrets = tuple(_secret(text, variable) for text in environment.get(variable, "").split())
    if not secrets:
        raise ConfigError(
            f"webhook {name!r} has no secret; set {variable} in the environment to {SECRET_PREFIX!r} and the"
            f" base64 of {_MIN_BYTES} to {_MAX_BYTES} random bytes, as `openssl rand -base64 32` makes them",
            field=f"webhooks.{name}",
        )
    return secrets


def signed_headers(secrets: tuple[bytes, ...], *, event_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers of a request: a signature by each secret, so that a receiver needs to know one of them.

    `at_s` is the time of the attempt in seconds since 1970.
    """
    signed = b".".join((event_id.encode(), str(at_s).encode(), body))
    signatures = [
        base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets
    ]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _secret(text: str, variable: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(SECRET_PREFIX) or not _MIN_BYTES <= len(secret) <= _MAX_BYTES:
        raise ConfigError(
            f"{variable} holds something else than secrets of webhooks; each is {SECRET_PREFIX!r} and the"
            f" base64 of {_MIN_BYTES} to {_MAX_BYTES} bytes; separate several by spaces",
            field=variable,
        )
    return secret
