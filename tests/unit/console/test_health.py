"""The doctor at the console looks once at a time, and can look again."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from serac_gateway.console import health
from serac_gateway.console.visits import Visit


async def test_a_look_that_no_thread_could_begin_does_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All threads were taken for as long as it may last."""
    monkeypatch.setattr(health, "DOCTOR_LIMIT_S", -0.9)
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        taken = asyncio.ensure_future(asyncio.to_thread(go_on.wait, 30))
        await asyncio.sleep(0)
        try:
            diagnosed = await health._diagnosed(cast("Visit", None))  # nobody comes to read it
        finally:
            go_on.set()
        assert await taken
    assert "took longer" in (diagnosed.problem or "")
    assert not health._looking.locked()
