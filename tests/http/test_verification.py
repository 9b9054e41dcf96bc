"""Verification over HTTP: on writing, on demand, and as an edit's reply reports it later."""

from __future__ import annotations

from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ScriptedCounterfactualModel
from tests.control_plane import ControlPlane, running_control_plane

DRAFT = {"prompt": "Who runs Acme today?", "target_new": "Ada", "paraphrases": ["Acme's chief, please"]}


def test_an_edit_is_verified_while_it_is_written_and_the_outcome_stays_with_it(
    control_plane: ControlPlane,
) -> None:
    reply = control_plane.client.post("/edits?verify=true", json=DRAFT)
    assert reply.status_code == 201
    verified = reply.json()["verified"]
    assert verified["passed"] is True
    assert [(probe["probe"], probe["query"], probe["answer"]) for probe in verified["probes"]] == [
        ("prompt", "Who runs Acme today?", "Ada"),
        ("paraphrases[0]", "Acme's chief, please", "Ada"),
    ]
    kept = control_plane.client.get(f"/edits/{reply.json()['id']}").json()["verification"]
    assert (kept["edit_version"], kept["passed"]) == (1, True)
    assert "answer" not in kept["probes"][0]
    assert len(control_plane.client.get(f"/edits/{reply.json()['id']}/versions").json()["versions"]) == 1


def test_an_edit_that_does_not_pass_is_stored_all_the_same() -> None:
    model = ScriptedCounterfactualModel(lambda edit, query: "Nobody knows.")
    with running_control_plane(InMemoryEditStore(), counterfactual=model) as control_plane:
        reply = control_plane.client.post("/edits?verify=true", json=DRAFT)
        assert (reply.status_code, reply.json()["verified"]["passed"]) == (201, False)
        assert reply.json()["verified"]["probes"][0]["failure"] == "the answer lacks target_new"
        path = f"/edits/{reply.json()['id']}"
        assert control_plane.client.get(path).json()["verification"]["passed"] is False


def test_a_change_is_verified_on_request_and_the_older_outcome_names_its_version(
    control_plane: ControlPlane,
) -> None:
    path = f"/edits/{control_plane.client.post('/edits?verify=true', json=DRAFT).json()['id']}"
    changed = control_plane.client.patch(path, json={"target_new": "Bea"}, headers={"if-match": '"1"'})
    assert "verified" not in changed.json()
    assert control_plane.client.get(path).json()["verification"]["edit_version"] == 1
    again = control_plane.client.patch(
        f"{path}?verify=true", json={"target_new": "Cy"}, headers={"if-match": '"2"'}
    )
    assert again.json()["verified"]["probes"][0]["answer"] == "Cy"
    assert control_plane.client.get(path).json()["verification"]["edit_version"] == 3


def test_an_edit_is_verified_on_demand_and_a_retired_one_is_not(control_plane: ControlPlane) -> None:
    path = f"/edits/{control_plane.client.post('/edits', json=DRAFT).json()['id']}"
    assert control_plane.client.get(path).json()["verification"] is None
    assert control_plane.client.post(f"{path}:verify").json()["passed"] is True
    control_plane.client.delete(path, headers={"if-match": '"1"'})
    refused = control_plane.client.post(f"{path}:verify")
    assert (refused.status_code, refused.json()["field"]) == (409, "id")
    assert control_plane.client.post("/edits/unknown:verify").status_code == 404
