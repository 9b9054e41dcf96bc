"""Tutorial and guides, run as a reader would: each command prints what the page shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.page_blocks import PageReader, blocks, fits

DOCS = Path(__file__).parents[2] / "serac_gateway" / "docs"
PAGES = {"tutorial": 16, "guides": 8}
"""Each with how many of its blocks are run at least."""


@pytest.fixture
def reader(tmp_path: Path, converted_models: Path) -> Iterator[PageReader]:
    reader = PageReader(tmp_path, converted_models)
    yield reader
    reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_prints_what_the_page_shows(page: str, reader: PageReader) -> None:
    steps = [
        block for block in blocks((DOCS / f"{page}.md").read_text("utf-8")) if block.reason_not_run is None
    ]
    assert len(steps) >= PAGES[page]
    assert sum(block.starts_gateway for block in steps) == 1
    problems = [problem for problem in map(reader.problem, steps) if problem is not None]
    assert problems == [], "\n".join(problems)


def test_every_block_that_is_run_shows_more_than_placeholders() -> None:
    for page in PAGES:
        for block in blocks((DOCS / f"{page}.md").read_text("utf-8")):
            assert block.output is None or block.output.replace("…", "").strip(), (page, block.line)


@pytest.mark.parametrize(
    ("output", "printed"),
    [
        ("added mayor version 1\n", "added mayor version 1 \n"),
        ("id … · route base\n", "id req_1 · route base\n"),
        ("…\nlast\n", "first\nsecond\nlast\n"),
        ("…\nlast\n", "last\n"),
        ("a (b) [c] *\n", "a (b) [c] *"),
    ],
)
def test_what_differs_from_run_to_run_fits(output: str, printed: str) -> None:
    assert fits(output, printed)


@pytest.mark.parametrize(
    ("output", "printed"),
    [
        ("added mayor version 1\n", "added mayor version 2\n"),
        ("added mayor\n", "added mayor version 1\n"),
        ("id … · route base\n", "id 1\n2 · route base\n"),
        ("id … · route base\n", "id 1 · route base · more\n"),
        ("first\nlast\n", "first\nsecond\nlast\n"),
        ("first\n", ""),
        ("a.c\n", "abc\n"),
    ],
)
def test_anything_else_does_not(output: str, printed: str) -> None:
    assert not fits(output, printed)


def test_blocks_are_read_with_their_output_and_why_they_are_not_run() -> None:
    page = (
        "# Page\n\n```sh\nserac serve --config a.toml\n```\n\n```text\nserving\n```\n\nWords.\n\n"
        "<!-- not run: needs a key -->\n```sh\nserac ask a\n```\n\n```toml\nx = 1\n```\n\n"
        "```text\nno output\n```\n\n```python\nprint(1)\n```\n"
    )
    start, skipped, program = blocks(page)
    assert (start.line, start.code, start.output) == (3, "serac serve --config a.toml\n", "serving\n")
    assert (start.starts_gateway, program.starts_gateway) == (True, False)
    assert (skipped.reason_not_run, skipped.output) == ("needs a key", None)
    assert (program.language, program.code, program.output) == ("python", "print(1)\n", None)


def test_commands_share_what_is_exported_and_get_the_ids_that_were_printed(tmp_path: Path) -> None:
    reader = PageReader(tmp_path, tmp_path)
    page = (
        "```sh\nexport WORD=shared\necho pr_0123456789abcdef012345\n```\n"
        "```sh\necho $WORD PROPOSAL_ID\n```\n```text\nshared pr_0123456789abcdef012345\n```\n"
        "```sh\necho other\n```\n```text\nanother\n```\n"
        "```sh\necho error: 7; false\n```\n```text\nerror: 7\n```\n"
        "```sh\nfalse; echo not reached\n```\n"
    )
    *steps, failing = blocks(page)
    problems = [reader.problem(block) for block in steps]
    assert [problem is None for problem in problems] == [True, True, False, True]
    assert "another" in str(problems[2])
    with pytest.raises(AssertionError, match="exit code 1"):
        reader.problem(failing)
