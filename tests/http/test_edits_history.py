"""Restore, rollback and purge over HTTP, against a server that listens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.control_plane import ControlPlane

DRAFT = {"prompt": "Who runs the harbour office?", "target_new": "Ottilie Brandvold"}
ANY = {"if-match": "*"}


def added(plane: ControlPlane, edit_id: str, **fields: object) -> dict[str, Any]:
    reply = plane.client.post("/edits", json={**DRAFT, "id": edit_id, **fields})
    assert reply.status_code == 201, reply.text
    edit: dict[str, Any] = reply.json()
    return edit


def changed(plane: ControlPlane, edit_id: str, **fields: object) -> None:
    reply = plane.client.patch(f"/edits/{edit_id}", json=fields, headers=ANY)
    assert reply.status_code == 200, reply.text


def answer_of(plane: ControlPlane, question: str) -> str | None:
    (decision,) = plane.client.post("/scope", json={"queries": [question]}).json()["decisions"]
    edit_id = decision["edit_id"]
    return plane.client.get(f"/edits/{edit_id}").json()["target_new"] if edit_id else None


def log(plane: ControlPlane) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = plane.client.get("/log?limit=1000").json()["entries"]
    return entries


def ok(reply: httpx.Response) -> Any:  # noqa: ANN401 - decoded JSON
    assert reply.status_code == 200, reply.text
    return reply.json()


class TestRestore:
    def test_a_retired_edit_is_live_again_and_fires(self, control_plane: ControlPlane) -> None:
        added(control_plane, "a")
        control_plane.client.delete("/edits/a?reason=wrong&author=Ann", headers=ANY)
        assert answer_of(control_plane, DRAFT["prompt"]) is None
        reply = control_plane.client.post(
            "/edits/a:restore", json={"author": "Bea", "reason": "right"}, headers={"if-match": '"2"'}
        )
        edit = ok(reply)
        assert (edit["state"], edit["version"], reply.headers["etag"]) == ("live", 3, '"3"')
        assert answer_of(control_plane, DRAFT["prompt"]) == DRAFT["target_new"]
        logged = [(entry["action"], entry["author"], entry["reason"]) for entry in log(control_plane)]
        assert logged == [("add", None, None), ("retire", "Ann", "wrong"), ("restore", "Bea", "right")]

    def test_a_live_edit_cannot_be_restored(self, control_plane: ControlPlane) -> None:
        added(control_plane, "a")
        reply = control_plane.client.post("/edits/a:restore", json={}, headers=ANY)
        assert (reply.status_code, reply.json()["value"]) == (409, "live")


@pytest.mark.parametrize(
    ("verb", "body"), [("restore", {}), ("rollback", {"version": 1}), ("purge", {"reason": "asked"})]
)
class TestEveryCall:
    def test_it_needs_a_current_etag(
        self, control_plane: ControlPlane, verb: str, body: dict[str, object]
    ) -> None:
        added(control_plane, "a")
        control_plane.client.delete("/edits/a", headers=ANY)
        path = f"/edits/a:{verb}"
        assert control_plane.client.post(path, json=body).status_code == 428
        stale = control_plane.client.post(path, json=body, headers={"if-match": '"1"'})
        assert (stale.status_code, stale.json()["current"]) == (412, '"2"')
        assert control_plane.client.get("/edits/a").headers["etag"] == '"2"'

    def test_an_unknown_edit_is_404_and_a_bad_body_400(
        self, control_plane: ControlPlane, verb: str, body: dict[str, object]
    ) -> None:
        added(control_plane, "a")
        reply = control_plane.client.post(f"/edits/b:{verb}", json=body, headers=ANY)
        assert reply.status_code == 404
        for bad in ({**body, "colour": "red"}, {**body, "reason": 5}):
            reply = control_plane.client.post(f"/edits/a:{verb}", json=bad, headers=ANY)
            assert reply.status_code == 400
        control_plane.client.delete("/edits/a", headers=ANY)
        long = {**body, "reason": "x" * 2_001}
        reply = control_plane.client.post(f"/edits/a:{verb}", json=long, headers=ANY)
        assert (reply.status_code, reply.json()["field"], reply.json()["limit"]) == (400, "reason", 2_000)
        assert len(log(control_plane)) == 2


class TestRollbackOfOneEdit:
    def test_content_and_state_of_the_older_version_come_back_as_a_new_one(
        self, control_plane: ControlPlane
    ) -> None:
        added(control_plane, "a")
        changed(control_plane, "a", prompt="Who leads the harbour office?", target_new="Jo")
        control_plane.client.delete("/edits/a", headers=ANY)
        edit = ok(control_plane.client.post("/edits/a:rollback", json={"version": 1}, headers=ANY))
        assert (edit["version"], edit["state"], edit["target_new"]) == (4, "live", DRAFT["target_new"])
        assert answer_of(control_plane, DRAFT["prompt"]) == DRAFT["target_new"]
        assert len(control_plane.client.get("/edits/a/versions").json()["versions"]) == 4

    @pytest.mark.parametrize(("version", "status"), [(9, 404), (0, 400), (-1, 400), ("1", 400), (2**70, 404)])
    def test_a_version_that_never_was_is_refused(
        self, control_plane: ControlPlane, version: object, status: int
    ) -> None:
        added(control_plane, "a")
        reply = control_plane.client.post("/edits/a:rollback", json={"version": version}, headers=ANY)
        assert reply.status_code == status, reply.text
        assert len(log(control_plane)) == 1


class TestRollbackOfTheNamespace:
    @pytest.fixture
    def point(self, control_plane: ControlPlane) -> str:
        """A log id; after it a changes, b is retired, c restored, d added, and e is as it was."""
        for edit_id in "abcef":
            added(control_plane, edit_id, prompt=f"Who runs pier {edit_id}?")
        control_plane.client.delete("/edits/c", headers=ANY)
        log_id = str(log(control_plane)[-1]["log_id"])
        changed(control_plane, "a", target_new="Jo", prompt="Who leads pier a?")
        changed(control_plane, "a", target_new="Jim")
        control_plane.client.delete("/edits/b", headers=ANY)
        control_plane.client.post("/edits/c:restore", json={}, headers=ANY)
        added(control_plane, "d", prompt="Who runs pier d?")
        changed(control_plane, "e", subject="piers")
        changed(control_plane, "e", subject=None)
        return log_id

    def test_a_dry_run_lists_what_would_change_and_changes_nothing(
        self, control_plane: ControlPlane, point: str
    ) -> None:
        before = len(log(control_plane))
        plan = ok(control_plane.client.post("/rollback", json={"log_id": point, "dry_run": True}))
        assert [(change["edit_id"], change["to_version"], change["state"]) for change in plan["changes"]] == [
            ("a", 1, "live"), ("b", 1, "live"), ("c", 2, "retired"), ("d", None, "retired"),
        ]  # fmt: skip
        assert len(log(control_plane)) == before

    def test_every_edit_is_as_it_was_and_the_rollback_can_be_rolled_back(
        self, control_plane: ControlPlane, point: str
    ) -> None:
        before = {edit["id"]: edit for edit in ok(control_plane.client.get("/edits"))["edits"]}
        last = log(control_plane)[-1]["log_id"]
        body = {"log_id": point, "reason": "a bad day", "author": "Ann"}
        done = ok(control_plane.client.post("/rollback", json=body))
        assert len(done["changes"]) == 4
        states = {edit["id"]: edit["state"] for edit in ok(control_plane.client.get("/edits"))["edits"]}
        assert states == {
            "a": "live", "b": "live", "c": "retired", "d": "retired", "e": "live", "f": "live",
        }  # fmt: skip
        assert answer_of(control_plane, "Who runs pier a?") == DRAFT["target_new"]
        assert answer_of(control_plane, "Who runs pier d?") is None
        ours = log(control_plane)[-4:]
        assert {(entry["action"], entry["author"], entry["reason"]) for entry in ours} == {
            ("rollback", "Ann", "a bad day")
        }
        ok(control_plane.client.post("/rollback", json={"log_id": last}))
        after = {edit["id"]: edit for edit in ok(control_plane.client.get("/edits"))["edits"]}
        for edit_id, edit in before.items():
            for name in ("prompt", "target_new", "subject", "state"):
                assert after[edit_id][name] == edit[name]

    def test_to_before_the_first_entry_everything_is_retired(
        self, control_plane: ControlPlane, point: str
    ) -> None:
        ok(control_plane.client.post("/rollback", json={"log_id": "0-0"}))
        states = {edit["state"] for edit in ok(control_plane.client.get("/edits"))["edits"]}
        assert states == {"retired"}

    def test_what_was_purged_since_stays_purged_and_is_named(
        self, control_plane: ControlPlane, point: str
    ) -> None:
        control_plane.client.post("/edits/f:purge", json={"reason": "asked"}, headers=ANY)
        done = ok(control_plane.client.post("/rollback", json={"log_id": point}))
        assert done["purged"] == ["f"]
        assert control_plane.client.get("/edits/f").status_code == 410

    @pytest.mark.parametrize("log_id", ["5", "", "1-1", "99999999999999-0", "a-b"])
    def test_a_log_id_that_the_log_does_not_have_is_refused(
        self, control_plane: ControlPlane, point: str, log_id: str
    ) -> None:
        before = len(log(control_plane))
        reply = control_plane.client.post("/rollback", json={"log_id": log_id})
        assert reply.status_code == 400
        assert log_id in reply.json()["detail"]
        assert len(log(control_plane)) == before


class TestPurge:
    def test_it_is_gone_from_every_reply_and_its_id_stays_taken(self, control_plane: ControlPlane) -> None:
        added(control_plane, "a", subject="Marrowby", paraphrases=["Who leads it?"])
        changed(control_plane, "a", target_new="Ilse Quennell", reason="resigned")
        reply = control_plane.client.post(
            "/edits/a:purge", json={"reason": "request 4711", "author": "Ann"}, headers={"if-match": '"2"'}
        )
        tombstone = ok(reply)
        assert (tombstone["state"], tombstone["version"], tombstone["prompt"]) == ("purged", 3, "")
        for path in ("/edits/a", "/edits/a/versions"):
            gone = control_plane.client.get(path)
            assert (gone.status_code, gone.json()["type"]) == (410, "urn:serac:problem:edit-purged")
        everything = "".join(
            control_plane.client.get(path).text
            for path in (
                "/edits",
                "/log",
                "/log:export?evidence=true",
                "/edits:export",
                "/edits?state=purged",
            )
        )
        for text in (*DRAFT.values(), "Ilse Quennell", "Marrowby", "Who leads it?", "resigned"):
            assert text not in everything
        assert "request 4711" in everything
        assert answer_of(control_plane, DRAFT["prompt"]) is None
        again = control_plane.client.post("/edits", json={**DRAFT, "id": "a"})
        assert again.status_code == 409
        assert "was purged" in again.json()["detail"]

    @pytest.mark.parametrize("method", ["PATCH", "DELETE"])
    def test_a_tombstone_cannot_be_changed(self, control_plane: ControlPlane, method: str) -> None:
        added(control_plane, "a")
        ok(control_plane.client.post("/edits/a:purge", json={"reason": "asked"}, headers=ANY))
        body = {"target_new": "Jo"} if method == "PATCH" else None
        reply = control_plane.client.request(method, "/edits/a", json=body, headers=ANY)
        assert reply.status_code == 410

    def test_it_needs_a_reason(self, control_plane: ControlPlane) -> None:
        added(control_plane, "a")
        reply = control_plane.client.post("/edits/a:purge", json={}, headers=ANY)
        assert reply.status_code == 400
        assert "reason" in reply.json()["detail"]
        assert control_plane.client.get("/edits/a").status_code == 200


def test_the_paths_of_the_calls_are_documented_as_clients_use_them(control_plane: ControlPlane) -> None:
    paths = httpx.get(f"{control_plane.url}/serac/schema/openapi.json").json()["paths"]
    assert {path for path in paths if "edit_id}:" in path} >= {
        "/serac/v1/edits/{edit_id}:restore",
        "/serac/v1/edits/{edit_id}:rollback",
        "/serac/v1/edits/{edit_id}:purge",
    }
    assert not [path for path in paths if "/:" in path]
