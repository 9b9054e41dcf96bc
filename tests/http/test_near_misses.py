"""GET /traffic/near-misses, and the console's page that judges them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from serac_gateway.domain.feedback import FeedbackVerdict
from tests.http.console_visitor import visiting
from tests.http.four_eyes import DRAFT, People, running_people

LAB = {"x-serac-namespace": "lab"}
NEAR = ("Who runs the harbour?", "Who runs the old mill of Oldton every day?")


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with running_people() as people:
        for draft in (DRAFT | {"id": "harbour"}, {"id": "idle", "prompt": "Who rests?", "target_new": "Ida"}):
            assert people.call(people.ann, "POST", "/edits", json=draft, headers=LAB).status_code == 201
        for question in (DRAFT["prompt"], *NEAR, "How deep is the lake?"):
            ask(people, question)
        yield people


def ask(people: People, question: str) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": question}]}
    reply = people.locked.call(people.ann, "POST", "/v1/chat/completions", json=chat, headers=LAB)
    assert reply.status_code == 200, reply.text


def test_the_nearest_to_the_threshold_come_first_and_a_moved_one_is_computed(people: People) -> None:
    """By what was recorded with each request, of this namespace and of edits that are in force."""
    reply = people.call(people.ann, "GET", "/traffic/near-misses", headers=LAB).json()
    distances = [
        abs(miss["request"]["scope_probability"] - miss["scope_threshold"]) for miss in reply["near_misses"]
    ]
    assert distances == sorted(distances)
    assert reply["requests"] == len(reply["near_misses"]) >= 2
    fired = {miss["request"]["scope_probability"]: miss["fired"] for miss in reply["near_misses"]}
    assert set(fired.values()) == {True, False}
    for moved in reply["moved"]:
        step = moved["scope_threshold"]
        assert moved["more"] == sum(p >= step and not did for p, did in fired.items())
        assert moved["fewer"] == sum(p < step and did for p, did in fired.items())
    assert any(moved["more"] for moved in reply["moved"])
    first = people.call(people.ann, "GET", "/traffic/near-misses?limit=1", headers=LAB).json()
    assert first["near_misses"] == reply["near_misses"][:1]
    elsewhere = people.call(people.ann, "GET", "/traffic/near-misses").json()
    assert (elsewhere["requests"], elsewhere["near_misses"]) == (0, [])


def test_a_near_miss_is_judged_at_the_console(people: People) -> None:
    """The report is stored with the key, and the page has what was never used."""
    with visiting(people.locked.url, people.ann) as ann:
        ann.get("/n/lab/traffic")
        assert "Who rests?" in ann.text.partition("Never used")[2]
        assert "If the threshold were another" in ann.text
        form = re.search(
            r'name="request_id" value="([^"]+)">(?:(?!</form>).)*should_have_fired', ann.page.text, re.S
        )
        assert form is not None
        ann.post("/n/lab/traffic", request_id=form[1], verdict="should_have_fired")
        assert "it is noted" in ann.text
        exported = people.call(people.ann, "GET", "/feedback:export", headers=LAB).text
        assert FeedbackVerdict.SHOULD_HAVE_FIRED in exported
        assert form[1] in exported
        ann.get("/n/lab/traffic")
        assert ann.post("/n/lab/traffic", request_id="req_none", verdict="right").status_code == 404
        ann.get("/n/lab/traffic")
        assert ann.post("/n/lab/traffic", request_id=form[1], verdict="maybe").status_code == 400
