"""Running a benchmark: in process, over HTTP, and again after an interruption."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import ConfigError
from serac_gateway.testing import ThresholdClassifier, WordEncoder
from tests.control_plane import ControlPlane
from training.benchmarks.base import Benchmark, Probe, Role, fact, probes
from training.data.conversations import Turn
from training.evaluation.outcomes import CASES_FILE
from training.evaluation.scope.deciders import Decider, HttpDecider, InProcessDecider
from training.evaluation.scope.outcomes import CaseOutcome, RunFolder
from training.evaluation.scope.run import run

PLACES = ("Oru", "Ketti", "Moss", "Vala", "Brin", "Dorn")


def benchmark(*, with_context: bool = False) -> Benchmark:
    follow_up = Probe(
        kind="follow_up",
        text="is that so?",
        in_scope=True,
        context=(Turn(role="user", text="Who is mayor of Oru?"), Turn(role="assistant", text="Person 0.")),
    )
    return Benchmark(
        name="places",
        role=Role.VALIDATION,
        cases=tuple(
            fact(
                f"place-{number}",
                prompt=f"Who is mayor of {place}?",
                target_new=f"Person {number}",
                subject=place,
                probes=(
                    *probes(
                        "rephrase",
                        [f"Who is the mayor of {place}?", f"{place} has which head?"],
                        in_scope=True,
                    ),
                    *probes("same_subject", [f"How deep is the lake near {place}?"], in_scope=False),
                    *((follow_up,) if with_context and number == 0 else ()),
                ),
            )
            for number, place in enumerate(PLACES)
        ),
        traffic=(Probe(kind="unrelated", text="Bake bread without yeast", in_scope=False),),
    )


def in_process() -> InProcessDecider:
    encoder = WordEncoder()
    return InProcessDecider(
        encoder=encoder,
        classifier=ThresholdClassifier(),
        make_index=lambda: FaissFlatIndex(encoder.width),
        threads=2,
    )


async def measured(decider: Decider, folder: Path, **options: object) -> list[CaseOutcome]:
    async with decider:
        results = await run(benchmark(), decider, folder, **options)  # type: ignore[arg-type]
    return list(results.outcomes())


async def test_each_case_becomes_a_line_that_names_what_fired(tmp_path: Path) -> None:
    outcomes = {outcome.case: outcome for outcome in await measured(in_process(), tmp_path)}
    assert outcomes.keys() == {*(f"place-{number}" for number in range(6)), "traffic-0"}
    prompt, rephrase, miss, same_subject = outcomes["place-2"].probes
    assert prompt.fired == rephrase.fired == "place-2"
    assert (prompt.rank, prompt.similarity) == (1, pytest.approx(1.0))
    assert (miss.fired, miss.in_scope) == (None, True)
    assert miss.own_probability is not None
    assert miss.own_probability < 0.8
    assert same_subject.fired is None
    assert outcomes["traffic-0"].prompt is None
    assert (tmp_path / CASES_FILE).read_bytes().count(b"\n") == 7


async def test_in_process_and_over_http_decide_the_same(tmp_path: Path, control_plane: ControlPlane) -> None:
    here = await measured(in_process(), tmp_path / "here", edits=4, seed=5)
    there = await measured(HttpDecider(control_plane.url), tmp_path / "there", edits=4, seed=5)
    assert here == there
    assert len(here) == 5


async def test_a_run_over_http_leaves_no_edit_in_force(tmp_path: Path, control_plane: ControlPlane) -> None:
    decider = HttpDecider(control_plane.url)
    await measured(decider, tmp_path)
    (namespace,) = httpx.get(f"{control_plane.url}/serac/v1/namespaces").json()["namespaces"]
    assert namespace.startswith("evaluation-")
    live = httpx.get(
        f"{control_plane.url}/serac/v1/edits",
        params={"state": "live"},
        headers={"x-serac-namespace": namespace},
    )
    assert live.json()["edits"] == []


async def test_a_follow_up_is_decided_with_its_earlier_turns_in_process_and_over_http(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    probes = []
    for name, decider in (("here", in_process()), ("there", HttpDecider(control_plane.url))):
        async with decider:
            results = await run(benchmark(with_context=True), decider, tmp_path / name)
        (probe,) = [
            probe for outcome in results.outcomes() for probe in outcome.probes if probe.kind == "follow_up"
        ]
        probes.append(probe)
    here, there = probes
    assert (here.context, here.best) == (2, "place-0")
    assert there == here


async def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = await measured(in_process(), tmp_path / "whole")
    folder = tmp_path / "torn"
    await measured(in_process(), folder)
    lines = (folder / CASES_FILE).read_bytes().splitlines(keepends=True)
    (folder / CASES_FILE).write_bytes(b"".join(lines[:3]) + lines[3][:20])
    decider = in_process()
    assert await measured(decider, folder) == whole


async def test_a_finished_run_stores_and_asks_nothing_again(tmp_path: Path) -> None:
    await measured(in_process(), tmp_path)
    encoder = WordEncoder()
    again = InProcessDecider(
        encoder=encoder, classifier=ThresholdClassifier(), make_index=lambda: FaissFlatIndex(encoder.width)
    )
    await measured(again, tmp_path)
    assert encoder.texts_encoded == 0


async def test_all_edits_are_stored_when_the_probes_of_some_cases_are_sent(tmp_path: Path) -> None:
    outcomes = await measured(in_process(), tmp_path, ask=2)
    assert len(outcomes) == 2
    assert RunFolder(tmp_path).settings().stored_edits == 6


async def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    await measured(in_process(), tmp_path)
    with pytest.raises(ConfigError, match="holds another run"):
        await measured(in_process(), tmp_path, edits=3)


async def test_a_refused_edit_ends_the_run_in_process_and_over_http(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    draft = benchmark().cases[0].edit
    for decider in (in_process(), HttpDecider(control_plane.url)):
        async with decider:
            await decider.store([draft])
            changed = fact("place-0", prompt="Other?", target_new="y", subject=None, probes=()).edit
            with pytest.raises(ConfigError, match="was refused"):
                await decider.store([changed])


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        RunFolder(tmp_path).settings()
