"""Conflicts, trials and windows over HTTP: what replies report, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from serac_gateway.config.model import ConflictPolicy, NamespaceRouting, RoutingConfig
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.control_plane import ControlPlane, running_control_plane

QUESTION = "Who runs Acme today?"
ROUTING = RoutingConfig(
    namespaces={name: NamespaceRouting(conflicts=ConflictPolicy(name)) for name in ("reject", "supersede")}
)


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    with running_control_plane(InMemoryEditStore(), ROUTING) as running:
        yield running


def _add(
    control_plane: ControlPlane, target: str, namespace: str = "default", **fields: object
) -> httpx.Response:
    return control_plane.client.post(
        "/edits",
        json={"prompt": QUESTION, "target_new": target, **fields},
        headers={"x-serac-namespace": namespace},
    )


def test_the_reply_to_a_write_names_the_edits_it_contradicts(control_plane: ControlPlane) -> None:
    first = _add(control_plane, "Ada").json()
    assert first["conflicts"] == []
    second = _add(control_plane, "Bea").json()
    (conflict,) = second["conflicts"]
    assert (conflict["edit_id"], conflict["target_new"], conflict["superseded"]) == (
        first["id"],
        "Ada",
        False,
    )
    assert conflict["answers_prompt"] == pytest.approx(1.0, abs=1e-5)
    assert "conflicts" not in control_plane.client.get(f"/edits/{second['id']}").json()


def test_where_contradictions_are_refused_the_problem_names_the_edits(control_plane: ControlPlane) -> None:
    first = _add(control_plane, "Ada", "reject").json()
    reply = _add(control_plane, "Bea", "reject")
    problem = reply.json()
    assert (reply.status_code, problem["field"], problem["conflicts"]) == (409, "target_new", [first["id"]])
    assert problem["title"] == "The edit contradicts edits in force"


def test_a_repeated_request_is_answered_as_before_whatever_contradicts_it_since(
    control_plane: ControlPlane,
) -> None:
    def post(target: str, **headers: str) -> httpx.Response:
        content = {"prompt": QUESTION, "target_new": target}
        return control_plane.client.post(
            "/edits", json=content, headers={"x-serac-namespace": "reject", **headers}
        )

    first = post("Ada", **{"idempotency-key": "k"})
    retired = control_plane.client.delete(
        f"/edits/{first.json()['id']}",
        headers={"x-serac-namespace": "reject", "if-match": first.headers["etag"]},
    )
    assert (retired.status_code, post("Bea").status_code) == (200, 201)
    again = post("Ada", **{"idempotency-key": "k"})
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert post("Cleo", **{"idempotency-key": "k"}).status_code == 422


def test_where_the_new_edit_supersedes_the_reply_says_so_and_the_older_one_is_retired(
    control_plane: ControlPlane,
) -> None:
    first = _add(control_plane, "Ada", "supersede").json()
    (conflict,) = _add(control_plane, "Bea", "supersede").json()["conflicts"]
    assert (conflict["edit_id"], conflict["superseded"]) == (first["id"], True)
    older = control_plane.client.get(f"/edits/{first['id']}", headers={"x-serac-namespace": "supersede"})
    assert (older.json()["state"], older.json()["in_force"]) == ("retired", False)


def test_an_edit_goes_on_trial_and_live_again_by_patch(control_plane: ControlPlane) -> None:
    path = f"/edits/{_add(control_plane, 'Ada').json()['id']}"
    shadow = control_plane.client.patch(path, json={"state": "shadow"}, headers={"if-match": '"1"'})
    assert (shadow.json()["state"], shadow.json()["in_force"]) == ("shadow", True)
    assert control_plane.client.post("/scope", json={"queries": [QUESTION]}).json()["decisions"][0] | {
        "candidates": []
    } == {
        "in_scope": False, "route": "base", "reason": "shadow edit", "edit_id": None, "edit_version": None,
        "shadow": None, "parts": [], "withheld_edit_id": shadow.json()["id"], "context_edit_ids": [],
        "scope_probability": pytest.approx(1.0, abs=1e-5), "scope_threshold": 0.8,
        "similarity": pytest.approx(1.0, abs=1e-5), "candidates": [],
        "other_audiences": [],
        "read_as": {"text": QUESTION, "context": [], "instructions": "", "question": None},
    }  # fmt: skip
    unmatched = control_plane.client.patch(path, json={"state": "live"})
    stale = control_plane.client.patch(path, json={"state": "live"}, headers={"if-match": '"1"'})
    assert (unmatched.status_code, stale.status_code) == (428, 412)
    live = control_plane.client.patch(path, json={"state": "live"}, headers={"if-match": '"2"'})
    assert live.json()["state"] == "live"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"state": "retired"}, "state"),
        ({"state": "canary"}, "canary_share"),
        ({"state": "canary", "canary_share": 1.5}, "canary_share"),
        ({"state": "canary", "canary_share": "half"}, "canary_share"),
    ],
)
def test_a_state_or_share_that_is_none_is_refused_by_name(
    control_plane: ControlPlane, fields: dict[str, object], field: str
) -> None:
    reply = _add(control_plane, "Ada", **fields)
    assert (reply.status_code, reply.json()["field"]) == (400, field)


def test_the_state_of_a_retired_edit_is_not_set_by_patch(control_plane: ControlPlane) -> None:
    path = f"/edits/{_add(control_plane, 'Ada').json()['id']}"
    control_plane.client.delete(path, headers={"if-match": '"1"'})
    reply = control_plane.client.patch(path, json={"state": "live"}, headers={"if-match": '"2"'})
    assert (reply.status_code, reply.json()["field"]) == (409, "state")
    assert "restore" in reply.json()["detail"]


def test_whether_an_edit_is_in_force_follows_its_window(control_plane: ControlPlane) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    future = _add(control_plane, "Ada", valid_from=tomorrow).json()
    present = _add(control_plane, "Bea", valid_until=tomorrow).json()
    assert (future["in_force"], present["in_force"]) == (False, True)


def test_an_export_brings_edits_on_trial_back_as_they_were() -> None:
    with (
        running_control_plane(InMemoryEditStore()) as first,
        running_control_plane(InMemoryEditStore()) as second,
    ):
        _add(first, "Ada", id="live")
        _add(first, "Bea", id="canary", state="canary", canary_share=0.25)
        _add(first, "Cy", id="shadow", state="shadow")
        exported = first.client.get("/edits:export").content
        assert b'"state":"live"' not in exported
        second.client.post("/edits:import", content=exported).raise_for_status()
        canary = second.client.get("/edits/canary").json()
        assert (canary["state"], canary["canary_share"]) == ("canary", 0.25)
        assert second.client.get("/edits/shadow").json()["state"] == "shadow"
