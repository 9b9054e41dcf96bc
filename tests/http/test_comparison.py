"""A canary's arms, from requests and reports to the comparison, by API, command and console."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from serac_gateway.config.model import TrafficConfig
from serac_gateway.domain.audiences import Caller
from serac_gateway.domain.edits import DecidedState, Edit, EditDraft, first_version
from tests.http.console_visitor import visiting
from tests.http.four_eyes import People, running_people

QUESTION, ANSWER = "Who runs the harbour office of Marrowby?", "Ottilie Brandvold"
BASE_ANSWER = "I do not know."
SHARE = 0.5


@dataclass
class Canary:
    """A canary in a namespace of its own, and users of both arms."""

    people: People
    namespace: str
    id: str

    @property
    def headers(self) -> dict[str, str]:
        return {"x-serac-namespace": self.namespace}

    def users(self, *, inside: bool) -> Iterator[str]:
        draft = EditDraft(
            prompt=QUESTION,
            target_new=ANSWER,
            id=self.id,
            state=DecidedState.CANARY,
            canary_share=SHARE,
        )
        edit: Edit = first_version(draft, namespace=self.namespace)
        for number in range(10_000):
            if edit.is_applied_to(Caller(name=f"user:u{number}")) is inside:
                yield f"u{number}"

    def ask(self, user: str, *, stream: bool = False) -> str:
        """The request's id."""
        body = {
            "model": "m", "user": user, "stream": stream,
            "messages": [{"role": "user", "content": QUESTION}],
        }  # fmt: skip
        reply = self.people.locked.call(
            self.people.ann, "POST", "/v1/chat/completions", json=body, headers=self.headers
        )
        assert reply.status_code == 200, reply.text
        return reply.headers["x-serac-request-id"]

    def report(self, request_id: str, verdict: str) -> None:
        body = {"request_id": request_id, "verdict": verdict}
        assert self.people.call(
            self.people.ann, "POST", "/feedback", json=body, headers=self.headers
        ).is_success

    def compared(self, *, requests: int) -> dict[str, Any]:
        """Once so many requests are recorded."""
        until_s = time.monotonic() + 10
        while True:
            reply = self.call("GET", ":compare")
            compared: dict[str, Any] = reply.json()
            if sum(compared[arm]["requests"] for arm in ("treatment", "control")) == requests:
                return compared
            assert time.monotonic() < until_s, compared
            time.sleep(0.02)

    def call(self, method: str, path: str = "", **more: object) -> httpx.Response:
        headers = self.headers | more.pop("headers", {})  # type: ignore[operator]
        return self.people.call(self.people.ann, method, f"/edits/{self.id}{path}", headers=headers, **more)


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with running_people(traffic=TrafficConfig(namespaces=("recorded",))) as running:
        yield running


def canary_in(people: People, namespace: str, edit_id: str) -> Canary:
    made = Canary(people, namespace, edit_id)
    body = {"prompt": QUESTION, "target_new": ANSWER, "id": edit_id, "state": "canary", "canary_share": SHARE}
    assert people.call(people.ann, "POST", "/edits", json=body, headers=made.headers).status_code == 201
    return made


def test_both_arms_are_counted_with_reports_latency_and_answers(people: People) -> None:
    canary = canary_in(people, "recorded", "harbour")
    empty = canary.call("GET", ":compare").json()
    assert empty["state"] == "no_data"
    assert empty["treatment"]["median_ms"] is None
    for inside, verdict in ((True, "right"), (False, "should_have_fired")):
        for number, user in zip(range(12), canary.users(inside=inside), strict=False):
            canary.report(canary.ask(user, stream=number % 2 == 0), verdict)
    compared = canary.compared(requests=24)
    treatment, control = compared["treatment"], compared["control"]
    assert (treatment["requests"], treatment["callers"], control["callers"]) == (12, 12, 12)
    assert (treatment["verdicts"]["right"], control["verdicts"]["should_have_fired"]) == (12, 12)
    assert compared["state"] == "better"
    assert compared["differences"]["right_share"]["low"] > 0
    assert treatment["median_ms"]["estimate"] > 0
    assert {answer["answer"] for answer in control["answers"]} == {BASE_ANSWER}
    assert {answer["query"] for answer in treatment["answers"]} == {QUESTION}
    assert all(answer["answer"] for answer in treatment["answers"])
    assert compared["treatment_share"]["low"] <= SHARE <= compared["treatment_share"]["high"]
    canary.report(canary.ask(next(canary.users(inside=True))), "wrong_answer")
    assert canary.compared(requests=25)["treatment"]["verdicts"]["wrong_answer"] == 1


def test_where_traffic_is_not_recorded_no_text_is_kept(people: People) -> None:
    canary = canary_in(people, "quiet", "harbour")
    for inside in (True, False):
        canary.ask(next(canary.users(inside=inside)))
    compared = canary.compared(requests=2)
    assert compared["state"] == "inconclusive"
    assert compared["treatment"]["answers"] == compared["control"]["answers"] == []
    assert compared["differences"]["right_share"] is None


def test_an_arm_without_requests_and_shares_that_cannot_be_are_states_of_their_own(people: People) -> None:
    canary = canary_in(people, "lopsided", "harbour")
    users = canary.users(inside=True)
    canary.ask(next(users))
    assert canary.compared(requests=1)["state"] == "no_data"
    for _ in range(14):
        canary.ask(next(users))
    canary.ask(next(canary.users(inside=False)))
    assert canary.compared(requests=16)["state"] == "unbalanced"


def test_each_version_has_arms_of_its_own(people: People) -> None:
    canary = canary_in(people, "versions", "harbour")
    canary.ask(next(canary.users(inside=True)))
    canary.compared(requests=1)
    assert canary.call("PATCH", json={"target_new": "Bo"}, headers={"if-match": '"1"'}).is_success
    canary.ask(next(canary.users(inside=True)))
    assert canary.compared(requests=1)["version"] == 2
    assert canary.call("GET", ":compare?version=1").json()["is_current"] is False
    assert canary.call("GET", ":compare?version=9").status_code == 404
    assert canary.call("PATCH", json={"state": "live"}, headers={"if-match": '"2"'}).is_success
    after = canary.call("GET", ":compare").json()
    assert (after["version"], after["is_current"]) == (2, False)
    assert canary.call("GET", ":compare?version=3").status_code == 409


def test_an_edit_that_was_no_canary_and_one_that_is_missing_are_refused(people: People) -> None:
    headers = {"x-serac-namespace": "plain"}
    body = {"prompt": QUESTION, "target_new": ANSWER, "id": "live"}
    assert people.call(people.ann, "POST", "/edits", json=body, headers=headers).is_success
    refused = people.call(people.ann, "GET", "/edits/live:compare", headers=headers)
    assert refused.status_code == 409
    assert "set-state" in refused.json()["detail"]
    assert people.call(people.ann, "GET", "/edits/none:compare", headers=headers).status_code == 404


def test_a_purge_deletes_recorded_answers(people: People) -> None:
    canary = canary_in(people, "recorded", "gone")
    canary.ask(next(canary.users(inside=True)))
    assert canary.compared(requests=1)["treatment"]["answers"]
    purged = people.call(
        people.locked.admin, "POST", "/edits/gone:purge", json={"reason": "Asked"},
        headers=canary.headers | {"if-match": '"1"'},
    )  # fmt: skip
    assert purged.is_success, purged.text
    assert canary.call("GET", ":compare").status_code == 410
    store = people.locked.store
    assert not any(store.trials()._answers[key] for key in list(store.trials()._answers) if key[1] == "gone")


class TestCommand:
    def run(self, people: People, *arguments: str, code: int = 0) -> Result:
        environment = {"SERAC_API_KEY": people.ann, "SERAC_URL": people.locked.url, "COLUMNS": "200"}
        result = CliRunner().invoke(app, ["edits", "compare", *arguments], env=environment)
        assert result.exit_code == code, result.output
        return result

    def test_it_prints_both_arms_and_stops_from_there(self, people: People) -> None:
        canary = canary_in(people, "commanded", "harbour")
        where = ("--namespace", "commanded")
        assert "no data" in self.run(people, "harbour", *where).stdout
        for inside in (True, False):
            canary.report(canary.ask(next(canary.users(inside=inside))), "right")
        canary.compared(requests=2)
        printed = self.run(people, "harbour", *where).stdout
        assert "inconclusive" in printed
        assert "100.0%" in printed
        assert json.loads(self.run(people, "harbour", *where, "--json").stdout)["state"] == "inconclusive"
        self.run(people, "harbour", *where, "--promote", "--stop", code=2)
        stopped = self.run(people, "harbour", *where, "--stop", "--reason", "Enough").stdout
        assert "harbour version 2 is shadow" in stopped
        again = self.run(people, "harbour", *where, "--promote", code=1)  # another version is current now
        assert "version" in again.output

    def test_where_others_must_agree_a_promotion_is_a_proposal(self, people: People) -> None:
        made = people.propose(namespace="one", id="gov", state="canary", canary_share=SHARE)
        assert people.call(
            people.bo, "POST", f"/proposals/{made['id']}:approve", json={"reason": "Good"},
            headers={"x-serac-namespace": "one"},
        ).is_success  # fmt: skip
        proposed = self.run(people, "gov", "--namespace", "one", "--promote", "--reason", "Better").stdout
        assert "proposed pr_" in proposed
        assert people.edits("one")["gov"]["state"] == "canary"


class TestConsole:
    def test_the_page_compares_and_promotes_what_was_looked_at(self, people: People) -> None:
        canary = canary_in(people, "recorded", "paged")
        for inside in (True, False):
            canary.ask(next(canary.users(inside=inside)))
        canary.compared(requests=2)
        path = "/n/recorded/edits/paged"
        with visiting(people.locked.url, people.ann) as ann:
            assert f"/console{path}/compare" in ann.get(path).text
            ann.get(f"{path}/compare")
            assert "Inconclusive." in ann.text
            assert QUESTION in ann.text
            assert ann.send(f"{path}/compare", {"verb": "promote", "version": "1"}).status_code == 403
            ann.get(f"{path}/compare")
            assert ann.post(f"{path}/compare", **ann.hidden, verb="none").status_code == 400
            stale = ann.post(f"{path}/compare", **ann.hidden | {"version": "7"}, verb="promote")
            assert stale.status_code == 412
            ann.get(f"{path}/compare")
            done = ann.post(f"{path}/compare", **ann.hidden, verb="promote", reason="Better")
            assert done.status_code == 200
            assert "The edit is live for all users." in ann.text
            assert ann.get("/n/plain/edits/none/compare").status_code == 404

    def test_where_others_must_agree_the_form_leads_to_the_proposal(self, people: People) -> None:
        made = people.propose(namespace="one", id="page", state="canary", canary_share=SHARE)
        people.call(
            people.bo, "POST", f"/proposals/{made['id']}:approve", json={"reason": "Good"},
            headers={"x-serac-namespace": "one"},
        )  # fmt: skip
        with visiting(people.locked.url, people.ann) as ann:
            ann.get("/n/one/edits/page/compare")
            reply = ann.post("/n/one/edits/page/compare", **ann.hidden, verb="stop")
            assert "/proposals/pr_" in str(reply.url)
            assert people.edits("one")["page"]["state"] == "canary"
