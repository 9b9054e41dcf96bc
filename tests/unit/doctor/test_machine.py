"""Memory and disk against what models need."""

from __future__ import annotations

from pathlib import Path

import pytest

from serac_gateway.config.model import GatewayConfig, ModelsConfig, UpstreamConfig
from serac_gateway.doctor.findings import Level
from serac_gateway.doctor.machine import Room, room_findings, room_of

ELSEWHERE = {
    "upstream": UpstreamConfig(url="http://localhost/v1"),
    "models": ModelsConfig(counterfactual="m", counterfactual_url="http://localhost/v1"),
}


def levels(room: Room, *, running: bool = False, **sections: object) -> tuple[Level, Level]:
    memory, disk = room_findings(GatewayConfig(data_dir="/nowhere", **sections), room, running=running)
    return memory.level, disk.level


@pytest.mark.parametrize(
    ("memory", "running", "level"),
    [
        ((24_000, 8_000), False, Level.OK),
        ((24_000, 900), False, Level.WARN),
        ((24_000, 900), True, Level.OK),
        ((24_000, 100), True, Level.WARN),
        ((1_000, 900), False, Level.FAIL),
    ],
)
def test_memory_is_held_against_the_embedded_models_and_whether_they_are_loaded(
    memory: tuple[int, int], running: bool, level: Level
) -> None:
    room = Room(total_mib=memory[0], available_mib=memory[1], disk_mib=9_000)
    assert levels(room, running=running) == (level, Level.OK)


def test_models_elsewhere_need_less() -> None:
    room = Room(total_mib=1_000, available_mib=600, disk_mib=400)
    assert levels(room) == (Level.FAIL, Level.WARN)
    assert levels(room, **ELSEWHERE) == (Level.OK, Level.OK)


def test_a_disk_that_is_almost_full_fails() -> None:
    assert levels(Room(total_mib=9_000, available_mib=9_000, disk_mib=10))[1] is Level.FAIL


def test_the_room_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    room = room_of(tmp_path / "none" / "yet")
    assert room.total_mib >= room.available_mib >= 0
    assert room.disk_mib > 0
