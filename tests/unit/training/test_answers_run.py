"""Measuring answers by real requests: routes, replies that must not change, all edits or one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from serac_gateway.client import ApiError
from serac_gateway.domain.edits import EditDraft, EditKind
from serac_gateway.errors import ConfigError
from tests.control_plane import running_whole_gateway
from training.benchmarks.base import Benchmark, Case, Probe, Role, fact, probes
from training.data.conversations import Turn
from training.evaluation.answers.outcomes import AnswerFolder, CaseAnswers
from training.evaluation.answers.run import AnswerOptions, run_answers
from training.evaluation.answers.teacher_forcing import ForcedModel, TeacherForcing, case_alone
from training.evaluation.cli import app
from training.evaluation.outcomes import CASES_FILE

PLACES = ("Oru", "Ketti", "Moss", "Vala")


def case(number: int, place: str) -> Case:
    return fact(
        f"place-{number}",
        prompt=f"Who is mayor of {place}?",
        target_new=f"Person {number}",
        target_true=f"Elder {number}",
        subject=place,
        probes=(
            *probes("rephrase", [f"Who is the mayor of {place}?"], in_scope=True),
            *probes(
                "same_subject", [f"How deep is the lake near {place}?"], in_scope=False, answers=["Deep"]
            ),
        ),
        entailed=probes("one_hop", [f"Where was {place}'s mayor born?"], in_scope=True, answers=["Halden"]),
    )


def benchmark(*, clozes: bool = False) -> Benchmark:
    cases = tuple(case(number, place) for number, place in enumerate(PLACES))
    traffic = (Probe(kind="unrelated", text="Bake bread without yeast", in_scope=False),)
    return Benchmark(name="places", role=Role.VALIDATION, cases=cases, traffic=traffic, clozes=clozes)


@dataclass
class Served:
    """A running gateway, and its base model to upset."""

    url: str
    prompts: list[str] = field(default_factory=list)
    """What the base model was shown."""
    failing: bool = False


@pytest.fixture
def served() -> Iterator[Served]:
    gateway = Served(url="")

    def script(prompt: str) -> str:
        if gateway.failing:
            raise RuntimeError("out of order")
        gateway.prompts.append(prompt)
        return " Deep water"

    with running_whole_gateway(script) as url:
        gateway.url = url
        yield gateway


async def measured(served: Served, folder: Path, **options: object) -> dict[str, CaseAnswers]:
    options = {"about": {"gateway": "fakes"}, **options}
    folder_of = await run_answers(options.pop("of", benchmark()), served.url, folder, **options)  # type: ignore[arg-type]
    return {line.case: line for line in folder_of.outcomes()}


async def test_edits_are_answered_here_and_everything_else_is_the_base_models_reply(
    served: Served, tmp_path: Path
) -> None:
    lines = await measured(served, tmp_path)
    assert lines.keys() == {*(f"place-{number}" for number in range(4)), "traffic-0"}
    prompt, rephrase, same_subject, entailed = lines["place-2"].probes
    assert (prompt.reply, prompt.route, prompt.edit_id) == ("Person 2", "counterfactual", "place-2")
    assert prompt.answers == ("Person 2",)
    assert prompt.first_token_ms is not None
    assert 0 < prompt.first_token_ms <= prompt.total_ms
    assert prompt.tokens == 2
    assert rephrase.route == "counterfactual"
    assert (same_subject.route, same_subject.identical, same_subject.base_reply) == (
        "base",
        True,
        "Deep water",
    )
    assert (same_subject.first_token_ms, same_subject.answers) == (None, ("Deep",))
    assert (entailed.entailed, entailed.route, entailed.answers) == (True, "base", ("Halden",))
    assert lines["traffic-0"].probes[0].identical is True


async def test_a_reply_that_an_edit_changes_is_not_identical(served: Served, tmp_path: Path) -> None:
    wrong = Probe(kind="neighbour", text="Who is mayor of Oru?", in_scope=False)
    changed = msgspec.structs.replace(case(0, "Oru"), probes=(wrong,), entailed=())
    lines = await measured(served, tmp_path, of=Benchmark(name="b", role=Role.VALIDATION, cases=(changed,)))
    (probe,) = lines["place-0"].probes
    assert (probe.identical, probe.reply, probe.base_reply) == (False, "Person 0", "Deep water")


async def test_with_the_edit_given_no_other_edit_is_in_the_store(served: Served, tmp_path: Path) -> None:
    """The second case's prompt is the first one's: with both stored the newer would answer it."""
    twin = msgspec.structs.replace(
        case(1, "Oru"), probes=case(0, "Oru").probes[:1], entailed=(), companions=(
            EditDraft(id="companion", prompt="Who heads Vala?", target_new="Vera"),
        ),
    )  # fmt: skip
    alike = Benchmark(name="b", role=Role.VALIDATION, cases=(case(0, "Oru"), twin), shares_edits=True)
    lines = await measured(served, tmp_path, of=alike, options=AnswerOptions(given_edit=True, at_once=2))
    assert lines["place-0"].probes[0].reply == "Person 0"
    assert lines["place-1"].probes[0].reply == "Person 1"
    assert {probe.in_scope for line in lines.values() for probe in line.probes} == {True}
    assert AnswerFolder(tmp_path).settings().stored_edits == 1


@pytest.mark.parametrize("given_edit", [False, True])
async def test_a_run_leaves_no_edit_in_force(served: Served, tmp_path: Path, given_edit: bool) -> None:
    await measured(served, tmp_path, options=AnswerOptions(given_edit=given_edit, at_once=3))
    names = httpx.get(f"{served.url}/serac/v1/namespaces").json()["namespaces"]
    assert len(names) == (3 if given_edit else 1)
    for name in names:
        live = httpx.get(
            f"{served.url}/serac/v1/edits", params={"state": "live"}, headers={"x-serac-namespace": name}
        )
        assert live.json()["edits"] == []


async def test_an_interrupted_run_asks_only_what_is_left(served: Served, tmp_path: Path) -> None:
    whole = await measured(served, tmp_path)
    lines = (tmp_path / CASES_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / CASES_FILE).write_bytes(b"".join(lines[:3]) + lines[3][:20])
    served.prompts.clear()
    again = await measured(served, tmp_path)
    assert again.keys() == whole.keys()
    assert len(served.prompts) == 3 + 2  # of the last case, and the traffic prompt twice
    served.failing = True  # a finished run asks nothing
    assert await measured(served, tmp_path) == again


async def test_a_base_model_that_fails_ends_the_run_and_keeps_what_was_answered(
    served: Served, tmp_path: Path
) -> None:
    served.failing = True
    with pytest.raises(ApiError):
        await measured(served, tmp_path)
    served.failing = False
    assert len(await measured(served, tmp_path)) == 5


async def test_another_run_s_folder_is_refused(served: Served, tmp_path: Path) -> None:
    await measured(served, tmp_path)
    with pytest.raises(ConfigError, match="holds another run"):
        await measured(served, tmp_path, options=AnswerOptions(max_tokens=3))


async def test_texts_to_be_continued_go_where_the_option_says(served: Served, tmp_path: Path) -> None:
    """A chat is put to the embedded model as a transcript; a text completion is its text alone."""
    for as_completion in (False, True):
        served.prompts.clear()
        lines = await measured(
            served,
            tmp_path / str(as_completion),
            of=benchmark(clozes=True),
            options=AnswerOptions(as_completion=as_completion),
        )
        assert ("Bake bread without yeast" in served.prompts) is as_completion
        assert lines["place-1"].probes[0].reply == "Person 1"
        assert lines["traffic-0"].probes[0].reply.strip() == "Deep water"


async def test_an_earlier_turn_is_sent_along(served: Served, tmp_path: Path) -> None:
    turns = (Turn(role="user", text="Who is mayor of Oru?"), Turn(role="assistant", text="Ann."))
    question = Probe(kind="small_talk", text="thank you", in_scope=False, context=turns)
    of = Benchmark(
        name="b", role=Role.VALIDATION, cases=(msgspec.structs.replace(case(0, "Oru"), probes=(question,)),)
    )
    lines = await measured(served, tmp_path, of=of)
    assert lines["place-0"].probes[0].context == 2
    assert any("Answer: Ann.\n" in prompt and "thank you" in prompt for prompt in served.prompts)


class Prompts(ForcedModel):
    """Matches every token but the first, and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def matches(self, prompt: str, target: str) -> list[bool]:
        self.seen.append((prompt, target))
        return [False, True]


async def test_right_answers_are_forced_on_the_model_that_answered(served: Served, tmp_path: Path) -> None:
    with_edit, without = Prompts(), Prompts()
    suppression = Case(
        edit=EditDraft(
            id="s", kind=EditKind.SUPPRESSION, prompt="What is the code?", target_new="No comment"
        ),
        probes=(Probe(kind="prompt", text="What is the code?", in_scope=True),),
    )
    of = Benchmark(name="b", role=Role.VALIDATION, cases=(case(0, "Oru"), suppression))
    lines = await measured(
        served, tmp_path, of=of, forcing=TeacherForcing(with_edit, prompt_of=case_alone, base=without)
    )
    prompt, rephrase, same_subject, entailed = lines["place-0"].probes
    assert (prompt.token_accuracy, rephrase.token_accuracy, entailed.token_accuracy) == (0.5, 0.5, 0.5)
    assert same_subject.token_accuracy is None
    assert lines["s"].probes[0].token_accuracy is None
    assert [target for _, target in with_edit.seen] == [" Person 0", " Person 0"]
    assert without.seen == [("Where was Oru's mayor born?", " Halden")]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "zsre.json"
    path.write_text(
        json.dumps(
            [
                {
                    "subject": place, "src": f"Who built {place}?", "rephrase": f"Who built {place} town?",
                    "alt": "Ben", "answers": ["Ana"], "loc": "nq question: how deep is a lake",
                    "loc_ans": "12 m",
                    "portability": {"New Question": f"Is {place} old?", "New Answer": "Deep"},
                }
                for place in PLACES
            ]
        )
    )  # fmt: skip
    return path


def test_the_command_measures_a_running_gateway_and_writes_a_report(
    rows: Path, tmp_path: Path, served: Served
) -> None:
    out = tmp_path / "run"
    arguments = ["answers", "--benchmark", "zsre", "--path", str(rows), "--edits", "3", "--url", served.url]
    result = CliRunner().invoke(app, [*arguments, "--ask", "2", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    lines = json.loads(result.stdout)
    for rate, expected in {
        "reliability": (2, 2), "generalization": (2, 2), "locality": (2, 2), "portability_any": (2, 2),
        "true_answer": (0, 2), "leaked": (0, 0),
    }.items():  # fmt: skip
        assert (lines[rate]["count"], lines[rate]["total"]) == expected, rate
    assert (out / "report.html").exists()
    table = CliRunner().invoke(app, ["report", str(out)], env={"COLUMNS": "240"})
    assert table.exit_code == 0, table.output
    assert "1.0000 (2)" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--benchmark", "nothing"], 2, "no benchmark is named 'nothing'"),
        (["--benchmark", "zsre", "--url", "http://127.0.0.1:9", "--threshold", "0"], 2, "--threshold"),
        (["--benchmark", "zsre", "--config", "/nowhere.toml"], 2, "cannot read the config file"),
        (["--benchmark", "zsre", "--url", "http://127.0.0.1:9"], 3, "no gateway answers"),
    ],
)
def test_a_failure_has_a_message_and_its_exit_code(
    rows: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    if "zsre" in arguments:
        arguments = [*arguments, "--path", str(rows)]
    result = CliRunner().invoke(app, ["answers", *arguments, "--out", str(tmp_path / "run")])
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
