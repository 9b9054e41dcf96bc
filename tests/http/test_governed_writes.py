"""No call that writes edits goes round the agreement of others, and admins that do are marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import msgspec
import pytest

from tests.http.four_eyes import DRAFT, YES, People, running_people


@pytest.fixture
def people() -> Iterator[People]:
    with running_people() as running:
        yield running


WRITES: dict[str, Callable[[People, str, dict[str, str]], httpx.Response]] = {
    "add": lambda people, key, headers: people.call(key, "POST", "/edits", json=DRAFT, headers=headers),
    "change": lambda people, key, headers: people.call(
        key, "PATCH", "/edits/harbour", json={"target_new": "X", "reason": "R"}, headers=headers
    ),
    "state": lambda people, key, headers: people.call(
        key, "PATCH", "/edits/harbour", json={"state": "shadow"}, headers=headers
    ),
    "retire": lambda people, key, headers: people.call(key, "DELETE", "/edits/harbour", headers=headers),
    "restore": lambda people, key, headers: people.call(
        key, "POST", "/edits/gone:restore", json={}, headers=headers
    ),
    "rollback": lambda people, key, headers: people.call(
        key, "POST", "/edits/gone:rollback", json={"version": 1}, headers=headers
    ),
    "rollback_all": lambda people, key, headers: people.call(
        key, "POST", "/rollback", json={"log_id": "0-0"}, headers=headers
    ),
}


def retire_versions(people: People, key: str, headers: dict[str, str]) -> httpx.Response:
    edit = people.edits()["harbour"]
    made = {name: edit[name] for name in ("id", "version", "created_at")}
    body = {"edits": [made], "reason": "The base model has learnt it"}
    return people.call(key, "POST", "/edits:retire", json=body, headers=headers)


WRITES["retire_versions"] = retire_versions


@pytest.fixture
def stored(people: People) -> People:
    """With an edit that is live, and a retired one."""
    people.accepted(id="harbour")
    people.accepted(id="gone", prompt="Who was mayor?")
    reply = people.call(people.ann, "DELETE", "/edits/gone", headers={"if-match": "*"}).json()
    for key in (people.bo, people.cy):
        people.say(key, "approve", reply)
    return people


@pytest.mark.parametrize("name", WRITES)
def test_no_write_goes_round_the_others(stored: People, name: str) -> None:
    """Whoever sends it, an admin included: it is a proposal, and commits what it said when others agree."""
    before = stored.log()
    for key in (stored.ann, stored.bo, stored.locked.admin):
        reply = WRITES[name](stored, key, {"if-match": "*"})
        assert (reply.status_code, reply.json()["state"]) == (202, "open"), reply.text
    assert stored.log() == before
    proposal = WRITES[name](stored, stored.ann, {"if-match": "*"}).json()
    stored.say(stored.bo, "approve", proposal)
    assert stored.say(stored.cy, "approve", proposal).json()["state"] == "accepted"
    made = stored.log()[len(before) :]
    assert {entry["edit_id"] for entry in made} == set(proposal["edit_ids"])
    assert all("approved by" in entry["approval"] for entry in made)


@pytest.mark.parametrize("name", WRITES)
def test_an_admin_can_do_without_in_a_hurry_and_the_log_says_so(stored: People, name: str) -> None:
    """With a header that other roles may not send, and a reason."""
    hurry = {"if-match": "*", "x-serac-expedite": "true"}
    before = stored.log()
    for key in (stored.ann, stored.bo):
        assert WRITES[name](stored, key, hurry).status_code == 403
    assert WRITES[name](stored, stored.locked.admin, hurry | {"x-serac-expedite": "yes"}).status_code == 400
    reply = WRITES[name](stored, stored.locked.admin, hurry)
    if name in ("change", "rollback_all", "retire_versions"):  # which have a reason
        assert reply.status_code == 200, reply.text
        made = stored.log()[len(before) :]
        assert made
        assert all(entry["approval"].startswith("expedited by Root (key ") for entry in made)
    else:
        assert (reply.status_code, reply.json()["field"]) == (400, "reason")
        assert stored.log() == before


def test_a_purge_is_an_admins_and_marked(stored: People) -> None:
    """What must be forgotten waits for nobody; its proposals are gone with it."""
    waiting = WRITES["change"](stored, stored.ann, {"if-match": "*"}).json()
    body = {"reason": "Article 17"}
    for key in (stored.ann, stored.bo):
        assert (
            stored.call(key, "POST", "/edits/harbour:purge", json=body, headers={"if-match": "*"}).status_code
            == 403
        )
    purge = stored.call(
        stored.locked.admin, "POST", "/edits/harbour:purge", json=body, headers={"if-match": "*"}
    )
    assert purge.status_code == 200
    assert stored.log()[-1]["approval"].startswith("expedited by Root")
    assert stored.call(stored.bo, "GET", f"/proposals/{waiting['id']}").status_code == 404
    assert stored.say(stored.bo, "approve", waiting).status_code == 404
    left = stored.call(stored.bo, "GET", "/proposals").json()["proposals"]
    assert {edit_id for proposal in left for edit_id in proposal["edit_ids"]} == {"gone"}


def test_an_import_becomes_one_proposal(people: People) -> None:
    """Bad lines are refused as ever, lines that are stored already are named, all others wait together."""
    people.accepted(id="harbour")
    lines = [
        {"id": "harbour", **DRAFT},
        {"id": "b", "prompt": "Who is b?", "target_new": "B"},
        {"id": "b", "prompt": "Who is b?", "target_new": "B"},
        {"id": "b", "prompt": "Who is b?", "target_new": "Another"},
        {"id": "harbour", "prompt": "Who is c?", "target_new": "C"},
        {"prompt": "", "target_new": "D"},
        {"prompt": "Who is e?", "target_new": "E"},
    ]
    content = b"\n".join(map(msgspec.json.encode, lines))
    before = people.log()
    dry_run = people.call(people.ann, "POST", "/edits:import?dry_run=true", content=content)
    reply = people.call(
        people.ann, "POST", "/edits:import", content=content, headers={"content-type": "application/x-ndjson"}
    )
    outcomes = [msgspec.json.decode(line) for line in reply.content.splitlines()]
    assert [("error" in line, line.get("proposed", False)) for line in outcomes[:-1]] == [
        *((False, False), (False, True), (False, True)),
        *((True, False), (True, False), (True, False), (False, True)),
    ]
    foreseen = [msgspec.json.decode(line) for line in dry_run.content.splitlines()]
    assert [("error" in line, line.get("proposed", False)) for line in foreseen] == [
        ("error" in line, line.get("proposed", False)) for line in outcomes[:-1]
    ]
    proposal = outcomes[-1]["proposal"]
    assert (proposal["action"], len(proposal["edit_ids"])) == ("import", 2)
    assert people.log() == before
    people.say(people.bo, "approve", proposal)
    assert people.say(people.cy, "approve", proposal).json()["state"] == "accepted"
    assert set(people.edits()) == {"harbour", *proposal["edit_ids"]}


def test_an_admin_imports_in_a_hurry_what_has_a_reason(people: People) -> None:
    """Line by line; other roles may not."""
    hurry = {"content-type": "application/x-ndjson", "x-serac-expedite": "true"}
    lines = [{"id": "a", **DRAFT}, {"id": "b", "reason": "Outage", **DRAFT}]
    content = b"\n".join(map(msgspec.json.encode, lines))
    assert people.call(people.ann, "POST", "/edits:import", content=content, headers=hurry).status_code == 403
    reply = people.call(people.locked.admin, "POST", "/edits:import", content=content, headers=hurry)
    outcomes = [msgspec.json.decode(line) for line in reply.content.splitlines()]
    assert [outcome.get("error", {}).get("field") for outcome in outcomes] == ["reason", None]
    assert [entry["approval"].startswith("expedited by Root") for entry in people.log()] == [True]


def test_more_lines_than_a_proposal_takes_are_refused_by_line(people: People) -> None:
    """The first thousand are proposed, the rest named."""
    content = b"\n".join(
        msgspec.json.encode({"id": f"e{number}", "prompt": f"Who is {number}?", "target_new": "X"})
        for number in range(1_003)
    )
    reply = people.call(
        people.ann, "POST", "/edits:import", content=content, headers={"content-type": "application/x-ndjson"}
    )
    outcomes = [msgspec.json.decode(line) for line in reply.content.splitlines()]
    assert [line["line"] for line in outcomes if "error" in line] == [1_001, 1_002, 1_003]
    assert len(outcomes[-1]["proposal"]["edit_ids"]) == 1_000


def test_a_repeated_request_opens_one_proposal(people: People) -> None:
    """As it would add one edit; the key with another body is refused."""
    headers = {"idempotency-key": "once"}
    replies = [people.call(people.ann, "POST", "/edits", json=DRAFT, headers=headers) for _ in range(3)]
    assert len({reply.json()["id"] for reply in replies}) == 1
    other = people.call(people.ann, "POST", "/edits", json=DRAFT | {"reason": "R"}, headers=headers)
    assert other.status_code == 422
    assert len(people.call(people.ann, "GET", "/proposals").json()["proposals"]) == 1


def test_the_list_has_filters_and_pages(people: People) -> None:
    """By state and by edit; pages walk through all."""
    proposals = [people.propose(id=f"e{number}") for number in range(5)]
    people.say(people.bo, "reject", proposals[1])

    def ids(query: str) -> list[str]:
        walked, cursor = [], ""
        while True:
            page = people.call(people.ann, "GET", f"/proposals?limit=2{query}{cursor}").json()
            walked += [proposal["id"] for proposal in page["proposals"]]
            if page["next_cursor"] is None:
                return walked
            cursor = f"&cursor={page['next_cursor']}"

    every = [proposal["id"] for proposal in proposals]
    assert sorted(ids("")) == sorted(every)
    assert sorted(ids("&state=open")) == sorted([every[0], *every[2:]])
    assert ids("&state=rejected") == [every[1]]
    assert ids("&edit_id=e3") == [every[3]]
    for query in ("state=lost", "cursor=x", "limit=0", "edit_id=."):
        assert people.call(people.ann, "GET", f"/proposals?{query}").status_code == 400
    assert people.call(people.ann, "GET", "/proposals/pr_1").status_code == 400
    assert people.call(people.ann, "GET", f"/proposals/pr_{'0' * 22}").status_code == 404


def test_a_namespace_without_rules_is_as_before(people: People) -> None:
    """Writes take effect at once, and the log has no approval; the header of a hurry changes nothing."""
    for headers in ({"x-serac-namespace": "free"}, {"x-serac-namespace": "free", "x-serac-expedite": "true"}):
        assert people.call(people.ann, "POST", "/edits", json=DRAFT, headers=headers).status_code == 201
    assert [entry["approval"] for entry in people.log("free")] == [None, None]


def test_where_nobody_has_to_agree_a_write_can_still_be_proposed(people: People) -> None:
    """By a header: one other must agree then. What is never proposed is refused, and so are other words."""
    header = {"x-serac-namespace": "free"}
    propose = header | {"x-serac-propose": "true"}
    reply = people.call(people.ann, "POST", "/edits", json=DRAFT | {"id": "harbour"}, headers=propose)
    assert (reply.status_code, reply.json()["needed"]) == (202, 1)
    assert people.edits("free") == {}
    path = f"/proposals/{reply.json()['id']}:approve"
    own = people.call(people.ann_too, "POST", path, json=YES, headers=header)
    assert own.status_code == 403
    agreed = people.call(people.bo, "POST", path, json=YES, headers=header)
    assert (agreed.status_code, agreed.json()["state"]) == (200, "accepted")
    assert people.edits("free").keys() == {"harbour"}
    for method, call, body in (
        ("PATCH", "/edits/harbour", {"target_new": "Ilse"}),
        ("DELETE", "/edits/harbour", None),
        ("POST", "/rollback", {"log_id": "0-0"}),
    ):
        more = {} if body is None else {"json": body}
        reply = people.call(people.ann, method, call, headers=propose | {"if-match": "*"}, **more)
        assert reply.status_code == 202, reply.text
    assert people.edits("free")["harbour"]["version"] == 1
    admin = people.locked.admin
    purge = propose | {"if-match": "*"}
    refused = people.call(admin, "POST", "/edits/harbour:purge", json={"reason": "R"}, headers=purge)
    assert (refused.status_code, refused.json()["field"]) == (409, "x-serac-propose")
    for headers in ({"x-serac-propose": "yes"}, {"x-serac-propose": "true", "x-serac-expedite": "true"}):
        reply = people.call(admin, "POST", "/edits", json=DRAFT, headers=header | headers)
        assert (reply.status_code, reply.json()["field"]) == (400, "x-serac-propose")


def test_a_write_without_what_the_namespace_wants_to_know_is_refused(people: People) -> None:
    """The error names field and namespace; a source is wanted of new content only."""
    headers = {"x-serac-namespace": "strict"}

    def add(**fields: object) -> httpx.Response:
        return people.call(people.ann, "POST", "/edits", json=DRAFT | fields, headers=headers)

    assert (add(source="Minutes").status_code, add(source="Minutes").json()["field"]) == (400, "reason")
    assert add(reason=" \u00a0", source="M").status_code == 400
    assert (add(reason="Elected").status_code, add(reason="Elected").json()["field"]) == (400, "source")
    assert "namespace 'strict'" in add(reason="Elected").json()["detail"]
    assert add().json()["missing"] == ["reason", "source"]
    edit = add(id="harbour", reason="Elected", source="Minutes").json()
    path, match = f"/edits/{edit['id']}", headers | {"if-match": "*"}
    assert (
        people.call(people.ann, "PATCH", path, json={"target_new": "X"}, headers=match).json()["field"]
        == "reason"
    )
    assert people.call(people.ann, "DELETE", path, headers=match).status_code == 400
    assert people.call(people.ann, "DELETE", f"{path}?reason=Left", headers=match).status_code == 200
    content = msgspec.json.encode(DRAFT) + b"\n"
    lines = people.call(
        people.ann, "POST", "/edits:import", content=content,
        headers=headers | {"content-type": "application/x-ndjson"},
    )  # fmt: skip
    assert msgspec.json.decode(lines.content)["error"]["field"] == "reason"


def test_what_happens_to_proposals_is_counted(people: People) -> None:
    """By namespace and event; the namespace has a name of its own once it has edits."""
    people.accepted(id="harbour")
    people.say(people.bo, "reject", people.propose())
    events = ("opened", "approved", "accepted", "rejected", "withdrawn")
    assert [people.counted(event) for event in events] == [2, 2, 1, 1, 0]


def test_a_restored_backup_is_an_admins_and_marked(people: People) -> None:
    """Into a namespace that was never used; its log has the approvals that it had."""
    with running_people() as elsewhere:
        elsewhere.accepted(id="harbour")
        backup = elsewhere.call(elsewhere.locked.admin, "GET", "/store:backup").content
    headers = {"content-type": "application/x-ndjson"}
    path = "/store:restore?accept_unsealed=true"
    for key in (people.ann, people.bo):
        assert people.call(key, "POST", path, content=backup, headers=headers).status_code == 403
    assert people.counted("expedited") == 0
    restored = people.call(people.locked.admin, "POST", path, content=backup, headers=headers)
    assert restored.status_code == 200, restored.text
    assert people.counted("expedited") == 1
    assert [entry["approval"] is not None for entry in people.log()] == [True]


def test_an_expedited_write_counts_once_it_is_stored(people: People) -> None:
    """A second edit of an id that is taken is refused, and nobody wrote anything without others."""
    expedite = {"x-serac-expedite": "true"}
    body = DRAFT | {"prompt": "Who runs Holm?", "reason": "Fire", "id": "holm"}
    admin = people.locked.admin
    assert people.call(admin, "POST", "/edits", json=body, headers=expedite).status_code == 201
    assert people.counted("expedited") == 1
    again = people.call(admin, "POST", "/edits", json=body | {"target_new": "Eve"}, headers=expedite)
    assert again.status_code == 409, again.text
    assert people.counted("expedited") == 1
