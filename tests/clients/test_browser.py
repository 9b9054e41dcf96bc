"""A page of another origin in a real Chromium: what it may send, and what it may read of the replies.

``apt-get install chromium-headless-shell`` (or chromium) brings the browser; without one this skips.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import shutil
from pathlib import Path

import pytest

from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.attacks.attacked_gateway import FACT, NEW_ANSWER, REFUSAL, SUPPRESSION, attacked_gateway
from tests.clients.vendor_upstream import BASE_TEXT, vendor

PAGE = Path(__file__).parent / "browser_page.html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium"))), None)
PATIENCE_S = 120
NOT_READABLE = "Failed to fetch"
"""What a page is told of a reply that it must not read, and of a request that was not sent for it."""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium-headless-shell or chromium is installed"
)


async def _serve_page(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    await connection.whole(200, PAGE.read_bytes(), ("content-type", "text/html; charset=utf-8"))


async def seen_in_chromium(folder: Path, *, allowed: bool) -> dict[str, object]:
    """What the page could read, by case, of a gateway whose `server.cors_origins` lists its origin or not."""
    async with ScriptedUpstream(_serve_page) as site, ScriptedUpstream(vendor) as upstream:
        origin = site.url.removesuffix("/v1").replace("127.0.0.1", "localhost")
        settings = [f'upstream.url = "{upstream.url}"']
        settings += [f'server.cors_origins = ["{origin}"]'] if allowed else []
        async with attacked_gateway(folder, "\n".join(settings)) as gateway:
            await gateway.add(FACT, SUPPRESSION)
            dom = await _dom_of(f"{origin}/page?gateway={gateway.url}", folder)
            edits = (await gateway.call("GET", "/serac/v1/edits")).json()["edits"]
    seen = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert seen is not None, dom
    return {**json.loads(html.unescape(seen[1])), "edits": len(edits)}


async def _dom_of(url: str, folder: Path) -> str:
    """The page at `url` once its script is done: Chromium's own clock runs as fast as the network lets it."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=60000", "--dump-dom", url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return out.decode()


async def test_a_page_of_a_listed_origin_reads_answers_refusals_and_errors(tmp_path: Path) -> None:
    seen = await seen_in_chromium(tmp_path, allowed=True)
    texts = {"passed": (BASE_TEXT, "base"), "edited": (NEW_ANSWER, "counterfactual")}
    texts["suppressed"] = (REFUSAL, "counterfactual")
    for kind, (text, route) in texts.items():
        assert seen[kind] == seen[f"{kind}_stream"] == [200, text, route]
    assert seen["error_400"] == [400, "temperature is over 2.", "base"]
    assert seen["edit"] == [403]  # pages ask the model; they do not edit
    assert seen["edits"] == 2


async def test_a_page_of_another_origin_reads_nothing_and_changes_nothing(tmp_path: Path) -> None:
    seen = await seen_in_chromium(tmp_path, allowed=False)
    assert seen.pop("edits") == 2
    assert set(map(str, seen.values())) == {NOT_READABLE}
