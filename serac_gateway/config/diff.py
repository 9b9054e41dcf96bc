"""What differs between two configurations, and what of it a running gateway cannot take up."""

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
    "metrics",
    "models.encoder",
    "feedback.remembered_requests",
    "server.host",
    "server.port",
    "server.workers",
    "server.trusted_proxies",
    "server.max_control_body_bytes",
    "server.max_head_bytes",
    "server.head_timeout_s",
    "server.body_gap_timeout_s",
    "server.drain_timeout_s",
)
"""Keys, and sections as a whole, of parts that are there from start to end: the store and what is derived
from it, the encoder whose vectors are in the index, the listening socket and its protocol, the metrics."""

_MISSING = object()


class ReloadOutcome(StrEnum):
    """What became of a reload."""

    RELOADED = "reloaded"
    """Another generation is in force."""
    UNCHANGED = "unchanged"
    """There was nothing to take up."""
    REFUSED = "refused"
    """The generation before stays in force, whole."""


class _Change(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    """In full: "models.scope_classifier"; of an upstream that comes or goes "upstreams.NAME"."""
    before: object
    after: object


def changed_keys(before: GatewayConfig, after: GatewayConfig) -> tuple[str, ...]:
    """The keys whose values differ, in full, in the order of the tree."""
    return tuple(change.key for change in _changes(before, after))


def check_no_restart_needed(before: GatewayConfig, after: GatewayConfig) -> None:
    """Return if a running gateway can go from `before` to `after`.

    Raises:
        ReloadRefusedError: It cannot; every key that needs a restart is named, with both values.
    """
    fixed = [change for change in _changes(before, after) if _needs_restart(change.key)]
    if not fixed:
        return
    told = ", ".join(f"{one.key} (now {_shown(one.before)}, then {_shown(one.after)})" for one in fixed)
    raise ReloadRefusedError(
        f"a reload cannot change {told}; restart the gateway for that, or set it back and reload the rest",
        details={"keys": [one.key for one in fixed]},
    )


def _needs_restart(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in NEEDS_RESTART)


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


def _shown(value: object) -> str:
    return repr(without_userinfo(value) if isinstance(value, str) else value)


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload did."""

    outcome: ReloadOutcome
    generation: int
    """The one in force now: 1 at the start, one more with each reload that changed something."""
    changed: tuple[str, ...] = ()
    """The keys of the configuration whose values are other ones."""
    opened: tuple[str, ...] = ()
    """The parts that were opened anew, because their keys or their files changed."""
