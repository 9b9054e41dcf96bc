"""Overload: three times the in-scope requests that a gateway can answer, beside other traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from serac_gateway.cli.bench import workload
from serac_gateway.cli.bench.load import OpenLoop, Request, open_loop, saturated
from serac_gateway.cli.bench.wire import Target

_TIMES = 3.0
_PASSED_PER_SECOND = 50.0
_OUT_OF_SCOPE_PER_SECOND = 20.0
_MAX_TOKENS = 16


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic that the overload must not slow down: measured alone and during the overload."""

    name: str
    alone: OpenLoop
    during: OpenLoop


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """Three times the in-scope requests that can be answered, beside other traffic."""

    answers_per_second: float
    """The saturated rate of answers, measured before."""
    in_scope: OpenLoop
    """Its `by_route` counts answers of the counterfactual model, and requests shed to the upstream."""
    beside: list[Beside]


async def overload(
    edited: Target,
    unedited: Target,
    everyday: Callable[[Target, int], bytes],
    *,
    edits: int,
    seconds: float,
) -> Overload:
    """Overload the answers of `edited`, a namespace of a gateway; `unedited` is one without edits.

    Raises:
        BenchError: The gateway is not reached.
    """
    prompts = [edit["prompt"] for edit in workload.edits(min(edits, 200))]

    def in_scope(number: int) -> bytes:
        return edited.chat(prompts[number % len(prompts)], max_tokens=_MAX_TOKENS)

    traffic: list[tuple[str, Target, Request, float]] = [
        ("no edits", unedited, lambda number: everyday(unedited, number), _PASSED_PER_SECOND),
        ("out of scope", edited, lambda number: everyday(edited, number), _OUT_OF_SCOPE_PER_SECOND),
    ]

    async def beside(seconds: float) -> list[OpenLoop]:
        return await asyncio.gather(
            *(open_loop(target, ask, per_second=rate, seconds=seconds) for _, target, ask, rate in traffic)
        )

    answered = await saturated(edited, in_scope, connections=2, seconds=seconds)
    alone = await beside(seconds)
    shed, during = await asyncio.gather(
        open_loop(
            edited, in_scope, per_second=_TIMES * answered.per_second, seconds=2 * seconds, seed=1,
            timeout_s=120.0,
        ),
        beside(2 * seconds),
    )  # fmt: skip
    return Overload(
        answers_per_second=answered.per_second,
        in_scope=shed,
        beside=[
            Beside(name=name, alone=before, during=after)
            for (name, *_), before, after in zip(traffic, alone, during, strict=True)
        ],
    )
