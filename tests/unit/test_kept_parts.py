"""Parts that several users share: opened once, closed with the last."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serac_gateway.server.resources import KeptParts, PartsInUse, file_stamps


class Doors:
    """Opens parts, and notes what becomes of them."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []

    def opening(self, part: str) -> Callable[[], Awaitable[str]]:
        async def opened() -> str:
            self.opened.append(part)
            return part

        return opened

    async def close(self, part: str) -> None:
        self.closed.append(part)

    async def take(self, user: PartsInUse, name: str, key: str) -> str:
        return await user.get(name, key, self.opening(f"{name} {key}"), self.close)


async def test_a_part_of_the_same_key_is_taken_over_and_closed_with_its_last_user() -> None:
    kept, doors = KeptParts(), Doors()
    first, second = kept.user(), kept.user()
    assert await doors.take(first, "model", "a") == await doors.take(second, "model", "a") == "model a"
    assert (first.opened, second.opened) == (["model"], [])
    await first.close()
    assert doors.closed == []
    await second.close()
    assert (doors.opened, doors.closed, len(kept)) == (["model a"], ["model a"], 0)


async def test_another_key_or_name_is_another_part_and_the_old_one_closes_alone() -> None:
    kept, doors = KeptParts(), Doors()
    first, second = kept.user(), kept.user()
    await doors.take(first, "model", "a")
    await doors.take(second, "model", "b")
    await doors.take(second, "pool", "a")
    assert second.opened == ["model", "pool"]
    await first.close()
    assert (doors.closed, len(kept)) == (["model a"], 2)


async def test_parts_close_in_reverse_order_and_once() -> None:
    kept, doors = KeptParts(), Doors()
    user = kept.user()
    for name in ("model", "pool", "upstream"):
        await doors.take(user, name, "a")
    await user.close()
    await user.close()
    assert doors.closed == ["upstream a", "pool a", "model a"]


async def test_a_part_that_cannot_be_opened_is_not_kept_and_the_others_close() -> None:
    async def broken() -> str:
        raise OSError("damaged")

    kept, doors = KeptParts(), Doors()
    user = kept.user()
    await doors.take(user, "pool", "a")
    with pytest.raises(OSError, match="damaged"):
        await user.get("model", "a", broken, doors.close)
    await user.close()
    assert (doors.closed, len(kept), user.opened) == (["pool a"], 0, ["pool"])


async def test_a_part_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    async def broken(part: str) -> None:
        raise OSError("stuck")

    kept, doors = KeptParts(), Doors()
    user = kept.user()
    await doors.take(user, "pool", "a")
    await user.get("model", "a", doors.opening("model a"), broken)
    with pytest.raises(OSError, match="stuck"):
        await user.close()
    assert (doors.closed, len(kept)) == (["pool a"], 0)


def test_a_stamp_changes_with_a_files_time_its_size_and_with_files_that_come_and_go(tmp_path: Path) -> None:
    file = tmp_path / "inner" / "model.onnx"
    file.parent.mkdir()
    file.write_text("weights")
    seen = {file_stamps(tmp_path)}
    os.utime(file, ns=(1, 1))
    seen.add(file_stamps(tmp_path))
    file.write_text("longer weights")
    os.utime(file, ns=(1, 1))
    seen.add(file_stamps(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    seen.add(file_stamps(tmp_path))
    file.unlink()
    seen.add(file_stamps(tmp_path))
    assert len(seen) == 5
    assert file_stamps(tmp_path) == file_stamps(tmp_path)


def test_what_is_not_there_has_no_stamp(tmp_path: Path) -> None:
    assert file_stamps(None, tmp_path / "nothing", "an-id/on-a-hub") == ()
