"""The differences between two configurations, and those that need a restart of the gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec

from serac_gateway.config.loading import without_userinfo
from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import ReloadRefusedError

NEEDS_RESTART = (
    "data_dir",
    "store",
    "engine",
    "index",
    "metrics",
    "models.encoder",
    "models.device",
    "models.precision",
    "feedback.remembered_requests",
    "server.host",
    "server.port",
    "server.workers",
    "server.trusted_proxies",
    "server.max_control_body_bytes",
    "server.max_body_memory_bytes",
    "server.max_head_bytes",
    "server.max_connections",
    "server.head_timeout_s",
    "server.body_gap_timeout_s",
    "server.drain_timeout_s",
)
"""Keys and whole sections of objects that a process keeps from start to end: the store and everything derived
from it, the encoder of the indexed vectors, the listening socket and its protocol, the metrics."""

_MISSING = object()


class ReloadOutcome(StrEnum):
    """The outcome of a reload."""

    RELOADED = "reloaded"
    """A new generation is in force."""
    UNCHANGED = "unchanged"
    """Neither the configuration nor a file that it names has changed."""
    REFUSED = "refused"
    """The earlier generation stays in force unchanged."""


class _Change(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    """In full: "models.scope_classifier"; "upstreams.NAME" for an upstream that is added or removed."""
    before: object
    after: object


def changed_keys(before: GatewayConfig, after: GatewayConfig) -> tuple[str, ...]:
    """The keys whose values differ, in full, in the order of the tree."""
    return tuple(change.key for change in _changes(before, after))


def check_no_restart_needed(before: GatewayConfig, after: GatewayConfig) -> None:
    """Return if a running gateway can change from `before` to `after`.

    Raises:
        ReloadRefusedError: It cannot; the message names every key that needs a restart, with both values.
    """
    fixed = [change for change in _changes(before, after) if _needs_restart(change.key)]
    if not fixed:
        return
    listed = ", ".join(
        f"{change.key} (now {_printable(change.before)}, then {_printable(change.after)})" for change in fixed
    )
    raise ReloadRefusedError(
        f"a reload cannot change {listed}; restart the gateway for that, or set it back and reload the rest",
        details={"keys": [change.key for change in fixed]},
    )


def _needs_restart(key: str) -> bool:
    return any(key == fixed or key.startswith(f"{fixed}.") for fixed in NEEDS_RESTART)


def _changes(before: GatewayConfig, after: GatewayConfig) -> Iterator[_Change]:
    return _differing(msgspec.to_builtins(before), msgspec.to_builtins(after), "")


def _differing(before: object, after: object, key: str) -> Iterator[_Change]:
    if before == after:
        return
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        yield _Change(key=key, before=before, after=after)
        return
    for name in {**before, **after}:
        inner = f"{key}.{name}" if key else str(name)
        yield from _differing(before.get(name, _MISSING), after.get(name, _MISSING), inner)


def _printable(value: object) -> str:
    return repr(without_userinfo(value) if isinstance(value, str) else value)


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a reload."""

    outcome: ReloadOutcome
    generation: int
    """Number of the generation in force now: 1 at the start, one more after each reload with a change."""
    changed: tuple[str, ...] = ()
    """The keys of the configuration whose values have changed."""
    opened: tuple[str, ...] = ()
    """The resources that were opened anew, because their keys or their files have changed."""
