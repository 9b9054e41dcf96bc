"""The console's pages about edits: list, search, one edit, add, change, merge, retire, restore, roll back."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pytest

from serac_gateway.console.edit_fields import form_fields_of_edit
from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Commit, Receipt
from tests.http.console_visitor import Visitor, console_of_people, visiting
from tests.http.four_eyes import People, running_people

PROMPT, ANSWER = "Who runs the harbour office of Marrowby?", "Ottilie Brandvold"
DRAFT = {"prompt": PROMPT, "target_new": ANSWER, "kind": "fact", "state": "live"}


@pytest.fixture
def people() -> Iterator[People]:
    with console_of_people() as people:
        yield people


@pytest.fixture
def ann(people: People) -> Iterator[Visitor]:
    with visiting(people.locked.url, people.ann) as visitor:
        yield visitor


def added(visitor: Visitor, **fields: str) -> str:
    """The path of the edit's page, on which the visitor is then."""
    visitor.get("/n/lab/new")
    reply = visitor.post("/n/lab/new", **DRAFT | {"token": visitor.hidden["token"]} | fields)
    assert reply.status_code == 200, visitor.text
    return reply.url.path.removeprefix("/console")


def form_of(visitor: Visitor) -> dict[str, str]:
    """The change form that is shown, as its fields stand."""
    page = visitor.page.text
    fields = dict(visitor.hidden)
    for name, text in re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>\n?(.*?)</textarea>', page, re.DOTALL):
        fields[name] = html.unescape(text)
    for name, value in re.findall(r'<input id="f-\w+" name="(\w+)"[^>]* value="([^"]*)"', page):
        fields[name] = html.unescape(value)
    for name, options in re.findall(r'<select id="f-\w+" name="(\w+)"[^>]*>(.*?)</select>', page, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', options) or re.search(r'value="([^"]*)"', options)
        fields[name] = chosen[1] if chosen else ""
    return fields


def test_an_edit_is_added_and_in_force_with_what_the_form_says(people: People, ann: Visitor) -> None:
    """Lists are a line each; empty fields are left out; the author is the key's."""
    path = added(
        ann,
        subject="Marrowby",
        aliases="Marrowby-on-Sea\n\n Marrowby Bay ",
        paraphrases="Who leads the harbour office of Marrowby?",
        valid_until="2030-01-31T12:00:00",
        reason="Elected",
    )
    assert "The edit is in force." in ann.text
    [edit] = people.edits("lab").values()
    assert path == f"/n/lab/edits/{edit['id']}"
    assert edit["aliases"] == ["Marrowby-on-Sea", "Marrowby Bay"]
    assert edit["valid_until"] == "2030-01-31T12:00:00Z"
    assert edit["author"].startswith("Ann Lee (key ")
    assert edit["source"] is None
    for words in (PROMPT, ANSWER, "Marrowby Bay", "Elected", "Version 1"):
        assert words in ann.text


def test_a_form_that_is_sent_twice_adds_one_edit(people: People, ann: Visitor) -> None:
    """A double click on a slow gateway."""
    ann.get("/n/lab/new")
    form = ann.hidden | DRAFT
    assert ann.send("/n/lab/new", form).url == ann.send("/n/lab/new", form).url
    assert len(people.edits("lab")) == 1


def test_a_form_that_is_refused_keeps_its_texts_and_names_the_field(people: People, ann: Visitor) -> None:
    """Nothing is stored, and the message links to the field."""
    ann.get("/n/lab/new")
    reply = ann.post("/n/lab/new", **DRAFT | {"paraphrases": "x" * 2_001, "reason": "A reason"})
    assert reply.status_code == 400
    assert "Nothing was stored." in ann.text
    assert 'href="#f-paraphrases"' in ann.page.text
    assert 'aria-invalid="true"' in ann.page.text
    assert "A reason" in ann.page.text
    assert people.edits("lab") == {}


def test_the_list_is_searched_and_filtered(people: People, ann: Visitor) -> None:
    """By text, by meaning, by state, kind and author; while somebody types, only the rows come."""
    added(ann)
    added(ann, prompt="How much is a day pass?", target_new="18 euros")
    added(ann, prompt="What is the password?", target_new="No.", kind="suppression", target_true="tide-4417")
    for query, expected in (
        ("", {"harbour", "day pass", "password"}),
        ("q=18+EUROS", {"day pass"}),
        ("q=tide-4417", {"password"}),
        ("q=harbour+office&mode=meaning", {"harbour"}),
        ("kind=suppression", {"password"}),
        ("author=ann+l", {"harbour", "day pass", "password"}),
        ("author=Bo", set()),
        ("state=retired", set()),
        ("q=nothing+like+it", set()),
    ):
        ann.get(f"/n/lab/edits?{query}")
        seen = {
            words
            for words in ("harbour", "day pass", "password")
            if f"{words}" in ann.text.partition("Last change")[2]
        }
        assert seen >= expected, query
        if "meaning" not in query:
            assert seen == expected, query
    rows = ann.client.get("/console/n/lab/edits?q=pass", headers={"hx-request": "true"})
    assert "<html" not in rows.text
    assert "day pass" in rows.text


def test_a_change_is_a_version_with_its_difference_and_can_be_undone(people: People, ann: Visitor) -> None:
    """History shows words that were removed and added; an older version comes back as a new one."""
    path = added(ann, reason="First")
    ann.get(f"{path}/change")
    ann.send(f"{path}/change", form_of(ann) | {"target_new": "Ilse Brandvold", "reason": "Married"})
    assert "The change is in force." in ann.text
    assert re.search(r"<del>.*?Ottilie</del>", ann.page.text)
    assert re.search(r"<ins>.*?Ilse</ins>", ann.page.text)
    ann.get(f"{path}/rollback?to=1")
    assert "Ottilie" in ann.text
    ann.post(f"{path}/rollback", **ann.hidden | {"reason": "It was wrong"})
    [edit] = people.edits("lab").values()
    assert (edit["version"], edit["target_new"], edit["reason"]) == (3, ANSWER, "It was wrong")


def test_an_edit_is_retired_and_restored_with_a_reason(people: People, ann: Visitor) -> None:
    """Each on a page of its own that says what becomes of it."""
    path = added(ann)
    for act, state in (("retire", "retired"), ("restore", "live")):
        ann.get(f"{path}/{act}")
        ann.post(f"{path}/{act}", **ann.hidden | {"reason": f"To {act}"})
        [edit] = people.edits("lab").values()
        assert (edit["state"], edit["reason"]) == (state, f"To {act}")


def test_the_second_of_two_people_gets_both_changes_and_overwrites_nothing(
    people: People, ann: Visitor
) -> None:
    """Fields that only the other changed are taken over; where both did, theirs stands beside one's own."""
    path = added(ann, source="gazette")
    with visiting(people.locked.url, people.bo) as bo:
        bo.get(f"{path}/change")
        ann.get(f"{path}/change")
        mine, theirs = form_of(ann), form_of(bo)
        bo.send(
            f"{path}/change", theirs | {"target_new": "Ilse Quennell", "source": "radio", "reason": "Bo’s"}
        )
        assert "in force" in bo.text
        reply = ann.send(f"{path}/change", mine | {"target_new": "Olga Brandvold", "subject": "Marrowby"})
        assert reply.status_code == 412
        assert "Somebody else changed this edit" in ann.text
        assert "Bo (key" in ann.text
        assert "Bo’s" in ann.text
        merge = form_of(ann)
        assert merge["target_new"] == "Olga Brandvold"
        assert merge["source"] == "radio"
        assert merge["subject"] == "Marrowby"
        assert re.search(r"<ins>.*?Ilse", ann.page.text)
        [edit] = people.edits("lab").values()
        assert (edit["version"], edit["target_new"]) == (2, "Ilse Quennell")
        ann.send(f"{path}/change", merge | {"reason": "Both"})
        [edit] = people.edits("lab").values()
        assert (edit["version"], edit["target_new"], edit["source"]) == (3, "Olga Brandvold", "radio")


def test_a_preview_shows_conflicts_and_what_is_captured(people: People, ann: Visitor) -> None:
    """As a part of the page while somebody types, and with a button without JavaScript."""
    added(ann)
    ann.get("/n/lab/new")
    draft = DRAFT | {"target_new": "Somebody else"}
    part = ann.fragment("/n/lab/preview", **draft)
    assert "<html" not in part.text
    assert "contradicts stored edits: 1" in part.text
    assert "captured" in part.text
    ann.post("/n/lab/new", act="preview", **draft)
    assert "contradicts stored edits: 1" in ann.text
    assert "Somebody else" in ann.page.text
    assert len(people.edits("lab")) == 1


def test_where_others_must_agree_a_form_becomes_a_proposal(people: People, ann: Visitor) -> None:
    """The form says so beforehand."""
    ann.get("/n/one/new")
    assert "Others must agree" in ann.text
    ann.post("/n/one/new", **DRAFT, token="a")
    assert ann.page.url.path.startswith("/console/n/one/proposals/pr_")
    assert "Your change is proposed." in ann.text
    assert people.edits("one") == {}


def test_the_form_names_the_fields_that_a_namespace_demands(ann: Visitor) -> None:
    """Also those that are optional elsewhere; a form without them is refused."""
    ann.get("/n/strict/new")
    assert ann.text.count("(required)") == 4
    assert re.search(r'<details class="more" open', ann.page.text)
    assert ann.post("/n/strict/new", **DRAFT).status_code == 400
    assert "source" in ann.text


def test_markup_in_every_field_is_text_on_every_page(people: People, ann: Visitor) -> None:
    """Whatever an editor types, no page runs it."""
    attack = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}"
    texts = {field.name: attack for field in form_fields_of_edit() if field.kind in ("text", "long", "lines")}
    texts |= {"subject": "", "aliases": "", "source": f"javascript:alert(3)//{attack}"}
    texts |= {"source_url": "", "source_sha256": ""}  # that are anything else than what they say is refused
    path = added(ann, **texts)
    for page in (path, f"{path}/change", f"{path}/retire", "/n/lab/edits", "/n/lab/log", "/n/lab/traffic"):
        ann.get(page)
        assert ann.page.status_code == 200
        assert "<img src=x" not in ann.page.text
        assert "<script>alert" not in ann.page.text
        assert "49" not in re.findall(r"alert\(2\).{0,30}", ann.text)
        assert 'href="javascript:' not in ann.page.text
    ann.get(f"/n/lab/edits?q={attack.replace('{', '%7B')}")
    assert "<img src=x" not in ann.page.text


def test_a_page_of_an_edit_that_is_not_there_says_so(ann: Visitor) -> None:
    """In words, not as JSON."""
    for path in ("/n/lab/edits/ed_missing", "/n/lab/edits/ed_missing/change", "/n/lab/proposals/pr_missing"):
        assert ann.get(path).status_code in (400, 404)
        assert "<h1>" in ann.page.text
    path = added(ann)
    assert ann.get(f"{path}/explode").status_code == 404


def test_long_lists_are_paged_and_each_edit_comes_once(people: People, ann: Visitor) -> None:
    """The cursor of the API carries the filters along."""
    lines = "".join(
        f'{{"prompt": "What is item {number}?", "target_new": "Number {number}"}}\n' for number in range(120)
    )
    reply = people.call(
        people.ann,
        "POST",
        "/edits:import",
        content=lines,
        headers={"x-serac-namespace": "lab", "content-type": "application/x-ndjson"},
    )
    assert reply.status_code == 200
    ann.get("/n/lab/edits?q=item&author=ann")
    seen: list[str] = []
    while True:
        seen += re.findall(r">What is item (\d+)\?", ann.page.text)
        following = re.search(r'href="/console([^"]+)" rel="next"', ann.page.text)
        if following is None:
            break
        assert "author=ann" in following[1]
        ann.get(following[1].replace("&amp;", "&"))
    assert sorted(map(int, seen)) == list(range(120))


class LosableStore(InMemoryEditStore):
    """It can be lost."""

    is_lost = False

    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        if self.is_lost:
            raise StoreUnavailableError("the edit store does not answer")
        return await super().commit(namespace, commit)


def test_while_the_store_is_lost_a_form_keeps_its_texts() -> None:
    """It says what is the matter, and stores them when it is sent again."""
    store = LosableStore()
    with running_people(store=store) as people, visiting(people.locked.url, people.ann) as ann:
        ann.get("/n/lab/new")
        store.is_lost = True
        reply = ann.send("/n/lab/new", ann.hidden | DRAFT)
        assert reply.status_code == 503
        assert "does not answer" in ann.text
        assert ANSWER in ann.page.text
        store.is_lost = False
        ann.send("/n/lab/new", ann.hidden | DRAFT)
        assert "in force" in ann.text
