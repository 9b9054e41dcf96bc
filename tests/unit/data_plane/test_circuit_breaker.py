"""When a server is left alone, and how it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.data_plane.upstream.circuit_breaker import BreakingUpstream
from serac_gateway.errors import UpstreamError, UpstreamTimeoutError, error_headers

REQUEST = UpstreamRequest(method="GET", target=b"/models", headers=(), body=b"")


async def nothing() -> AsyncIterator[bytes]:
    yield b""


class FlakyUpstream(Upstream):
    """Fails with `error` while it is set."""

    def __init__(self) -> None:
        self.error: UpstreamError | None = None
        self.status = 200
        self.requests_received = 0
        self.closed = False
        self.held: asyncio.Event | None = None
        """Answers wait for it."""

    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        self.requests_received += 1
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        yield UpstreamResponse(status=self.status, headers=(), body=nothing())

    async def close(self) -> None:
        self.closed = True


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def ask(upstream: Upstream) -> int:
    async with upstream.send(REQUEST) as response:
        return response.status


@pytest.fixture
def flaky() -> FlakyUpstream:
    return FlakyUpstream()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaking(flaky: FlakyUpstream, clock: Clock) -> BreakingUpstream:
    return BreakingUpstream(flaky, name="vllm", failures=3, pause_s=5.0, clock=clock)


async def fail(breaking: BreakingUpstream, flaky: FlakyUpstream, times: int) -> None:
    flaky.error = UpstreamTimeoutError("too late")
    for _ in range(times):
        with pytest.raises(UpstreamTimeoutError):
            await ask(breaking)


async def test_after_failures_in_a_row_it_is_not_asked(
    breaking: BreakingUpstream, flaky: FlakyUpstream
) -> None:
    await fail(breaking, flaky, 3)
    with pytest.raises(UpstreamError, match=r"'vllm' gave no answer 3 times in a row .* for 5 s") as refused:
        await ask(breaking)
    assert refused.value.details == {"kind": "circuit open", "retry_after_s": 5}
    assert error_headers(502, refused.value.details) == {"retry-after": "5"}
    assert (flaky.requests_received, breaking.is_open) == (3, True)


async def test_an_answer_between_failures_starts_the_count_anew(
    breaking: BreakingUpstream, flaky: FlakyUpstream
) -> None:
    await fail(breaking, flaky, 2)
    flaky.error, flaky.status = None, 500
    assert await ask(breaking) == 500  # the server lives, whatever it says
    await fail(breaking, flaky, 2)
    assert not breaking.is_open


async def test_after_the_pause_one_request_tries_it(
    breaking: BreakingUpstream, flaky: FlakyUpstream, clock: Clock
) -> None:
    await fail(breaking, flaky, 3)
    clock.now_s = 5.1
    flaky.error, flaky.held = None, asyncio.Event()
    trying = asyncio.create_task(ask(breaking))
    await asyncio.sleep(0)
    with pytest.raises(UpstreamError, match="left alone"):  # the others are refused until it has an answer
        await ask(breaking)
    flaky.held.set()
    assert await trying == 200
    assert not breaking.is_open
    assert await ask(breaking) == 200


async def test_a_try_that_is_given_up_lets_another_one_try(
    breaking: BreakingUpstream, flaky: FlakyUpstream, clock: Clock
) -> None:
    await fail(breaking, flaky, 3)
    clock.now_s = 5.1
    flaky.error, flaky.held = None, asyncio.Event()
    trying = asyncio.create_task(ask(breaking))
    await asyncio.sleep(0)
    trying.cancel()
    await asyncio.wait([trying])
    flaky.held.set()
    assert await ask(breaking) == 200


async def test_a_try_that_fails_pauses_again_and_is_logged_once(
    breaking: BreakingUpstream, flaky: FlakyUpstream, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await fail(breaking, flaky, 3)
    clock.now_s = 5.1
    await fail(breaking, flaky, 1)
    with pytest.raises(UpstreamError, match="left alone"):
        await ask(breaking)
    clock.now_s = 10.3
    flaky.error = None
    assert await ask(breaking) == 200
    assert [record.message for record in caplog.records] == [
        "upstream vllm gave no answer 3 times in a row: left alone",
        "upstream vllm answers again",
    ]


async def test_a_request_that_cannot_be_sent_says_nothing_of_the_server(
    breaking: BreakingUpstream, flaky: FlakyUpstream
) -> None:
    flaky.error = UpstreamError("a header", details={"kind": "not sendable"})
    for _ in range(9):
        with pytest.raises(UpstreamError, match="a header"):
            await ask(breaking)
    assert not breaking.is_open


async def test_it_closes_what_it_took_over(breaking: BreakingUpstream, flaky: FlakyUpstream) -> None:
    await breaking.close()
    assert flaky.closed
