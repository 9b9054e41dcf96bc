"""One request and its response, against a server whose events a test decides (cases 8 to 10)."""

from __future__ import annotations

import asyncio

import pytest

from serac_gateway.data_plane.exchange import Exchange


class Server:
    """Gives a whole request, and reports a disconnect when the response is complete or when `gone` is set."""

    def __init__(self) -> None:
        self.sent: list[dict] = []
        self.gone = asyncio.Event()
        self._messages = [{"type": "http.request", "body": b"body", "more_body": False}]

    async def receive(self) -> dict:
        if self._messages:
            return self._messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.gone.set()

    def exchange(self) -> Exchange:
        scope = {"type": "http", "method": "POST", "headers": [], "state": {}}
        return Exchange(scope, self.receive, self.send)


async def test_a_response_that_is_complete_is_not_taken_for_a_client_that_left() -> None:
    server = Server()
    async with server.exchange() as exchange:
        assert await exchange.read_body(100) == b"body"
        await exchange.respond(200, [], b"{}")
        await asyncio.sleep(0.01)
    assert not exchange.client_left
    assert [message["type"] for message in server.sent] == ["http.response.start", "http.response.body"]


async def test_a_client_that_leaves_ends_the_work_quietly() -> None:
    server = Server()
    async with server.exchange() as exchange:
        await exchange.read_body(100)
        server.gone.set()
        await asyncio.sleep(10)
        raise AssertionError("the work went on")
    assert exchange.client_left
    await asyncio.sleep(0)  # and the task itself is not cancelled


async def test_a_task_that_someone_else_cancels_is_cancelled() -> None:
    server = Server()

    async def work() -> None:
        async with server.exchange() as exchange:
            await exchange.read_body(100)
            await asyncio.sleep(10)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    server.gone.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_inside_is_not_hidden_by_a_client_that_left() -> None:
    server = Server()

    async def fail_while_cleaning_up() -> None:
        async with server.exchange() as exchange:
            await exchange.read_body(100)
            server.gone.set()
            try:
                await asyncio.sleep(10)
            finally:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_while_cleaning_up()
