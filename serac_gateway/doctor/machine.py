"""Memory and disk against what the configured models need."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import psutil

from serac_gateway.config.model import GatewayConfig
from serac_gateway.doctor.findings import Finding, failure, fine, warning

MIB = 2**20
_DECISIONS_MIB = 500
"""Encoder and scope classifier with the libraries, no edits."""
_ANSWERS_MIB = 600
"""The embedded Gemma, as counterfactual model or as base model: one or both (1.1 GiB in all)."""
_SPARE_MIB = 256
"""What a running gateway needs for requests and new edits."""
_CONVERTED_MIB = 600
"""The converted embedded models on the disk."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine, or the container around this process, has."""

    total_mib: int
    available_mib: int
    disk_mib: int
    """Free where the data folder is or will be."""


def room_of(data_path: Path) -> Room:
    """What there is now."""
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    try:
        limit = int(_CGROUP_LIMIT.read_text())
        total, available = min(total, limit), min(available, limit - int(_CGROUP_USED.read_text()))
    except (OSError, ValueError):  # no container, or no limit ("max")
        pass
    folder = next(path for path in (data_path.absolute(), *data_path.absolute().parents) if path.exists())
    return Room(
        total_mib=total // MIB,
        available_mib=max(0, available) // MIB,
        disk_mib=shutil.disk_usage(folder).free // MIB,
    )


def room_findings(config: GatewayConfig, room: Room, *, running: bool) -> list[Finding]:
    """Whether the models fit. A `running` gateway has loaded them."""
    models = config.models
    embedded = config.upstream.url is None or (
        models.counterfactual is None and models.counterfactual_url is None
    )
    needed = _DECISIONS_MIB + (_ANSWERS_MIB if embedded else 0)
    memory = f"{room.available_mib:,} MiB of memory are free of {room.total_mib:,}"
    remedy = "give it more memory, or let servers elsewhere answer (models.counterfactual_url, upstream.url)"
    if room.total_mib < needed:
        memory_finding = failure("memory", f"{memory}; the models need some {needed:,}", remedy)
    elif room.available_mib < (_SPARE_MIB if running else needed):
        needs = f"a running gateway needs {_SPARE_MIB}" if running else f"the models need some {needed:,}"
        memory_finding = warning("memory", f"{memory}; {needs}", remedy)
    else:
        memory_finding = fine("memory", memory)
    return [memory_finding, _disk(config, room, embedded=embedded)]


def _disk(config: GatewayConfig, room: Room, *, embedded: bool) -> Finding:
    disk = f"{room.disk_mib:,} MiB are free at {str(config.data_path)!r}"
    remedy = "make room there, or name another folder (data_dir)"
    converted = any((config.data_path / "models").glob("gemma3-270m-*"))
    if room.disk_mib < _SPARE_MIB:
        return failure("disk", f"{disk}; a full disk stops all writes", remedy)
    if embedded and not converted and room.disk_mib < _CONVERTED_MIB:
        return warning("disk", f"{disk}; converting the embedded models needs {_CONVERTED_MIB}", remedy)
    return fine("disk", disk)
