"""The list's filters for audience and review, and one change to several edits at a time."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from serac_gateway.config.model import AudienceSource
from tests.control_plane import ROUTING
from tests.http.console_visitor import Visitor, visiting
from tests.http.four_eyes import People, running_people

REGIONS = {"region": AudienceSource(header="x-region")}
TODAY = datetime.now(UTC).date()


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with running_people(routing=msgspec.structs.replace(ROUTING, audience_from=REGIONS)) as people:
        yield people


@pytest.fixture
def ann(people: People) -> Iterator[Visitor]:
    with visiting(people.locked.url, people.ann) as visitor:
        yield visitor


def added(people: People, namespace: str, prompt: str, **fields: object) -> str:
    body = {"prompt": prompt, "target_new": "Ada", **fields}
    headers = {"x-serac-namespace": namespace}
    reply = people.call(people.locked.admin, "POST", "/edits", json=body, headers=headers)
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


def listed(visitor: Visitor, query: str) -> list[str]:
    visitor.get(query)
    rows = re.findall(r'<th scope="row"><a[^>]*>(.*?)</a>', visitor.page.text)
    return [html.unescape(row) for row in rows]


def test_the_list_is_filtered_by_audience_and_review(people: People, ann: Visitor) -> None:
    """Each together with the others, by date where it is about dates, and exports follow."""
    soon, late = (str(TODAY + timedelta(days=days)) for days in (20, 80))
    added(people, "due", "Late?", review_by=late)
    added(people, "due", "Over?", review_by="2020-01-01", kind="instruction")
    added(people, "due", "Soon in the EU?", review_by=soon, audience={"region": ["eu"]})
    added(people, "due", "Never?")
    assert listed(ann, "/n/due/edits?due=0") == ["Over?"]
    assert "review by 2020-01-01" in ann.text
    assert listed(ann, "/n/due/edits?due=30") == ["Over?", "Soon in the EU?"]
    assert listed(ann, "/n/due/edits?due=90") == ["Over?", "Soon in the EU?", "Late?"]
    assert listed(ann, "/n/due/edits?due=90&kind=fact&q=eu") == ["Soon in the EU?"]
    assert listed(ann, "/n/due/edits?due=30&state=shadow") == []
    assert listed(ann, "/n/due/edits?audience=region%3Deu") == ["Soon in the EU?"]
    exported = ann.client.get("/console/n/due/export/ndjson?due=30&audience=region%3Deu").text
    assert exported.count("\n") == 1
    assert ann.get("/n/due/edits?due=soon").status_code == 400
    assert ann.get("/n/due/edits?audience=eu").status_code == 400


def test_several_edits_are_changed_after_a_look_at_them(people: People, ann: Visitor) -> None:
    """With reason and ticket; what somebody changed meanwhile is left out."""
    ids = [added(people, "many", f"Who is {number}?") for number in range(4)]
    ann.get("/n/many/edits")
    picked = {f"pick.{edit_id}": "1" for edit_id in ids}
    people.call(
        people.bo,
        "PATCH",
        f"/edits/{ids[3]}",
        json={"target_new": "Bea"},
        headers={"x-serac-namespace": "many", "if-match": "*"},
    )
    ann.post("/n/many/bulk", act="review_by", **picked)
    assert "This concerns 3 edits" in ann.text
    assert "Somebody changed these" in ann.text
    assert all(edit["review_by"] is None for edit in people.edits("many").values())
    why = {"reason": "Yearly", "ticket": "T-7"}
    ann.post("/n/many/bulk", sure="yes", act="review_by", value="2027-05-01", **why, **picked)
    assert "Done: 3, proposed: 0, refused: 0." in ann.text
    edits = people.edits("many")
    assert [edits[edit_id]["review_by"] for edit_id in ids] == [*["2027-05-01"] * 3, None]
    assert (edits[ids[0]]["reason"], edits[ids[0]]["ticket"]) == ("Yearly", "T-7")
    second = {f"pick.{edit_id}": "2" for edit_id in ids[:2]}
    ann.post("/n/many/bulk", sure="yes", act="audience", value="region=eu,uk", **second)
    assert people.edits("many")[ids[0]]["audience"] == {"region": ["eu", "uk"]}
    third = {f"pick.{edit_id}": "3" for edit_id in ids[:2]}
    ann.post("/n/many/bulk", sure="yes", act="audience", value="planet=mars", **third)
    assert "refused: 2." in ann.text
    ann.post("/n/many/bulk", sure="yes", act="shadow", **third)
    ann.post("/n/many/bulk", sure="yes", act="retire", **{f"pick.{ids[0]}": "4", f"pick.{ids[2]}": "2"})
    states = {edit_id: edit["state"] for edit_id, edit in people.edits("many").items()}
    assert [states[edit_id] for edit_id in ids] == ["retired", "shadow", "retired", "live"]
    ann.post("/n/many/bulk", act="retire")
    assert "Nothing was picked." in ann.text
    for crafted in ("x/versions", ":due", ""):
        assert ann.post("/n/many/bulk", act="retire", **{f"pick.{crafted}": "1"}).status_code == 200
        assert "Nothing was picked." in ann.text
    assert ann.post("/n/many/bulk", act="purge", **picked).status_code == 404
    assert ann.get("/n/many/bulk").url.path == "/console/n/many/edits"


def test_where_others_must_agree_each_is_proposed(people: People, ann: Visitor) -> None:
    """And an admin who expedites it says why."""
    proposal = people.propose(namespace="one")
    people.say(people.bo, "approve", proposal, headers={"x-serac-namespace": "one"})
    (edit_id,) = proposal["edit_ids"]
    ann.get("/n/one/edits")
    ann.post("/n/one/bulk", sure="yes", act="retire", **{f"pick.{edit_id}": "1"})
    assert "Done: 0, proposed: 1, refused: 0." in ann.text
    assert "/console/n/one/proposals/" in ann.page.text
    assert people.edits("one")[edit_id]["state"] == "live"


def test_a_question_is_asked_with_labels(people: People, ann: Visitor) -> None:
    """An edit for the EU answers there alone; a label that is none is named."""
    added(people, "eu", "Who runs the ferry?", audience={"region": ["eu"]})
    path = "/n/eu/try"
    ann.get(path)
    fields = {"question": "Who runs the ferry?"}
    ann.post(path, **fields, **{"label.region": "eu"})
    assert "an edit governs the question" in ann.text
    assert "Ada" in ann.text.partition("The gateway, with edits")[2]
    assert 'value="eu"' in ann.page.text
    ann.post(path, **fields, **{"label.region": "us"})
    assert "an edit governs the question" not in ann.text
    ann.post(path, **fields, **{"label.region": "<b>eu\n"})
    assert "region" in ann.text
    assert "an edit governs the question" not in ann.text


def test_a_retirement_takes_a_ticket(people: People, ann: Visitor) -> None:
    """As does a restoration."""
    edit_id = added(people, "desk", "Who?")
    for act in ("retire", "restore"):
        ann.get(f"/n/desk/edits/{edit_id}/{act}")
        ann.post(f"/n/desk/edits/{edit_id}/{act}", **ann.hidden, reason="Why", ticket=f"T-{act}")
        assert people.edits("desk")[edit_id]["ticket"] == f"T-{act}"
