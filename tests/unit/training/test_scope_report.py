"""From outcomes to numbers, tables and pages."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from training.evaluation.outcomes import RunSettings
from training.evaluation.scope.outcomes import CaseOutcome, ProbeOutcome, RunFolder
from training.evaluation.scope.report import result_rows, write_report
from training.evaluation.scope.summary import Summary, curve_of, summarise


def probe(kind: str, fired: str | None, *, in_scope: bool, **fields: object) -> ProbeOutcome:
    return msgspec.convert(
        {
            "kind": kind, "text": f"{kind} <query> | x", "in_scope": in_scope, "fired": fired, "best": fired,
            "scope_probability": 0.9 if fired else 0.1, **fields,
        },
        ProbeOutcome,
    )  # fmt: skip


def outcome(case: str, *probes: ProbeOutcome, **fields: object) -> CaseOutcome:
    return msgspec.convert(
        {"case": case, "prompt": f"{case}?", "target_new": "t", "probes": probes, **fields}, CaseOutcome
    )


OUTCOMES = [
    outcome(
        "a",
        probe("prompt", "a", in_scope=True, rank=1),
        probe("rephrase", "a", in_scope=True, rank=1, own_probability=0.9),
        probe("neighbour", None, in_scope=False),
        relation="P36",
    ),
    outcome(
        "b",
        probe("prompt", "b", in_scope=True, rank=1),
        probe("rephrase", "a", in_scope=True, rank=2, own_probability=0.5),
        probe("neighbour", "b", in_scope=False),
        relation="P17",
    ),
    outcome(
        "c",
        probe("prompt", "c", in_scope=True, rank=1),
        probe("rephrase", None, in_scope=True),
        probe("neighbour", "a", in_scope=False, contested=True),
    ),
]


def test_a_hit_needs_the_right_edit_and_contested_negatives_do_not_count() -> None:
    summary = summarise(OUTCOMES)
    assert (summary.edit_success.count, summary.edit_success.total) == (3, 3)
    assert (summary.hit.count, summary.hit.total) == (1, 3)
    assert (summary.wrong_edit.count, summary.wrong_edit.total) == (1, 6)
    assert (summary.no_fire.count, summary.no_fire.total) == (1, 2)
    assert (summary.no_fire_with_contested.count, summary.no_fire_with_contested.total) == (1, 3)
    assert summary.harmonic.value == pytest.approx(2 * (1 / 3) * 0.5 / (1 / 3 + 0.5))
    assert summary.harmonic.low <= summary.harmonic.value <= summary.harmonic.high
    assert (summary.recall_at_1.count, summary.recall_at_8.count) == (1, 2)


def test_a_rival_that_fires_is_a_hit_but_not_the_cases_own() -> None:
    probes = probe("rephrase", "b", in_scope=True)
    summary = summarise([outcome("a", probes, rivals=("b",)), outcome("b")])
    assert (summary.hit.count, summary.hit_own.count, summary.wrong_edit.count) == (1, 0, 0)


def test_generation_prompts_count_in_no_rate_but_are_reported() -> None:
    probes = probe("rephrase", "a", in_scope=True), probe("generation", None, in_scope=True)
    summary = summarise([outcome("a", *probes)])
    assert (summary.hit.count, summary.hit.total, summary.harmonic.value) == (1, 1, 1.0)
    assert {kind.kind: kind.right.total for kind in summary.kinds} == {"generation": 1, "rephrase": 1}


def test_without_rephrased_probes_the_prompt_itself_counts_for_the_harmonic_mean() -> None:
    summary = summarise(
        [outcome("a", probe("prompt", "a", in_scope=True), probe("same_subject", None, in_scope=False))]
    )
    assert summary.harmonic.value == 1.0
    assert math.isnan(summarise([]).harmonic.value)


def test_traffic_alone_is_summed_up_by_its_no_fire_rate() -> None:
    summary = summarise(
        [
            outcome(f"t{number}", probe("unrelated", None if number else "a", in_scope=False))
            for number in range(4)
        ]
    )
    assert summary.harmonic.value == summary.no_fire.value == 0.75


def test_the_curve_begins_with_no_fire_at_all_and_ends_with_everything_firing() -> None:
    first, *_, last = curve_of(OUTCOMES)
    assert (first.hit, first.false_fire) == (0.0, 0.0)
    assert (last.hit, last.false_fire) == (pytest.approx(1 / 3), 1.0)


@pytest.fixture
def results(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.begin(
        RunSettings(
            benchmark="places", role="validation", path=None, edits=None, seed=0,
            decider={"decider": "in process", "classifier": "fake"}, stored_edits=3, left_out=0,
        )
    )  # fmt: skip
    folder.append(OUTCOMES)
    return folder


class Page(HTMLParser):
    """What a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_holds_its_plots_itself_and_escapes_queries(results: RunFolder) -> None:
    text = write_report(results).html.read_text("utf-8")
    page = Page()
    page.feed(text)
    images = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 1
    assert images[0].startswith("data:image/png;base64,iVBOR")
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "query"})
    assert "neighbour &lt;query&gt;" in text


def test_the_markdown_holds_settings_numbers_held_out_relations_and_the_worst_errors(
    results: RunFolder,
) -> None:
    text = write_report(results).markdown.read_text("utf-8")
    assert "| classifier | fake |" in text
    assert "| hit, the case's own edit | 0.3333" in text
    assert "## Held-out relations only" in text
    assert "neighbour <query> \\| x | b? → t |" in text
    misses = text.split("## Worst misses")[1]
    assert misses.index("| – | – | rephrase") < misses.index("| 0.500 | 2 | rephrase")


def test_the_numbers_are_written_as_json_too(results: RunFolder) -> None:
    report = write_report(results)
    assert msgspec.json.decode((results.folder / "summary.json").read_bytes(), type=Summary) == report.summary
    head, row = result_rows([(results.settings(), report.summary)])
    assert dict(zip(head, row, strict=True))["hit"] == "0.3333 (3)"
