"""Resources that several leases share: opened once, closed with the last."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serac_gateway.server.resources import ResourceLease, SharedResources, file_stamps


class Opener:
    """Opens resources, and records which were opened and closed."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []

    def opening(self, resource: str) -> Callable[[], Awaitable[str]]:
        async def opened() -> str:
            self.opened.append(resource)
            return resource

        return opened

    async def close(self, resource: str) -> None:
        self.closed.append(resource)

    async def acquire(self, lease: ResourceLease, name: str, key: str) -> str:
        return await lease.acquire(name, key, self.opening(f"{name} {key}"), self.close)


async def test_a_resource_of_the_same_key_is_shared_and_closed_with_its_last_lease() -> None:
    shared, opener = SharedResources(), Opener()
    first, second = shared.lease(), shared.lease()
    assert (
        await opener.acquire(first, "model", "a") == await opener.acquire(second, "model", "a") == "model a"
    )
    assert (first.opened, second.opened) == (["model"], [])
    await first.close()
    assert opener.closed == []
    await second.close()
    assert (opener.opened, opener.closed, len(shared)) == (["model a"], ["model a"], 0)


async def test_another_key_or_name_is_another_resource_and_the_old_one_closes_alone() -> None:
    shared, opener = SharedResources(), Opener()
    first, second = shared.lease(), shared.lease()
    await opener.acquire(first, "model", "a")
    await opener.acquire(second, "model", "b")
    await opener.acquire(second, "pool", "a")
    assert second.opened == ["model", "pool"]
    await first.close()
    assert (opener.closed, len(shared)) == (["model a"], 2)


async def test_resources_close_in_reverse_order_and_once() -> None:
    shared, opener = SharedResources(), Opener()
    lease = shared.lease()
    for name in ("model", "pool", "upstream"):
        await opener.acquire(lease, name, "a")
    await lease.close()
    await lease.close()
    assert opener.closed == ["upstream a", "pool a", "model a"]


async def test_a_resource_that_cannot_be_opened_is_not_shared_and_the_others_close() -> None:
    async def broken() -> str:
        raise OSError("damaged")

    shared, opener = SharedResources(), Opener()
    lease = shared.lease()
    await opener.acquire(lease, "pool", "a")
    with pytest.raises(OSError, match="damaged"):
        await lease.acquire("model", "a", broken, opener.close)
    await lease.close()
    assert (opener.closed, len(shared), lease.opened) == (["pool a"], 0, ["pool"])


async def test_a_resource_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    async def broken(resource: str) -> None:
        raise OSError("stuck")

    shared, opener = SharedResources(), Opener()
    lease = shared.lease()
    await opener.acquire(lease, "pool", "a")
    await lease.acquire("model", "a", opener.opening("model a"), broken)
    with pytest.raises(OSError, match="stuck"):
        await lease.close()
    assert (opener.closed, len(shared)) == (["pool a"], 0)


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
