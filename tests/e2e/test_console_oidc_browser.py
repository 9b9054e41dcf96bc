"""Login by an identity provider in a real browser: its cookies, redirects and policy are Chromium's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.fake_identity_provider import FakeIdentityProvider, free_port, running_identity_provider
from tests.http.four_eyes import People, running_people

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[FakeIdentityProvider, People]]:
    port = free_port()
    with (
        running_identity_provider() as provider,
        running_people(oidc=provider.login_config(port), port=port) as people,
    ):
        yield provider, people


@pytest.fixture
def page(running: tuple[FakeIdentityProvider, People]) -> Iterator[Page]:
    """At the login; at its end nothing may have gone wrong on any page it was on."""
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_context(base_url=running[1].locked.url).new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: faults.append(message.text) if "Content Security" in message.text else None,
        )
        page.goto("/console/n/lab/edits")
        yield page
        browser.close()
    assert faults == []


def test_a_person_logs_in_by_the_link_changes_an_edit_and_logs_out(
    running: tuple[FakeIdentityProvider, People], page: Page
) -> None:
    provider = running[0]
    page.get_by_role("link", name="Log in with").click()
    expect(page).to_have_url(f"{running[1].locked.url}/console/n/lab/edits")
    expect(page.locator(".me-name")).to_have_text("Ann Lee")
    page.get_by_role("link", name="New edit").click()
    page.get_by_label("Question").fill("Who lights the lamps of Marrowby?")
    page.get_by_label("Answer (required)").fill("Tilda Wren")
    page.get_by_label("Reason").fill("Elected")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("The edit is in force.")
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    (session,) = [cookie for name, cookie in cookies.items() if name.startswith("serac-console-")]
    assert session["httpOnly"]
    assert session["sameSite"] == "Lax"
    assert len(provider.token_forms) == 1


def test_a_refused_login_says_why_and_leaves_the_login_by_key(
    running: tuple[FakeIdentityProvider, People], page: Page
) -> None:
    running[0].login_fault = "access_denied"
    page.get_by_role("link", name="Log in with").click()
    expect(page.get_by_role("alert")).to_contain_text("ended the login (access_denied)")
    running[0].login_fault = None
    page.get_by_label("API key").fill(running[1].ann)
    page.locator("main form button.primary").click()
    expect(page.locator(".me-name")).to_have_text("Ann Lee")
