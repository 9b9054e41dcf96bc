"""A browser at the console: every page is watched, looked over by axe, and photographed if one wants that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

from tests.http.four_eyes import People

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = os.environ.get("SERAC_SCREENSHOTS")
ATTACK = (
    "\"'><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    "<b hx-get=/v1 hx-trigger=load>"
)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Opened after the gateway, whose set-up runs an event loop, as Playwright does in this thread."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, people: People, key: str | None, **options: object) -> Iterator[Page]:
    """A page of somebody who has logged in; at its end nothing may have gone wrong on any page it was on."""
    context = browser.new_context(base_url=people.locked.url, **options)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    faults: list[str] = []

    def check(route: Route) -> None:
        url = route.request.url
        if urlsplit(url).netloc == urlsplit(people.locked.url).netloc or url.startswith("data:"):
            route.continue_()
        else:
            faults.append(f"request to {url}")
            route.abort()

    def note(message: ConsoleMessage) -> None:
        # Chromium reports every status from 400 on; refusals are what some of these tests are about.
        if (
            message.type in ("error", "warning")
            and "the server responded with a status of" not in message.text
        ):
            faults.append(message.text)

    context.route("**/*", check)
    context.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.error('policy ' + e.violatedDirective))"
    )
    page = context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto("/console")
    if key is not None:
        page.get_by_label("API key").or_(page.get_by_label("API-Schlüssel")).fill(key)
        page.locator("main button").click()
        expect(page.locator("h1")).to_be_visible()
    yield page
    context.close()
    assert not faults, faults


def photographed(page: Page, name: str) -> None:
    if SCREENSHOTS is not None:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)


def check_accessible(page: Page) -> None:
    """Axe finds nothing serious or critical."""
    violations = Axe().run(page).response["violations"]
    serious = [
        (fault["id"], [node["html"][:200] for node in fault["nodes"]])
        for fault in violations
        if fault["impact"] in ("serious", "critical")
    ]
    assert serious == [], page.url
