"""A request that is sent ahead behaves as one that is sent, or is called off without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from serac_gateway.data_plane.speculation import SpeculativeRequest
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.data_plane.upstream.circuit_breaker import BreakingUpstream
from serac_gateway.errors import UpstreamError

REQUEST = UpstreamRequest(method="POST", target=b"/chat/completions", headers=(), body=b"{}")


async def nothing() -> AsyncIterator[bytes]:
    yield b""


class NotingUpstream(Upstream):
    """Notes how its context is left."""

    def __init__(self) -> None:
        self.left_by: list[str] = []
        self.error: UpstreamError | None = None
        self.may_answer = asyncio.Event()

    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        try:
            await self.may_answer.wait()
            if self.error is not None:
                raise self.error
            yield UpstreamResponse(status=200, headers=(), body=nothing())
        except BaseException as exc:
            self.left_by.append(type(exc).__name__)
            raise
        self.left_by.append("end")

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def upstream() -> NotingUpstream:
    return NotingUpstream()


async def test_what_ends_the_reading_is_thrown_into_the_upstreams_context(upstream: NotingUpstream) -> None:
    upstream.may_answer.set()
    for exc in (ValueError(), asyncio.CancelledError(), UpstreamError("it broke off")):
        with pytest.raises(type(exc)):
            async with SpeculativeRequest(upstream, REQUEST):
                raise exc
    async with SpeculativeRequest(upstream, REQUEST) as response:
        assert response.status == 200
    assert upstream.left_by == ["ValueError", "CancelledError", "UpstreamError", "end"]


async def test_an_error_waits_for_who_wants_the_reply(upstream: NotingUpstream) -> None:
    upstream.may_answer.set()
    upstream.error = UpstreamError("it cannot be reached")
    ahead = SpeculativeRequest(upstream, REQUEST)
    await asyncio.sleep(0.01)
    with pytest.raises(UpstreamError) as caught:
        async with ahead:
            pytest.fail("there is no reply")
    assert caught.value is upstream.error
    assert ahead.outcome == "used"


@pytest.mark.parametrize("answers", [False, True])
async def test_who_is_cancelled_waiting_for_the_reply_leaves_nothing_open(
    upstream: NotingUpstream, answers: bool
) -> None:
    async def read() -> None:
        async with SpeculativeRequest(upstream, REQUEST):
            pytest.fail("the reply was not waited for")

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    if answers:  # at that very moment: the reply is there, and not yet with its reader
        upstream.may_answer.set()
        while any(task.get_name() == "speculative-request" for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert upstream.left_by == ["end" if answers else "CancelledError"]


@pytest.mark.parametrize("answers", [False, True])
async def test_calling_off_ends_it_once_whether_the_reply_has_come_or_not(
    upstream: NotingUpstream, answers: bool
) -> None:
    if answers:
        upstream.may_answer.set()
    ahead = SpeculativeRequest(upstream, REQUEST)
    await asyncio.sleep(0.01)
    assert (ahead.answered is not None) == answers
    for _ in range(2):
        await ahead.cancel()
    assert upstream.left_by == ["end" if answers else "CancelledError"]
    assert ahead.outcome == "called off"


async def test_what_is_used_is_not_called_off(upstream: NotingUpstream) -> None:
    upstream.may_answer.set()
    ahead = SpeculativeRequest(upstream, REQUEST)
    async with ahead:
        await ahead.cancel()
        assert upstream.left_by == []
    assert ahead.outcome == "used"


async def test_a_failure_that_is_called_off_is_not_reported_as_forgotten(
    upstream: NotingUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.may_answer.set()
    upstream.error = UpstreamError("it cannot be reached")
    ahead = SpeculativeRequest(upstream, REQUEST)
    await asyncio.sleep(0.01)
    await ahead.cancel()
    del ahead
    await asyncio.sleep(0.01)
    assert not caplog.records


async def test_a_trial_of_a_failing_server_that_is_called_off_leaves_the_next_request_to_try(
    upstream: NotingUpstream,
) -> None:
    breaking = BreakingUpstream(upstream, name="m", failures=1, pause_s=0.0)
    upstream.may_answer.set()
    upstream.error = UpstreamError("it cannot be reached")
    with pytest.raises(UpstreamError):
        async with SpeculativeRequest(breaking, REQUEST):
            pytest.fail("there is no reply")
    upstream.may_answer.clear()
    upstream.error = None
    trial = SpeculativeRequest(breaking, REQUEST)
    await asyncio.sleep(0.01)
    with pytest.raises(UpstreamError, match="left alone"):
        async with SpeculativeRequest(breaking, REQUEST):
            pytest.fail("it is left alone")
    await trial.cancel()
    assert breaking.is_open
    upstream.may_answer.set()
    async with SpeculativeRequest(breaking, REQUEST) as response:
        assert response.status == 200
    assert not breaking.is_open
