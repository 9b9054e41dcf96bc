"""The labels by which edits name their audience: read from a request where the operator has mapped them.

What is not mapped is not believed. A value that does not count leaves the request without the label, so it
widens no audience; two different values are refused, for nobody knows which one a proxy has set.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import msgspec

from serac_gateway.auth.principals import Principal
from serac_gateway.config.model import AudienceSource, GatewayConfig
from serac_gateway.domain.audiences import Audience, Labels, label_value
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import InvalidRequestError

_MAX_QUOTED = 80


class _HeaderLabel(msgspec.Struct, frozen=True, kw_only=True):
    label: str
    header: bytes
    """In small letters, as ASGI has headers."""


class AudienceLabels:
    """The labels of `routing.audience_from`."""

    def __init__(self, sources: Mapping[str, AudienceSource]) -> None:
        self._sources = dict(sources)
        self._of_header = [
            _HeaderLabel(label=label, header=source.header.lower().encode())
            for label, source in sources.items()
            if source.header is not None
        ]
        self._of_key = [label for label, source in sources.items() if source.key]
        self._of_token = [label for label, source in sources.items() if source.claim is not None]
        self._required = [label for label, source in sources.items() if source.required]

    @property
    def names(self) -> tuple[str, ...]:
        """The labels that requests can have."""
        return tuple(self._sources)

    def of(self, headers: Headers, principal: Principal) -> dict[str, str]:
        """The labels of a request, each with a value that counts.

        Raises:
            InvalidRequestError: A header has two different values, or a label that is required is missing.
        """
        if not self._sources:
            return {}
        labels: dict[str, str] = {}
        for mapped in self._of_header:
            value = self._counting(mapped.label, _value_of(mapped.header, headers))
            if value is not None:
                labels[mapped.label] = value
        for label in self._of_key if principal.holder is None else self._of_token:
            value = self._counting(label, principal.labels.get(label))
            if value is not None:
                labels[label] = value
        for label in self._required:
            if label not in labels:
                raise self._missing(label)
        return labels

    def given(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels of an imagined request, for a decision that is only explained.

        Raises:
            InvalidRequestError: One is not configured, or its value is none that counts.
        """
        read: dict[str, str] = {}
        for label, text in labels.items():
            self._check_label(label, "labels")
            value = self._counting(label, text)
            if value is None:
                raise self._refused_value(label, text, f"labels.{label}")
            read[label] = value
        return read

    def check(self, audience: Audience) -> None:
        """Return if requests can be in the audience, as far as its labels and values go.

        Raises:
            InvalidRequestError: A label is not configured, or one of its values does not count.
        """
        for label, values in audience.items():
            self._check_label(label, "audience")
            for value in values:
                if self._counting(label, value) is None:
                    raise self._refused_value(label, value, f"audience.{label}")

    def is_reachable(self, audience: Audience) -> bool:
        """Whether requests can be in the audience: each of its labels has at least one value that counts."""
        return all(
            label in self._sources and any(self._counting(label, value) is not None for value in values)
            for label, values in audience.items()
        )

    def idle_of_key(self, labels: Labels) -> list[str]:
        """Those of an API key's labels that no request with the key has: they are not configured."""
        return [
            f"{label}={value}"
            for label, value in labels.items()
            if label not in self._of_key or self._counting(label, value) is None
        ]

    def counted(self, labels: Labels) -> list[tuple[str, str]]:
        """Every label with its value for metrics: one of the closed set, "other", or "none" without a value.

        So there are as many values as the configuration names, whatever clients send.
        """
        return [
            (label, "none" if label not in labels else labels[label] if source.values else "other")
            for label, source in self._sources.items()
        ]

    def _counting(self, label: str, text: str | None) -> str | None:
        value = None if text is None else label_value(text)
        allowed = self._sources[label].values
        return None if allowed and value not in allowed else value

    def _check_label(self, label: str, field: str) -> None:
        if label not in self._sources:
            known = ", ".join(self._sources) or "none"
            raise InvalidRequestError(
                f"{field} {label[:_MAX_QUOTED]!r} is not configured, so no request has it; the labels of"
                f" routing.audience_from are: {known}",
                field=field,
                details={"value": label[:_MAX_QUOTED]},
            )

    def _refused_value(self, label: str, value: str, field: str) -> InvalidRequestError:
        allowed = ", ".join(self._sources[label].values)
        how = f"use one of {allowed}" if allowed else "use 1 to 64 letters a-z, digits, ., _, : and -"
        return InvalidRequestError(
            f"{field} {value[:_MAX_QUOTED]!r} is no value that a request can have; {how}",
            field=field,
            details={"value": value[:_MAX_QUOTED]},
        )

    def _missing(self, label: str) -> InvalidRequestError:
        source = self._sources[label]
        if source.header is None:
            remedy = f"use a token whose claim {source.claim!r} has one, or ask an admin for a key" if (
                source.claim is not None
            ) else "ask an admin for a key"  # fmt: skip
            return InvalidRequestError(
                f"the API key or token has no {label} that counts, and this gateway demands it; {remedy}"
                f"{f' made with --label {label}=…' if source.key else ''}",
                field=f"labels.{label}",
            )
        return InvalidRequestError(
            f"this gateway demands the header {source.header} with a {label} that counts; send it, or have"
            " the proxy in front send it",
            field=source.header,
        )


def believed_from_anybody(config: GatewayConfig) -> list[str]:
    """What is at risk with the labels that come from headers, one sentence each."""
    risks = []
    for label, source in config.routing.audience_from.items():
        if source.header is None:
            continue
        if source.required and not source.values:
            risks.append(
                f"routing.audience_from.{label} is required and takes any value, so a made-up one lets a"
                " request past the edits of every audience"
            )
        if not config.is_loopback and not _has_proxy_elsewhere(config):
            risks.append(
                f"routing.audience_from.{label} is read from the header {source.header}, and no proxy that"
                " could set it is configured: whoever reaches the gateway chooses the audience"
            )
    return risks


def _has_proxy_elsewhere(config: GatewayConfig) -> bool:
    return any(not _is_loopback(proxy) for proxy in config.server.trusted_proxies)


def _is_loopback(proxy: str) -> bool:
    try:
        return ipaddress.ip_network(proxy, strict=False).is_loopback
    except ValueError:  # it is refused when the gateway listens
        return True


NO_AUDIENCE_LABELS = AudienceLabels({})
"""Where no label is configured."""


def _value_of(name: bytes, headers: Headers) -> str | None:
    """What the header says; None if there is none. Written twice, or as a list, it must be the same.

    Raises:
        InvalidRequestError: It has several values.
    """
    values = [
        stripped
        for header, value in headers
        if header == name
        for part in value.split(b",")
        if (stripped := part.strip().lower())
    ]
    if len(set(values)) > 1:
        header = name.decode("latin-1")
        raise InvalidRequestError(
            f"the header {header} has {len(values)} values, and nobody knows which one holds; send one, and"
            " have the proxy in front replace what clients send",
            field=header,
        )
    return values[0].decode("latin-1") if values else None
