"""The x-serac-* headers: documented all, and versioned."""

from __future__ import annotations

import re
from pathlib import Path

from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, OTHER_QUESTION, chat, running_gateway

ROOT = Path(__file__).parents[2]


async def test_every_response_has_the_version_of_its_headers() -> None:
    async with running_gateway() as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        replies = [await gateway.post(chat(question)) for question in (EDITED_QUESTION, OTHER_QUESTION)]
        replies.append(await gateway.post(b"{}", target="/v1/embeddings"))
        replies.append(await gateway.post(chat(EDITED_QUESTION), ("x-serac-namespace", "No Name")))
    assert [reply.one("x-serac-schema") for reply in replies] == ["1", "1", "1", "1"]
    assert [reply.status for reply in replies] == [200, 200, 200, 400]


def test_the_api_page_has_every_header_that_the_code_knows() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "serac_gateway").rglob("*.py"))
    known = set(re.findall(r"x-serac-[a-z]+(?:-[a-z]+)*", code))
    page = (ROOT / "serac_gateway" / "docs" / "api.md").read_text("utf-8")
    table = page[page.index("## Headers") : page.index("## Routes and reasons")]
    assert known == set(re.findall(r"x-serac-[a-z]+(?:-[a-z]+)*", table))
