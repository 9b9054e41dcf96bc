"""Four eyes over HTTP: a write is a proposal until enough others agree to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from serac_gateway.config.model import ConflictPolicy, RoutingConfig
from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Commit, Receipt
from tests.http.four_eyes import API, YES, People, running_people


@pytest.fixture
def people() -> Iterator[People]:
    with running_people() as running:
        yield running


def test_an_edit_is_in_force_once_enough_others_agree(people: People) -> None:
    """Until then nothing is stored; the log names the author and who agreed, and can be verified."""
    proposal = people.propose(id="harbour", reason="Took office")
    assert (proposal["state"], proposal["needed"], proposal["agreed"]) == ("open", 2, 0)
    assert people.edits() == {}
    assert people.log() == []
    first = people.say(people.bo, "approve", proposal)
    assert (first.status_code, first.json()["agreed"], first.headers["etag"]) == (200, 1, '"2"')
    assert people.edits() == {}
    last = people.say(people.cy, "approve", proposal).json()
    assert (last["state"], [verdict["reason"] for verdict in last["verdicts"]]) == (
        "accepted",
        ["Checked"] * 2,
    )
    assert people.edits()["harbour"]["author"].startswith("Ann Lee (key ")
    (entry,) = people.log()
    assert entry["author"].startswith("Ann Lee (key ")
    assert entry["approval"].startswith(f"proposal {proposal['id']} approved by Bo (key ")
    assert "Cy (key " in entry["approval"]
    asyncio.run(verify_log(people.locked.store, "default"))


def test_a_proposal_shows_what_it_would_change_field_by_field(people: People) -> None:
    """Against the current version, with conflicts and captured paraphrases, and not the whole edit."""
    people.accepted(id="harbour", subject="Marrowby")
    etag = people.call(people.ann, "GET", "/edits/harbour").headers["etag"]
    reply = people.call(
        people.ann,
        "PATCH",
        "/edits/harbour",
        json={"target_new": "Ilse Quennell"},
        headers={"if-match": etag},
    )
    assert reply.status_code == 202
    rival = people.propose(id="rival", target_new="Somebody else")
    details = people.call(people.bo, "GET", f"/proposals/{reply.json()['id']}").json()
    (change,) = details["changes"]
    assert change["fields"] == [
        {"field": "target_new", "before": "Ottilie Brandvold", "after": "Ilse Quennell"}
    ]
    assert (change["base_version"], change["current_version"], details["stale"]) == (1, 1, None)
    assert details["effect"]["previewed"] == 1
    assert [conflict["other_id"] for conflict in rival["effect"]["conflicts"]] == ["harbour"]
    assert rival["effect"]["paraphrases"] > 0


def test_nobody_agrees_to_their_own_proposal(people: People) -> None:
    """Not under a second key of the same name either, and an admin no more than others."""
    proposal = people.propose()
    refused = people.say(people.ann_too, "approve", proposal)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:serac:problem:permission-denied")
    assert people.say(people.ann_too, "reject", proposal).status_code == 403
    root = people.propose(people.locked.admin)
    assert people.say(people.locked.admin, "approve", root).status_code == 403
    twin = people.locked.key("admin", name="root")
    assert people.say(twin, "approve", root).status_code == 403
    assert people.edits() == {}


def test_a_second_key_of_an_approver_does_not_count(people: People) -> None:
    """Two agreements of one person are one."""
    proposal = people.propose()
    again = people.locked.key("approve", "*", name="BO")
    assert people.say(people.bo, "approve", proposal).json()["agreed"] == 1
    assert people.say(again, "approve", proposal).json()["agreed"] == 1
    assert people.state(proposal) == "open"


def test_a_replayed_agreement_changes_nothing(people: People) -> None:
    """Neither before the last one nor after it; and a key that came with another verdict is refused."""
    proposal = people.propose()
    headers = {"idempotency-key": "k1"}
    for _ in range(3):
        reply = people.say(people.bo, "approve", proposal, headers=headers)
        assert (reply.status_code, reply.json()["agreed"], reply.headers["etag"]) == (200, 1, '"2"')
    assert people.say(people.bo, "reject", proposal, headers=headers).status_code == 422
    assert people.say(people.cy, "approve", proposal, headers=headers).status_code == 422
    for _ in range(3):
        assert people.say(people.cy, "approve", proposal).json()["state"] == "accepted"
        assert people.say(people.bo, "approve", proposal, headers=headers).json()["state"] == "accepted"
    assert len(people.log()) == 1
    assert people.say(people.cy, "reject", proposal).status_code == 409


def test_one_refusal_closes_a_proposal(people: People) -> None:
    """Whoever agreed before; a reason is needed; afterwards nobody can accept it."""
    proposal = people.propose()
    people.say(people.bo, "approve", proposal)
    for body in (
        {},
        {"reason": ""},
        {"reason": "x" * 2_001},
        {"reason": 5},
        {"reason": " \t"},
        {"reason": "No", "all": True},
    ):
        for verb in ("approve", "reject", "withdraw"):
            assert people.say(people.locked.admin, verb, proposal, json=body).status_code == 400
    path = f"{API}/proposals/{proposal['id']}:reject"
    surrogate = people.locked.call(people.cy, "POST", path, content=b'{"reason": "\\ud800"}')
    assert surrogate.status_code == 400
    rejected = people.say(people.cy, "reject", proposal, json={"reason": "Wrong town"}).json()
    assert (rejected["state"], rejected["closing_reason"]) == ("rejected", "Wrong town")
    late = people.locked.key("approve", "*", name="Di")
    refused = people.say(late, "approve", proposal)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:serac:problem:proposal-conflict")
    assert people.edits() == {}


def test_an_author_or_an_admin_withdraws(people: People) -> None:
    """Under any key of the author's; nobody else may, and what is withdrawn cannot be accepted."""
    proposal = people.propose()
    assert people.say(people.bo, "withdraw", proposal).status_code == 403
    assert people.say(people.ann_too, "withdraw", proposal).json()["state"] == "withdrawn"
    assert people.say(people.ann, "withdraw", proposal).json()["state"] == "withdrawn"
    assert people.say(people.bo, "approve", proposal).status_code == 409
    assert people.say(people.locked.admin, "withdraw", people.propose()).json()["state"] == "withdrawn"


def test_each_role_may_do_its_own(people: People) -> None:
    """Chat nothing, edit propose and withdraw; only approve and admin decide, in their own namespaces."""
    proposal = people.propose()
    chat = people.locked.key("chat", "*", name="Chat")
    editor = people.locked.key("edit", "*", name="Ed")
    elsewhere = people.locked.key("approve", "one", name="Elsewhere")
    for key in (chat, editor, None):
        for verb in ("approve", "reject"):
            assert people.locked.call(
                key, "POST", f"{API}/proposals/{proposal['id']}:{verb}", json=YES
            ).status_code == (401 if key is None else 403)
    assert people.call(chat, "GET", "/proposals").status_code == 403
    assert people.call(editor, "GET", "/proposals").status_code == 200
    there = {"x-serac-namespace": "default"}
    assert people.say(elsewhere, "approve", proposal, headers=there).status_code == 403
    assert people.say(elsewhere, "approve", proposal).status_code == 404
    assert people.say(people.locked.admin, "approve", proposal).json()["agreed"] == 1
    assert people.state(proposal) == "open"


def test_the_agreement_of_a_revoked_key_no_longer_counts(people: People) -> None:
    """Who may not agree at the commit has not agreed."""
    proposal = people.propose()
    people.say(people.bo, "approve", proposal)
    keys = people.call(people.locked.admin, "GET", "/keys").json()["keys"]
    (bo,) = [key["id"] for key in keys if key["name"] == "Bo"]
    assert people.call(people.locked.admin, "DELETE", f"/keys/{bo}").status_code in (200, 204)
    assert people.say(people.cy, "approve", proposal).json()["state"] == "open"
    assert people.edits() == {}
    assert people.say(people.locked.admin, "approve", proposal).json()["state"] == "accepted"


def test_a_stale_proposal_says_so_and_cannot_be_accepted(people: People) -> None:
    """The version that it was made against must still be current; another id in its place, too."""
    people.accepted(id="harbour")
    headers = {"if-match": '"1"'}
    first = people.call(
        people.ann, "PATCH", "/edits/harbour", json={"target_new": "One"}, headers=headers
    ).json()
    second = people.call(
        people.ann, "PATCH", "/edits/harbour", json={"target_new": "Two"}, headers=headers
    ).json()
    added, taken = people.propose(id="new"), people.propose(id="new", target_new="Another")
    for proposal in (first, added):
        people.say(people.bo, "approve", proposal)
        assert people.say(people.cy, "approve", proposal).json()["state"] == "accepted"
    for proposal, words in ((second, "version 1 of edit 'harbour'"), (taken, "'new' exists by now")):
        details = people.call(people.bo, "GET", f"/proposals/{proposal['id']}").json()
        assert words in details["stale"]
        assert "withdraw it" in details["stale"]
        refused = people.say(people.bo, "approve", proposal)
        assert (refused.status_code, words in refused.json()["detail"]) == (409, True)
    assert people.edits()["harbour"]["target_new"] == "One"
    stale_write = people.call(
        people.ann, "PATCH", "/edits/harbour", json={"target_new": "Three"}, headers=headers
    )
    assert stale_write.status_code == 412


def test_approvers_at_the_same_time_commit_once(people: People) -> None:
    """No agreement is lost, and the edit is stored once."""
    others = [people.locked.key("approve", "*", name=f"Approver {number}") for number in range(6)]
    proposal = people.propose(id="harbour")
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda key: people.say(key, "approve", proposal), others))
    assert {reply.status_code for reply in replies} <= {200, 409, 412}
    assert people.state(proposal) == "accepted"
    assert [entry["version"] for entry in people.log()] == [1]


def test_an_agreement_to_what_was_not_read_is_refused(people: People) -> None:
    """If-Match names the revision; a text that is no entity tag is refused too."""
    proposal = people.propose()
    people.say(people.bo, "approve", proposal)
    assert people.say(people.cy, "approve", proposal, headers={"if-match": '"1"'}).status_code == 412
    assert people.say(people.cy, "approve", proposal, headers={"if-match": "nonsense"}).status_code == 400
    assert people.say(people.cy, "approve", proposal, headers={"if-match": '"2"'}).status_code == 200


def expire(people: People, proposal: dict[str, Any]) -> None:
    """Let its time be over."""
    proposals = people.locked.store.proposals()
    head = asyncio.run(proposals.get("default", proposal["id"]))
    past = datetime.now(UTC) - timedelta(seconds=1)
    asyncio.run(proposals.replace(msgspec.structs.replace(head, revision=head.revision + 1, expires_at=past)))


def test_an_expired_proposal_is_closed_by_whoever_looks(people: People) -> None:
    """Once, also when several look at it and agree to it at the same time; the list shows it as expired."""
    proposal = people.propose()
    people.say(people.bo, "approve", proposal)
    expire(people, proposal)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: people.say(people.cy, "approve", proposal), range(4)))
    assert [reply.status_code for reply in replies] == [409] * 4
    assert people.state(proposal) == "expired"
    listed = people.call(people.ann, "GET", "/proposals?state=expired").json()["proposals"]
    assert [head["id"] for head in listed] == [proposal["id"]]
    assert people.call(people.ann, "GET", "/proposals?state=open").json()["proposals"] == []
    assert people.edits() == {}
    assert people.counted("expired") == 1


class BreakingStore(InMemoryEditStore):
    """Its next commit fails: before it is made, or with its reply lost."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks: str | None = None

    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        breaks, self.breaks = self.breaks, None
        if breaks == "before":
            raise StoreUnavailableError("the connection broke off")
        receipt = await super().commit(namespace, commit)
        if breaks == "after":
            raise StoreUnavailableError("the reply is lost")
        return receipt


@pytest.mark.parametrize("breaks", ["before", "after"])
def test_a_last_agreement_that_breaks_off_can_be_repeated(breaks: str) -> None:
    """It was made with its proposal closed, or nothing was made and the proposal is open: nothing between."""
    store = BreakingStore()
    with running_people(store=store) as people:
        proposal = people.propose(id="harbour")
        people.say(people.bo, "approve", proposal)
        store.breaks = breaks
        assert people.say(people.cy, "approve", proposal).status_code == 503
        made = breaks == "after"
        assert (people.state(proposal), set(people.edits())) == (
            ("accepted", {"harbour"}) if made else ("open", set())
        )
        assert people.say(people.cy, "approve", proposal).json()["state"] == "accepted"
        assert [entry["version"] for entry in people.log()] == [1]


def test_conflicts_are_dealt_with_when_a_proposal_is_accepted() -> None:
    """Where contradictions are refused, a proposal that has come to contradict an edit is not committed."""
    with running_people(routing=RoutingConfig(conflicts=ConflictPolicy.REJECT)) as people:
        first, second = people.propose(id="a"), people.propose(id="b", target_new="Somebody else")
        for key in (people.bo, people.cy):
            people.say(key, "approve", first)
        people.say(people.bo, "approve", second)
        refused = people.say(people.cy, "approve", second)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:serac:problem:edit-contradicts")
        assert (people.state(second), set(people.edits())) == ("open", {"a"})
        lines = people.call(
            people.ann,
            "POST",
            "/edits:import",
            content=b"{}",
            headers={"content-type": "application/x-ndjson"},
        )
        assert (lines.status_code, lines.json()["type"]) == (409, "urn:serac:problem:approval-needed")


def test_what_an_accepted_proposal_supersedes_is_retired_with_it() -> None:
    """In one commit, whose every entry names who agreed."""
    with running_people(routing=RoutingConfig(conflicts=ConflictPolicy.SUPERSEDE)) as people:
        people.accepted(id="a")
        people.accepted(id="b", target_new="Somebody else")
        assert {edit["id"]: edit["state"] for edit in people.edits().values()} == {
            "a": "retired",
            "b": "live",
        }
        assert all("approved by Bo" in entry["approval"] for entry in people.log())
