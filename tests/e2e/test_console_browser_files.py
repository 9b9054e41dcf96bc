"""The console in a real browser: files in and out, changes to several edits, near misses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from serac_gateway.console.uploads import MAX_UPLOAD_BYTES
from tests.e2e.console_browser import (
    ATTACK,
    CHROMIUM,
    check_accessible,
    photographed,
    running_chromium,
    watched,
)
from tests.http.four_eyes import DRAFT, People, running_people

LAB = {"x-serac-namespace": "lab"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with running_people() as people:
        yield people


@pytest.fixture(scope="module")
def browser(people: People) -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def edit_id(people: People) -> str:
    """An edit that no test changes."""
    reply = people.call(people.ann, "POST", "/edits", json=DRAFT | {"reason": "Elected"}, headers=LAB)
    return str(reply.json()["id"])


def test_several_edits_get_a_day_of_review_and_are_listed_as_due(browser: Browser, people: People) -> None:
    """All of the page are picked with one box; the list is filtered as one chooses."""
    for number in range(3):
        draft = {"prompt": f"Who is {number}? {ATTACK}", "target_new": ATTACK}
        people.call(people.ann, "POST", "/edits", json=draft, headers={"x-serac-namespace": "bulk"})
    with watched(browser, people, people.ann) as page:
        page.goto("/console/n/bulk/edits")
        page.get_by_label("Pick all on this page").check()
        check_accessible(page)
        photographed(page, "edits-picked")
        page.get_by_role("button", name="Go on").click()
        page.get_by_label("Review by").fill("2026-01-31")
        page.get_by_label("Reason").fill(ATTACK)
        page.get_by_label("Ticket").fill(ATTACK)
        check_accessible(page)
        photographed(page, "bulk")
        page.get_by_role("button", name="Set the day of review").click()
        expect(page.get_by_text("Done: 3, proposed: 0, refused: 0.")).to_be_visible()
        assert page.locator("main img, main script, main b").count() == 0
        page.goto("/console/n/bulk/edits")
        with page.expect_response(re.compile("due=0")):
            page.get_by_label("Review due").select_option("Now")
        expect(page.locator("#results tbody tr")).to_have_count(3)
        page.get_by_label("Kind").select_option("Instruction")
        expect(page.locator("#results")).to_contain_text("No edit fits.")


def test_a_near_miss_is_judged(browser: Browser, people: People, edit_id: str) -> None:
    """From the page about traffic, with one click."""
    chat = {"model": "m", "messages": [{"role": "user", "content": f"{DRAFT['prompt']} today?"}]}
    people.locked.call(people.ann, "POST", "/v1/chat/completions", json=chat, headers=LAB)
    with watched(browser, people, people.ann) as page:
        page.goto("/console/n/lab/traffic")
        check_accessible(page)
        photographed(page, "traffic")
        page.get_by_role("button", name="Right").first.click()
        expect(page.get_by_role("status")).to_contain_text("it is noted")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_file_is_checked_and_imported(browser: Browser, people: People, scripts: bool) -> None:
    """With a table of failed lines; markup runs nowhere, not even in a file's name."""
    name = f"import-{scripts}".lower()
    attack = ATTACK.replace('"', '""')
    content = f'prompt,target_new,subject\nWho runs {name}?,Ada,\n"{attack}",,x\n'
    file = {"name": "<img src=x onerror=alert(1)>.csv", "mimeType": "text/csv", "buffer": content.encode()}
    with watched(browser, people, people.ann, java_script_enabled=scripts) as page:
        page.goto(f"/console/n/{name}/edits")
        page.get_by_role("link", name="Import").click()
        page.locator("#f-file").set_input_files(file)
        page.get_by_label("Reason").fill("List of March")
        page.get_by_role("button", name="Check the file").click()
        expect(page.get_by_role("button", name="Import 1")).to_be_visible()
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("#said")).to_contain_text("Nothing has been imported yet")
        assert page.locator("main img, main script, main b").count() == 0
        if scripts:
            check_accessible(page)
            photographed(page, "import-checked")
        page.get_by_role("button", name="Import 1").click()
        expect(page.locator("#said")).to_have_text("The import has ended.")
        assert [edit["reason"] for edit in people.edits(name).values()] == ["List of March"]
        page.get_by_role("link", name="Edits").last.click()
        with page.expect_download() as download:
            page.get_by_role("link", name="CSV").click()
        assert download.value.suggested_filename == f"{name}-edits.csv"


def test_a_file_that_is_too_large_is_refused_by_the_page_and_by_the_gateway(
    browser: Browser, people: People, tmp_path: Path
) -> None:
    """Before it is sent where there is JavaScript, else in words once it is sent."""
    huge = tmp_path / "huge.csv"
    huge.write_bytes(b"x" * (MAX_UPLOAD_BYTES + 1))
    for scripts in (True, False):
        with watched(browser, people, people.ann, java_script_enabled=scripts) as page:
            page.goto("/console/n/lab/import")
            page.locator("#f-file").set_input_files(huge)
            page.get_by_role("button", name="Check the file").click()
            if scripts:
                problem = page.locator("#f-file").evaluate("input => input.validationMessage")
                assert "larger than 16 MiB" in problem
            else:
                expect(page.locator("main")).to_contain_text("larger than 16 MiB")
