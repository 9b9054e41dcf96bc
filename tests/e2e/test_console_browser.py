"""The console in a real browser: each page's main story, the policy, attacks, a phone, no JavaScript, axe.

Every page is watched: no script error, no message in the console, no violation of the policy, no request to
another origin. Screenshots go to the folder that SERAC_SCREENSHOTS names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.console_browser import (
    ATTACK,
    CHROMIUM,
    check_accessible,
    photographed,
    running_chromium,
    watched,
)
from tests.http.four_eyes import DRAFT, PausingModel, People, running_people

LAB = {"x-serac-namespace": "lab"}
PAGES = ("try", "new", "edits", "import", "proposals", "log", "traffic", "health")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with running_people() as people:
        yield people


@pytest.fixture(scope="module")
def pausing_model() -> PausingModel:
    return PausingModel("Low <img src=x>tide, then high")


@pytest.fixture(scope="module")
def listeners(pausing_model: PausingModel) -> Iterator[People]:
    """People at a gateway of that base model."""
    with running_people(base_model=pausing_model) as people:
        yield people


@pytest.fixture(scope="module")
def browser(people: People, listeners: People) -> Iterator[Browser]:
    """After the gateways: Playwright keeps an event loop running in this thread."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def edit_id(people: People) -> str:
    """An edit that no test changes."""
    reply = people.call(people.ann, "POST", "/edits", json=DRAFT | {"reason": "Elected"}, headers=LAB)
    return str(reply.json()["id"])


def test_an_edit_is_made_with_a_live_preview_and_found_while_typing(
    browser: Browser, people: People, edit_id: str
) -> None:
    """The main story of the editor."""
    with watched(browser, people, people.ann) as page:
        page.goto("/console/n/lab/edits")
        page.get_by_role("link", name="New edit").click()
        page.get_by_label("Question").fill("Who runs the harbour office of Marrowby?")
        page.get_by_label("Answer (required)").fill("Somebody else")
        expect(page.locator("#preview")).to_contain_text("contradicts stored edits: 1")
        page.get_by_label("Question").fill("What does a day pass for the Quillon Museum cost?")
        expect(page.locator("#preview")).to_contain_text("contradicts no stored edit")
        expect(page.locator("#preview")).to_contain_text("captured")
        page.get_by_label("Reason").fill("New prices")
        photographed(page, "new-edit")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("status")).to_contain_text("The edit is in force.")
        page.goto("/console/n/lab/edits")
        page.get_by_label("Search", exact=True).press_sequentially("quillon")
        expect(page.locator("#results tbody tr")).to_have_count(1)
        page.get_by_label("Kind").select_option("suppression")
        expect(page.locator("#results")).to_contain_text("No edit fits.")
        assert "kind=suppression" in page.url


def test_an_edit_is_changed_and_brought_back(browser: Browser, people: People) -> None:
    """History as a difference, and a roll-back with a look at what it changes."""
    draft = {"prompt": "When does the ferry leave?", "target_new": "At nine"}
    edit_id = people.call(people.ann, "POST", "/edits", json=draft, headers=LAB).json()["id"]
    with watched(browser, people, people.ann) as page:
        page.goto(f"/console/n/lab/edits/{edit_id}")
        page.get_by_role("link", name="Change").click()
        page.get_by_label("Answer (required)").fill("At ten")
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".history ins").first).to_have_text(re.compile("ten"))
        page.get_by_role("link", name="Bring back version 1").click()
        expect(page.locator("del")).to_contain_text("ten")
        page.get_by_label("Reason").fill("It is nine after all")
        page.get_by_role("button", name="Bring it back").click()
        expect(page.locator(".answer")).to_have_text("At nine")
        page.get_by_role("button", name="Verify").click()
        expect(page.get_by_role("heading", name="Verification")).to_be_visible()
        photographed(page, "edit")


def test_two_people_at_one_edit_lose_nothing(browser: Browser, people: People) -> None:
    """The second sees a merge; what the first stored stands until it is sent again."""
    draft = {"prompt": "Who leads the library?", "target_new": "Ada"}
    edit_id = people.call(people.ann, "POST", "/edits", json=draft, headers=LAB).json()["id"]
    path = f"/console/n/lab/edits/{edit_id}/change"
    with watched(browser, people, people.ann) as ann, watched(browser, people, people.bo) as bo:
        ann.goto(path)
        bo.goto(path)
        bo.get_by_label("Answer (required)").fill("Bea")
        bo.get_by_role("button", name="Save").click()
        expect(bo.get_by_role("status")).to_contain_text("in force")
        ann.get_by_label("Answer (required)").fill("Cleo")
        ann.get_by_role("button", name="Save").click()
        expect(ann.get_by_role("heading", level=1)).to_have_text("Somebody else changed this edit")
        expect(ann.locator(".theirs ins")).to_contain_text("Bea")
        expect(ann.locator("#error")).to_be_focused()
        assert people.edits("lab")[edit_id]["target_new"] == "Bea"
        check_accessible(ann)
        photographed(ann, "merge")
        ann.get_by_role("button", name="Save").click()
        expect(ann.locator(".answer")).to_have_text("Cleo")


def test_a_session_that_ends_in_the_middle_of_an_edit_loses_no_text(browser: Browser, people: People) -> None:
    """In the preview a message, at the form the login, and then the form with the text."""
    with watched(browser, people, people.ann) as page:
        page.goto("/console/n/lab/new")
        page.get_by_label("Question").fill("What is kept?")
        page.context.clear_cookies()
        page.get_by_label("Answer (required)").fill("All of it")
        expect(page.locator("#preview")).to_contain_text("Your session is over. What you typed stays here.")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text("not lost")
        page.get_by_label("API key").fill(people.ann)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_label("Answer (required)")).to_have_value("All of it")
        assert "All of it" not in str(people.edits("lab"))


def test_a_wrong_answer_is_turned_into_an_edit(browser: Browser, people: People, edit_id: str) -> None:
    """Try it: both answers, the decision, and the way to the form."""
    with watched(browser, people, people.ann) as page:
        page.goto("/console/n/lab/try")
        page.get_by_label("Question", exact=True).fill(DRAFT["prompt"])
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".answers .panel").nth(1)).to_contain_text(DRAFT["target_new"])
        expect(page.locator(".answers .panel").nth(0)).to_contain_text("I do not know.")
        expect(page.locator("#outcome")).to_contain_text("an edit governs the question")
        check_accessible(page)
        photographed(page, "try")
        page.get_by_label("Question", exact=True).fill("How deep is the lake?")
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("link", name="This is wrong: make an edit").nth(1).click()
        expect(page.get_by_label("Question")).to_have_value("How deep is the lake?")


def test_answers_are_read_while_they_are_said(
    browser: Browser, listeners: People, pausing_model: PausingModel
) -> None:
    with watched(browser, listeners, listeners.ann) as page:
        page.goto("/console/n/lab/try")
        page.get_by_label("Question", exact=True).fill("When is the tide?")
        page.get_by_role("button", name="Ask").click()
        base = page.locator(".answers .panel").nth(0)
        expect(base).to_contain_text("Low")
        expect(base.get_by_role("link")).to_have_count(0)
        photographed(page, "try-streaming")
        pausing_model.may_go_on.set()
        for panel in (base, page.locator(".answers .panel").nth(1)):
            expect(panel).to_contain_text("Low <img src=x>tide, then high")
            expect(panel.get_by_role("link", name="This is wrong: make an edit")).to_be_visible()
        assert page.locator(".answers img").count() == 0


def test_four_eyes_in_two_browsers(browser: Browser, people: People) -> None:
    """One proposes, another looks at the difference and agrees."""
    with watched(browser, people, people.ann) as ann, watched(browser, people, people.bo) as bo:
        ann.goto("/console/n/one/new?prompt=Who+is+the+new+mayor%3F")
        ann.get_by_label("Answer (required)").fill("Ilse Quennell")
        ann.get_by_role("button", name="Propose").click()
        expect(ann.get_by_role("status")).to_contain_text("Your change is proposed.")
        expect(ann.get_by_role("button", name="Approve")).to_have_count(0)
        bo.goto("/console/n/one/proposals")
        bo.locator("tbody a").first.click()
        expect(bo.locator("ins").nth(1)).to_contain_text("Ilse Quennell")
        check_accessible(bo)
        photographed(bo, "proposal")
        bo.get_by_label("Your reason (required)").fill("Read the minutes")
        bo.get_by_role("button", name="Approve").click()
        expect(bo.locator(".badge.accepted")).to_be_visible()
    assert [edit["target_new"] for edit in people.edits("one").values()] == ["Ilse Quennell"]


def test_the_log_is_verified_and_downloaded(browser: Browser, people: People, edit_id: str) -> None:
    """The digest is shown, and the file comes as an attachment."""
    with watched(browser, people, people.ann) as page:
        page.goto("/console/n/lab/log")
        page.get_by_role("button", name="Verify the log").click()
        expect(page.locator("main")).to_contain_text("The log is what was written")
        photographed(page, "log")
        with page.expect_download() as download:
            page.get_by_role("link", name="Export the log").click()
        assert download.value.suggested_filename == "lab-log.ndjson"


def test_markup_of_editors_and_users_runs_nowhere(browser: Browser, people: People) -> None:
    """Every text field holds an attack, on every page that shows it."""
    fields = {name: ATTACK for name in ("prompt", "target_new", "reason", "source", "target_true")}
    body = fields | {"paraphrases": [ATTACK + "?"], "subject": ATTACK, "aliases": ["<i>x</i>"]}
    evil = {"x-serac-namespace": "evil"}
    reply = people.call(people.ann, "POST", "/edits", json=body, headers=evil)
    assert reply.status_code == 201, reply.text
    edit = reply.json()["id"]
    proposal = people.propose(namespace="one", **fields)
    chat = {"model": "m", "messages": [{"role": "user", "content": ATTACK}]}
    people.locked.call(people.ann, "POST", "/v1/chat/completions", json=chat, headers=evil)
    with watched(browser, people, people.bo) as page:
        for path in (
            *(f"evil/{name}" for name in PAGES),
            f"evil/edits/{edit}",
            f"evil/edits/{edit}/change",
            f"evil/edits/{edit}/retire",
            f"one/proposals/{proposal['id']}",
        ):
            page.goto(f"/console/n/{path}")
            page.wait_for_load_state("networkidle")
            assert "owned" not in page.title().replace(ATTACK[:60], "")
            assert page.locator("main img, main script, main b").count() == 0
        page.goto("/console/n/evil/try")
        page.get_by_label("Question", exact=True).fill(ATTACK)
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".said")).to_have_count(2)
        assert page.locator("main img, main script, main b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_on_a_phone(
    browser: Browser, people: People, edit_id: str, scheme: str
) -> None:
    """Axe has no serious finding, in light and dark, and nothing is wider than 320 pixels."""
    phone = {"width": 320, "height": 640}
    with watched(browser, people, people.ann, viewport=phone, color_scheme=scheme, locale="de-DE") as page:
        for path in (*PAGES, f"edits/{edit_id}", f"edits/{edit_id}/change", f"edits/{edit_id}/retire"):
            page.goto(f"/console/n/lab/{path}")
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
            check_accessible(page)
            photographed(page, f"phone-{scheme}-{path.replace('/', '-').replace(edit_id, 'edit')}")


def test_without_javascript_an_edit_is_made_tried_and_retired(browser: Browser, people: People) -> None:
    """The core of each page is plain HTML."""
    with watched(browser, people, people.ann, java_script_enabled=False) as page:
        page.goto("/console/n/plain/new")
        page.get_by_label("Question").fill("Is it plain?")
        page.get_by_label("Answer (required)").fill("As bread")
        page.get_by_role("button", name="Preview").click()
        expect(page.locator("#preview")).to_contain_text("contradicts no stored edit")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("main").get_by_role("link", name="Try it").click()
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".answers")).to_contain_text("As bread")
        page.goto("/console/n/plain/edits?q=plain")
        page.locator("tbody a").click()
        page.get_by_role("link", name="Retire").click()
        page.get_by_role("button", name="Retire").click()
        expect(page.locator(".badge").first).to_have_text("Retired")


def test_the_keyboard_reaches_the_content_and_the_menu(browser: Browser, people: People) -> None:
    """The first stop skips the navigation; the menu opens and closes without a mouse."""
    with watched(browser, people, people.ann) as page:
        page.goto("/console/n/lab/edits")
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        page.locator(".me summary").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
        check_accessible(page)
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Log out")).to_be_hidden()
        expect(page.locator(".me summary")).to_be_focused()
