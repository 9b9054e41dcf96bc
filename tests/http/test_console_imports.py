"""Import and export at the console: a check first, line by line, then the import; files that are refused."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from serac_gateway.console.edit_tables import csv_header
from serac_gateway.console.import_jobs import MAX_JOBS
from serac_gateway.console.uploads import MAX_UPLOAD_BYTES
from tests.http.console_visitor import OWN_PAGE, Visitor, console_of_people, visiting
from tests.http.four_eyes import People

LINES = b"question;answer;reason\nWho runs the mill?;Ada;Elected\nWhat is =1+1?;Two;\nBlank?;  x\n;y\n"


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with console_of_people() as people:
        yield people


@pytest.fixture
def ann(people: People) -> Iterator[Visitor]:
    with visiting(people.locked.url, people.ann) as visitor:
        yield visitor


def ended(visitor: Visitor) -> str:
    """The text of the page when the job it is about rests."""
    for _ in range(200):
        visitor.get(visitor.page.url.path.removeprefix("/console"))
        if "<progress" not in visitor.page.text:
            return visitor.text
        assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in visitor.page.text
        time.sleep(0.02)
    raise AssertionError(visitor.text)


def job_path(visitor: Visitor) -> str:
    return visitor.page.url.path.removeprefix("/console")


def test_a_file_is_checked_then_imported_and_again_changes_nothing(people: People, ann: Visitor) -> None:
    """Failed lines have number, fault and remedy; the reason of the form is for lines without one."""
    ann.get("/n/mill/import")
    ann.upload("/n/mill/import", "mill.csv", LINES, reason="From the list", ticket="T-1")
    text = ended(ann)
    assert "Nothing has been imported yet." in text
    assert "Would be added 3" in text
    assert "Lines with faults 1" in text
    assert re.search(r"5 .*prompt", text)
    assert people.edits("mill") == {}
    path = job_path(ann)
    ann.post(path, act="import")
    assert "The import has ended." in (text := ended(ann))
    assert "Added 3" in text
    edits = {edit["prompt"]: edit for edit in people.edits("mill").values()}
    assert {prompt: edit["reason"] for prompt, edit in edits.items()} == {
        "Who runs the mill?": "Elected",
        "What is =1+1?": "From the list",
        "Blank?": "From the list",
    }
    assert {edit["ticket"] for edit in edits.values()} == {"T-1"}
    assert all(edit["author"].startswith("Ann Lee") for edit in edits.values())
    assert len(people.log("mill")) == 3
    ann.post(path, act="import")  # a reload of the form
    assert "Added 3" in ended(ann)
    ann.get("/n/mill/import")
    ann.upload("/n/mill/import", "mill.csv", LINES)
    text = ended(ann)
    assert "Would be added 0" in text
    assert "Stored already 3" in text
    assert 'value="import"' not in ann.page.text
    assert len(people.log("mill")) == 3


def test_what_is_exported_as_csv_can_be_imported_elsewhere(people: People, ann: Visitor) -> None:
    """With the filters of the list, as an attachment, and formulas are none."""
    for draft in (
        {"prompt": "=cmd|' /C calc'!A0", "target_new": "@x", "paraphrases": ["-1", "[y]"], "kind": "fact"},
        {"prompt": "Kept out?", "target_new": "No", "kind": "instruction"},
    ):
        people.call(people.ann, "POST", "/edits", json=draft, headers={"x-serac-namespace": "cells"})
    reply = ann.client.get("/console/n/cells/export/csv?kind=fact")
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.headers["content-disposition"] == 'attachment; filename="cells-edits.csv"'
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.content.startswith(b"\xef\xbb\xbf" + csv_header())
    assert b"\"'=cmd|' /C calc'!A0\"" in reply.content
    assert b"Kept out" not in reply.content
    ann.get("/n/cells2/import")
    ann.upload("/n/cells2/import", "again.csv", reply.content)
    ended(ann)
    ann.post(job_path(ann), act="import")
    assert "Added 1" in ended(ann)
    fields = ("id", "prompt", "target_new", "paraphrases", "kind")
    copies = [[edit[name] for name in fields] for edit in people.edits("cells2").values()]
    assert copies == [
        [edit[name] for name in fields] for edit in people.edits("cells").values() if edit["kind"] == "fact"
    ]
    lines = ann.client.get("/console/n/cells/export/ndjson")
    assert lines.headers["content-type"] == "application/x-ndjson"
    api = people.call(people.ann, "GET", "/edits:export", headers={"x-serac-namespace": "cells"})
    assert sorted(lines.content.splitlines()) == sorted(api.content.splitlines())
    assert ann.client.get("/console/n/cells/export/xls").status_code == 404


def test_where_others_must_agree_a_file_becomes_a_proposal(people: People, ann: Visitor) -> None:
    """The page leads to it; until then nothing is stored."""
    ann.get("/n/one/import")
    assert "Others must agree" in ann.text
    ann.upload("/n/one/import", "x.csv", LINES)
    assert "Would be proposed 3" in ended(ann)
    assert people.call(people.bo, "GET", "/proposals", headers={"x-serac-namespace": "one"}).json()[
        "proposals"
    ] == []  # fmt: skip
    ann.post(job_path(ann), act="import")
    assert "Proposed 3" in ended(ann)
    link = re.search(r'href="/console(/n/one/proposals/[^"]+)"', ann.page.text)
    assert link is not None
    ann.get(link[1])
    assert "Who runs the mill?" in ann.text
    assert people.edits("one") == {}
    ann.get("/n/strict/import")
    ann.upload("/n/strict/import", "x.csv", LINES)
    assert "Lines with faults 4" in ended(ann)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("", b"", "No file was chosen"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\x00\x00", "is no text"),
        ("a.xlsx", b"PK\x03\x04", "xlsx"),
        ("a.csv", "prompt,target_new\nFür,x".encode("cp1252"), "0xFC in line 2 is not UTF-8"),
        ("a.csv", b"prompt:target_new\n<b>x</b>:y", "names no columns"),
        ("a.csv", b"prompt,target_new,<img src=x>\na,b,c", "<img src=x>"),
        ("<b>.json", b'["<b>"]', "JSON array"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_what_was_typed(
    ann: Visitor, name: str, content: bytes, text: str
) -> None:
    """In words, in the form."""
    ann.get("/n/bad/import")
    reply = ann.upload("/n/bad/import", name, content, reason="My reason")
    assert reply.status_code == 400
    assert text in ann.text
    assert "My reason" in ann.text
    assert "<img src=x>" not in reply.text.replace("&lt;img", "")


def test_a_reason_that_no_edit_can_hold_is_refused_at_once(ann: Visitor) -> None:
    """Not line by line, in the memory and time that it would take as often as there are lines."""
    ann.get("/n/bad/import")
    reply = ann.upload("/n/bad/import", "a.csv", LINES, reason="r" * 2_001)
    assert reply.status_code == 400
    assert "reason has 2,001 characters; the limit is 2,000" in ann.text


def test_only_the_button_that_says_so_imports(people: People, ann: Visitor) -> None:
    """A form without it, or with another word, leaves the file checked."""
    ann.get("/n/act/import")
    ann.upload("/n/act/import", "a.csv", LINES)
    ended(ann)
    path = job_path(ann)
    for fields in ({}, {"act": "other"}):
        ann.post(path, **fields)
        assert "Nothing has been imported yet." in ended(ann)
    assert people.edits("act") == {}
    ann.post(path, act="discard")


def test_a_huge_file_is_refused_and_other_pages_take_no_files(ann: Visitor) -> None:
    """After it was read to its end, so that the browser shows the refusal."""
    ann.get("/n/bad/import")
    reply = ann.upload("/n/bad/import", "huge.csv", b"x" * (MAX_UPLOAD_BYTES + 1))
    assert reply.status_code == 413
    assert "larger than 16 MiB" in ann.text
    ann.get("/n/bad/new")
    assert ann.upload("/n/bad/new", "a.csv", LINES).status_code == 415


def test_a_file_counts_from_the_consoles_own_pages_alone(people: People, ann: Visitor) -> None:
    """No session, no token or another site: nothing is read of it."""
    ann.get("/n/mill/import")
    files = {"file": ("a.csv", LINES)}
    path = "/console/n/mill/import"
    foreign = ann.client.post(path, files=files, headers={"sec-fetch-site": "cross-site"})
    assert foreign.status_code == 403
    assert ann.client.post(path, files=files, headers=OWN_PAGE).status_code == 403
    with visiting(people.locked.url) as nobody:
        assert "Log in" in nobody.upload("/n/mill/import", "a.csv", LINES).text


def test_an_import_is_its_senders_alone_and_has_bounds(people: People, ann: Visitor) -> None:
    """Another key finds none at its address; there are so many at a time."""
    ann.get("/n/own/import")
    paths = []
    for _ in range(MAX_JOBS + 1):
        ann.get("/n/own/import")
        reply = ann.upload("/n/own/import", "a.csv", LINES)
        if reply.status_code == 200:
            ended(ann)
            paths.append(job_path(ann))
    assert reply.status_code == 429
    with visiting(people.locked.url, people.bo) as bo:
        assert bo.get(paths[0]).status_code == 404
    for path in paths:
        ann.get(path)
        ann.post(path, act="discard")
        assert ann.get(path).status_code == 404
    assert people.edits("own") == {}
