"""The console's pages besides edits: try it, proposals, log, health, traffic; and what each role may do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

from serac_gateway.console.languages import LANGUAGES
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.stores.log_chain import LogHead
from serac_gateway.stores.log_verification import Evidence
from serac_gateway.testing import ScriptedLanguageModel
from tests.http.console_visitor import OWN_PAGE, Visitor, console_of_people, visiting
from tests.http.four_eyes import DRAFT, PausingModel, People, running_people

LAB = {"x-serac-namespace": "lab"}
PAGES = ("try", "new", "edits", "import", "proposals", "log", "traffic", "health")


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with console_of_people() as people:
        for draft in (DRAFT, DRAFT | {"prompt": "How much is a day pass?", "target_new": "18 euros"}):
            assert people.call(people.ann, "POST", "/edits", json=draft, headers=LAB).status_code == 201
        yield people


@pytest.fixture
def ann(people: People) -> Iterator[Visitor]:
    with visiting(people.locked.url, people.ann) as visitor:
        yield visitor


@pytest.fixture
def bo(people: People) -> Iterator[Visitor]:
    with visiting(people.locked.url, people.bo) as visitor:
        yield visitor


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_there_in_every_language(people: People, page: str, language: str) -> None:
    """By the browser's wish, and with a heading and a title."""
    with visiting(people.locked.url, people.locked.admin) as visitor:
        visitor.client.headers["accept-language"] = f"fr, {language};q=0.5"
        assert visitor.get(f"/n/lab/{page}").status_code == 200
        assert f'<html lang="{language}">' in visitor.page.text
        assert len(re.findall("<h1", visitor.page.text)) == 1
        assert re.search(r"<title>\S.* · serac</title>", visitor.page.text)


def test_a_chosen_language_is_stronger_than_the_browsers(ann: Visitor) -> None:
    """It is kept in a cookie, and leads back to the page."""
    ann.client.headers["accept-language"] = "en"
    ann.get("/language/de?next=/console/n/lab/log")
    assert ann.page.url.path == "/console/n/lab/log"
    assert "Protokoll" in ann.text


def test_a_question_is_answered_on_both_sides_with_its_decision(ann: Visitor) -> None:
    """Without JavaScript all of it is one page; a wrong answer is one link away from an edit."""
    ann.get("/n/lab/try")
    ann.post("/n/lab/try", question=DRAFT["prompt"])
    assert "I do not know." in ann.text
    assert DRAFT["target_new"] in ann.text
    assert "an edit governs the question" in ann.text
    assert re.search(r'aria-label="Probability 1\.000, threshold 0\.800"', ann.page.text)
    assert re.search(r"encode [\d.]+ ms", ann.text)
    link = re.search(r'href="/console(/n/lab/new\?[^"]+)"', ann.page.text)
    assert link is not None
    ann.get(link[1])
    assert DRAFT["prompt"] in ann.page.text


def test_with_javascript_the_answers_come_one_by_one(ann: Visitor) -> None:
    """Each is a part of the page with a heading."""
    ann.get("/n/lab/try")
    outcome = ann.fragment("/n/lab/try", question="How much is a day pass?")
    assert "Waiting for the answer" in outcome.text
    assert "<html" not in outcome.text
    assert "I do not know." in ann.fragment("/n/lab/try/base", question="How much is a day pass?").text
    assert "18 euros" in ann.fragment("/n/lab/try/routed", question="How much is a day pass?").text


@pytest.mark.parametrize("side", ["base", "routed"])
def test_an_answer_is_read_while_it_is_said(side: str) -> None:
    """What is markup in it is text; what follows it comes when it has ended."""
    model = PausingModel("Low <b>tide</b>, then high")
    with running_people(base_model=model) as people, visiting(people.locked.url, people.ann) as ann:
        ann.get("/n/lab/try")
        fields = {"csrf": ann.csrf, "question": "When is the tide?"}
        with ann.client.stream("POST", f"/console/n/lab/try/{side}", data=fields, headers=OWN_PAGE) as reply:
            chunks, said = reply.iter_text(), ""
            while "Low" not in said:
                said += next(chunks)
            assert "tide" not in said
            assert "wrong" not in said
            model.may_go_on.set()
            said += "".join(chunks)
    assert '<p class="said" hx-disable>Low &lt;b&gt;tide&lt;/b&gt;, then high</p>' in said
    assert "This is wrong: make an edit" in said


def test_an_answer_that_ends_in_the_middle_says_so() -> None:
    """What was said stays."""

    def fails(prompt: str) -> str:
        raise ModelUnavailableError("the base model is out of order")

    with (
        running_people(base_model=ScriptedLanguageModel(fails)) as people,
        visiting(people.locked.url, people.ann) as ann,
    ):
        ann.get("/n/lab/try")
        for side in ("base", "routed"):
            answer = ann.fragment(f"/n/lab/try/{side}", question="When is the tide?").text
            assert 'class="error"' in answer
            assert "out of order" in answer


def test_a_proposal_is_looked_at_and_accepted_by_another(people: People, ann: Visitor, bo: Visitor) -> None:
    """Its author is offered no agreement, and gets none by a forged form."""
    proposal = people.propose(namespace="one", reason="Elected in October")
    page = f"/n/one/proposals/{proposal['id']}"
    ann.get(page)
    assert 'value="approve"' not in ann.page.text
    reply = ann.post(page, verb="approve", reason="Me", revision="1")
    assert reply.status_code == 403
    bo.get("/n/one/proposals")
    assert proposal["id"] in bo.page.text
    bo.get(page)
    for words in (DRAFT["prompt"], DRAFT["target_new"], "Elected in October", "0 of 1 agreed"):
        assert words in bo.text
    bo.post(page, **bo.hidden | {"verb": "approve", "reason": "Checked"})
    assert "Accepted" in bo.text
    assert len(people.edits("one")) == 1


def test_a_second_key_of_the_author_does_not_count_as_another(people: People) -> None:
    """The console has no other rules than the API."""
    proposal = people.propose(namespace="default")
    with visiting(people.locked.url, people.ann_too) as ann_too:
        page = f"/n/default/proposals/{proposal['id']}"
        ann_too.get(page)
        reply = ann_too.post(page, **ann_too.hidden | {"verb": "approve", "reason": "Me again"})
        assert reply.status_code == 403
        assert "same person" in ann_too.text
        assert "Me again" in ann_too.page.text


def test_a_proposal_is_rejected_with_a_reason_and_withdrawn_by_its_author(
    people: People, ann: Visitor, bo: Visitor
) -> None:
    """A reason is compulsory."""
    for visitor, verb, word in ((bo, "reject", "rejected"), (ann, "withdraw", "withdrawn")):
        proposal = people.propose(namespace="default", prompt=f"What is {verb}?")
        page = f"/n/default/proposals/{proposal['id']}"
        visitor.get(page)
        assert visitor.post(page, **visitor.hidden | {"verb": verb, "reason": " "}).status_code == 400
        visitor.post(page, **visitor.hidden | {"verb": verb, "reason": "No source"})
        assert f"The proposal is {word}." in visitor.text
        assert "No source" in visitor.text
        assert people.state(proposal) == word


def test_the_log_is_read_verified_and_exported(people: People, ann: Visitor) -> None:
    """The digest of a verification can be given again; a wrong one is noticed."""
    ann.get("/n/lab/log")
    assert ann.text.count("ed_") >= 2
    ann.post("/n/lab/log", expected="")
    digest = re.search(r"Digest: ([0-9a-f]{64})", ann.text)
    assert "The log is what was written: 2 entries." in ann.text
    assert digest is not None
    ann.post("/n/lab/log", expected=digest[1])
    assert "what was written: 2 entries" in ann.text
    ann.post("/n/lab/log", expected="0" * 64)
    assert "is not what was written" in ann.text
    for what, name, lines in (
        ("log", "lab-log", 2),
        ("evidence", "lab-log-evidence", 5),
        ("edits", "lab-edits", 2),
    ):
        reply = ann.client.get(f"/console/n/lab/log/export/{what}")
        assert reply.headers["content-disposition"] == f'attachment; filename="{name}.ndjson"'
        assert reply.headers["content-security-policy"]
        assert len(reply.text.splitlines()) >= lines
    evidence = ann.client.get("/console/n/lab/log/export/evidence").content.splitlines()
    assert isinstance(msgspec.json.decode(evidence[-1], type=Evidence), LogHead)


def test_health_shows_gateways_to_admins_alone(people: People, ann: Visitor) -> None:
    """An editor sees the rest."""
    ann.get("/n/lab/health")
    assert "are decided" in ann.text
    assert "reachable" in ann.text
    assert "Gateways on this store" not in ann.text
    with visiting(people.locked.url, people.locked.admin) as root:
        root.get("/n/lab/health")
        assert "this one" in root.text


def test_traffic_shows_who_answered_and_which_edits_were_used(people: People, ann: Visitor) -> None:
    """Edits by the number of requests that they governed."""
    body = {"model": "m", "messages": [{"role": "user", "content": "How much is a day pass?"}]}
    for _ in range(3):
        people.locked.call(people.ann, "POST", "/v1/chat/completions", json=body, headers=LAB)
    ann.get("/n/lab/traffic")
    assert re.search(r"How much is a day pass\? [3-9]", ann.text)
    assert "an edit governs the question" in ann.text


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/n/default/proposals/{id}", {"verb": "approve", "reason": "x", "revision": "1"}),
        ("/n/default/proposals/{id}", {"verb": "reject", "reason": "x", "revision": "1"}),
        ("/n/one/new", DRAFT | {"kind": "fact", "state": "live", "expedite": "yes", "reason": "Now"}),
    ],
)
def test_an_editor_is_refused_what_needs_a_higher_role(
    people: People, path: str, fields: dict[str, str]
) -> None:
    """Forms that no page offered are refused by the API's own rules."""
    proposal = people.propose(key=people.bo, namespace="default", prompt="What is refused?")
    editor = people.locked.key("edit", "*", name="Ed")
    before = people.edits("one")
    with visiting(people.locked.url, editor) as visitor:
        reply = visitor.post(path.format(id=proposal["id"]), **fields)
        assert reply.status_code == 403
        assert "role" in visitor.text
    assert people.state(proposal) == "open"
    assert people.edits("one") == before


def test_a_link_to_another_site_is_no_page_of_the_console(ann: Visitor) -> None:
    """Unknown pages say so in words."""
    assert ann.get("/n/lab/nowhere").status_code == 404
    assert "There is nothing here" in ann.text
    assert ann.client.get("/console/static/..%2Fapp.py").status_code == 404
