"""The dispatcher above Litestar: paths go to their plane, and a request keeps the runtime it began with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from serac_gateway.config.model import GatewayConfig
from serac_gateway.control_plane.http.dependencies import current_context
from serac_gateway.server.asgi import GatewayApp
from serac_gateway.server.runtime import Runtime, Runtimes


class Planes:
    """Stands for both planes: records what each serves, and waits before it looks at its context."""

    def __init__(self) -> None:
        self.served: list[tuple[str, object]] = []
        self.closed: list[int] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    def runtime(self, number: int) -> Runtime:
        async def close() -> None:
            self.closed.append(number)

        async def data_plane(scope: dict[str, str], receive: object, send: object, refusal: object) -> None:
            await self.go_on.wait()
            self.served.append(("data plane", number))

        data_plane.upstream = None

        return Runtime(
            number=number,
            config=GatewayConfig(),
            data_plane=data_plane,
            control_plane=f"context {number}",
            opened=(),
            close=close,
        )

    async def control_plane(self, scope: dict[str, str], receive: object, send: object) -> None:
        if scope["type"] == "lifespan":
            self.served.append(("lifespan", None))
            return
        await self.go_on.wait()
        self.served.append(("control plane", current_context()))

    async def console(self, scope: dict[str, str], receive: object, send: object) -> None:
        self.served.append(("console", current_context()))


def request(path: str) -> dict[str, object]:
    return {"type": "http", "method": "GET", "path": path, "headers": []}


@pytest.mark.parametrize(
    ("path", "plane"),
    [
        ("/v1", "data plane"),
        ("/v1/", "data plane"),
        ("/v1/chat/completions", "data plane"),
        ("/openai/deployments/m/chat/completions", "data plane"),
        ("/v10/models", "control plane"),
        ("/serac/v1/edits", "control plane"),
        ("/health/live", "control plane"),
        ("/", "control plane"),
        ("/console", "console"),
        ("/console/n/default/edits", "console"),
        ("/consoles", "control plane"),
    ],
)
async def test_v1_is_the_data_planes_console_the_consoles_and_every_other_path_the_control_planes(
    path: str, plane: str
) -> None:
    planes = Planes()
    await GatewayApp(Runtimes(planes.runtime(1)), planes.control_plane, planes.console)(
        request(path), None, None
    )
    assert [name for name, _ in planes.served] == [plane]


async def test_lifespan_events_lease_no_runtime_and_go_to_the_control_plane() -> None:
    planes = Planes()
    runtimes = Runtimes(planes.runtime(1))
    await GatewayApp(runtimes, planes.control_plane, planes.console)({"type": "lifespan"}, None, None)
    assert (planes.served, runtimes.current.users) == ([("lifespan", None)], 0)


@pytest.mark.parametrize(
    ("path", "served_by"),
    [
        ("/v1/models", lambda number: ("data plane", number)),
        ("/serac/v1/edits", lambda number: ("control plane", f"context {number}")),
    ],
)
async def test_a_request_is_served_by_the_runtime_it_began_with_which_closes_when_it_has_ended(
    path: str, served_by: Callable[[int], tuple[str, object]]
) -> None:
    planes = Planes()
    runtimes = Runtimes(planes.runtime(1))
    app = GatewayApp(runtimes, planes.control_plane, planes.console)
    planes.go_on.clear()
    early = asyncio.create_task(app(request(path), None, None))
    await asyncio.sleep(0)
    runtimes.replace(planes.runtime(2))
    late = asyncio.create_task(app(request(path), None, None))
    await asyncio.sleep(0)
    assert planes.closed == []
    planes.go_on.set()
    await asyncio.gather(early, late)
    assert planes.served == [served_by(1), served_by(2)]
    await runtimes.close()
    assert planes.closed == [1, 2]


async def test_a_request_that_fails_releases_its_runtime() -> None:
    async def failing(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("broken")

    runtimes = Runtimes(Planes().runtime(1))
    with pytest.raises(RuntimeError, match="broken"):
        await GatewayApp(runtimes, failing, failing)(request("/health/live"), None, None)
    assert runtimes.current.users == 0
    with pytest.raises(LookupError):
        current_context()
