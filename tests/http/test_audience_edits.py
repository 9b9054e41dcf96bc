"""Audiences of edits over the API: writing, listing, conflicts, preview, explanation, import and export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serac_gateway.config.model import (
    AudienceSource,
    ConflictPolicy,
    NamespaceRouting,
    RoutingConfig,
    TrafficConfig,
)
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.control_plane import ControlPlane, running_control_plane, running_whole_gateway

QUESTION = "Who runs Acme today?"
SOURCES = {
    "region": AudienceSource(header="x-region", values=("eu", "uk", "us")),
    "tenant": AudienceSource(key=True),
}
ROUTING = RoutingConfig(
    audience_from=SOURCES,
    namespaces={name: NamespaceRouting(conflicts=ConflictPolicy(name)) for name in ("reject", "supersede")},
)
EU, UK, US = {"region": ["eu"]}, {"region": ["uk"]}, {"region": ["us"]}
EU_UK, UK_US = {"region": ["eu", "uk"]}, {"region": ["uk", "us"]}


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    with running_control_plane(InMemoryEditStore(), ROUTING) as running:
        yield running


def post(
    control_plane: ControlPlane, target: str, audience: object, namespace: str = "default"
) -> httpx.Response:
    return control_plane.client.post(
        "/edits",
        json={"prompt": QUESTION, "target_new": target, "audience": audience},
        headers={"x-serac-namespace": namespace},
    )


def add(control_plane: ControlPlane, target: str, audience: object, namespace: str = "default") -> Any:  # noqa: ANN401
    reply = post(control_plane, target, audience, namespace)
    assert reply.status_code == 201, reply.text
    return reply.json()


def decided(control_plane: ControlPlane, **labels: str) -> dict[str, Any]:
    reply = control_plane.client.post("/scope", json={"queries": [QUESTION], "labels": labels})
    assert reply.status_code == 200, reply.text
    return reply.json()["decisions"][0]


@pytest.mark.parametrize(
    ("audience", "field", "problem"),
    [
        ({"plan": ["gold"]}, "audience", "'plan' is not configured, so no request has it; the labels of"),
        ({"region": ["mars"]}, "audience.region", "use one of eu, uk, us"),
        ({"region": []}, "audience.region", "give 1 to 64 values"),
        ({"region": [""]}, "audience.region", "give 1 to 64 letters"),
        ({"region": ["e" * 9_000]}, "audience.region", "give 1 to 64 letters"),
        ({"region": "eu"}, "audience", "Expected `array`"),
        ({"region": [7]}, "audience", "Expected `str`"),
        ([], "audience", "Expected `object`"),
    ],
)
def test_a_bad_audience_is_refused_by_name_and_nothing_is_stored(
    control_plane: ControlPlane, audience: object, field: str, problem: str
) -> None:
    reply = post(control_plane, "Ada", audience)
    assert reply.status_code == 400
    assert problem in reply.json()["detail"]
    assert reply.json()["field"].startswith(field.partition(".")[0])
    assert control_plane.client.get("/edits").json()["edits"] == []


def test_an_unknown_label_names_the_known_ones(control_plane: ControlPlane) -> None:
    for path, body in (
        ("/edits", {"prompt": QUESTION, "target_new": "Ada", "audience": {"plan": ["x"]}}),
        ("/edits:preview", {"edit": {"prompt": QUESTION, "target_new": "Ada", "audience": {"plan": ["x"]}}}),
        ("/scope", {"queries": [QUESTION], "labels": {"plan": "x"}}),
    ):
        reply = control_plane.client.post(path, json=body)
        assert reply.status_code == 400, path
        assert "are: region, tenant" in reply.json()["detail"], path


def test_audiences_are_stored_in_small_letters_listed_and_changed(control_plane: ControlPlane) -> None:
    eu = add(control_plane, "Ada", {"Region": [" UK", "eu"]})
    acme = add(control_plane, "Bea", {"tenant": ["Acme"], "region": ["us"]})
    add(control_plane, "Eve", {})
    assert (eu["audience"], acme["audience"]) == (EU_UK, {"region": ["us"], "tenant": ["acme"]})

    def listed(audience: str, **more: str) -> list[str]:
        page = control_plane.client.get("/edits", params={"audience": audience, **more}).json()
        return [edit["target_new"] for edit in page["edits"]]

    assert listed("region=uk") == ["Ada"]
    assert listed("region=us tenant=acme") == ["Bea"]
    assert listed("region=us", q="acme", state="live") == ["Bea"]
    assert listed("tenant=nobody") == []
    assert control_plane.client.get("/edits", params={"audience": "region"}).status_code == 400
    assert (
        control_plane.client.get(
            "/edits", params={"audience": "region=eu", "mode": "meaning", "q": "x"}
        ).status_code
        == 400
    )

    path, tag = f"/edits/{eu['id']}", {"if-match": '"1"'}
    changed = control_plane.client.patch(path, json={"audience": {}}, headers=tag)
    assert (changed.status_code, changed.json()["audience"]) == (200, {})


def test_audiences_that_do_not_meet_or_lie_within_each_other_are_no_conflict(
    control_plane: ControlPlane,
) -> None:
    everybodys = add(control_plane, "Eve", {}, "reject")
    for target, audience in (("Ada", EU), ("Bea", UK), ("Cleo", {"region": ["eu"], "tenant": ["acme"]})):
        assert add(control_plane, target, audience, "reject")["conflicts"] == [], audience
    for audience, others in (({}, [everybodys["id"]]), (UK_US, [])):
        reply = post(control_plane, "Dora", audience, "reject")
        assert reply.status_code == (409 if others else 201), audience
    overlapping = post(control_plane, "Finn", EU_UK, "reject")
    assert overlapping.status_code == 409, "it overlaps UK_US, and neither lies within the other"


def test_a_fact_for_a_part_of_a_suppressions_audience_is_a_conflict(control_plane: ControlPlane) -> None:
    """It could only be meant as an exception, and a suppression has none."""
    fact = {"prompt": QUESTION, "target_new": "Ada", "audience": EU}
    suppression = {"prompt": QUESTION, "target_new": "No.", "kind": "suppression"}
    where = {"x-serac-namespace": "reject"}
    for first, second in ((suppression, fact), (fact, suppression)):
        stored, refused = [
            control_plane.client.post("/edits", json=draft, headers=where) for draft in (first, second)
        ]
        assert (stored.status_code, refused.status_code) == (201, 409)
        path = f"/edits/{stored.json()['id']}"
        assert control_plane.client.delete(path, headers={**where, "if-match": '"1"'}).is_success


def test_an_edit_supersedes_those_of_its_own_audience_alone(control_plane: ControlPlane) -> None:
    add(control_plane, "Eve", {}, "supersede")
    old = add(control_plane, "Ada", EU_UK, "supersede")
    overlapping = add(control_plane, "Bea", UK_US, "supersede")
    assert [(each["edit_id"], each["superseded"]) for each in overlapping["conflicts"]] == [
        (old["id"], False)
    ]
    assert overlapping["conflicts"][0]["audience"] == EU_UK
    new = add(control_plane, "Cleo", EU_UK, "supersede")
    assert {each["edit_id"]: each["superseded"] for each in new["conflicts"]} == {
        old["id"]: True,
        overlapping["id"]: False,
    }


def test_an_explanation_goes_by_the_labels_given_and_names_what_applies_elsewhere(
    control_plane: ControlPlane,
) -> None:
    eu, everybodys = add(control_plane, "Ada", EU), add(control_plane, "Eve", {})
    assert decided(control_plane, region="EU")["edit_id"] == eu["id"]
    elsewhere = decided(control_plane, region="us")
    assert elsewhere["edit_id"] == everybodys["id"]
    assert [candidate["edit_id"] for candidate in elsewhere["candidates"]] == [everybodys["id"]]
    (other,) = elsewhere["other_audiences"]
    assert (other["edit_id"], other["audience"]) == (eu["id"], EU)
    header = control_plane.client.post("/scope", json={"queries": [QUESTION]}, headers={"x-region": "eu"})
    assert header.json()["decisions"][0]["edit_id"] == everybodys["id"], "the call's own header is no label"


def test_preview_and_verification_ask_within_the_audience(control_plane: ControlPlane) -> None:
    body: dict[str, Any] = {
        "edit": {"prompt": QUESTION, "target_new": "Ada", "audience": EU},
        "queries": [QUESTION],
    }
    assert control_plane.client.post("/edits:preview", json=body).json()["queries"][0]["captured"]
    body["labels"] = {"region": "us"}
    assert not control_plane.client.post("/edits:preview", json=body).json()["queries"][0]["captured"]
    add(control_plane, "Eve", {})
    eu = add(control_plane, "Ada", EU)
    for edit_id in (eu["id"],):
        verified = control_plane.client.post(f"/edits/{edit_id}:verify").json()
        assert verified["probes"][0]["governed_by"] == edit_id, verified


def test_recorded_traffic_is_previewed_with_the_labels_that_it_came_with() -> None:
    traffic = TrafficConfig(namespaces=("default",))
    with running_whole_gateway(lambda prompt: "words", traffic=traffic, routing=ROUTING) as url:
        for region in ("eu", "eu", "us", None):
            chat = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1}
            headers = {} if region is None else {"x-region": region}
            httpx.post(f"{url}/v1/chat/completions", json=chat, headers=headers).raise_for_status()
        captured = {}
        for name, audience in (("eu", EU), ("us", US), ("all", {})):
            draft = {"prompt": QUESTION, "target_new": "Ada", "audience": audience}
            reply = httpx.post(f"{url}/serac/v1/edits:preview", json={"edit": draft}).raise_for_status()
            captured[name] = reply.json()["traffic"]["captured"]
    assert captured == {"eu": 2, "us": 1, "all": 4}


def test_an_export_is_imported_as_it_was_and_again_without_effect(control_plane: ControlPlane) -> None:
    for target, audience in (("Ada", EU), ("Ada", UK), ("Ada", {})):
        add(control_plane, target, audience)
    exported = control_plane.client.get("/edits:export").text
    lines = [json.loads(line) for line in exported.splitlines()]
    written = {json.dumps(line.get("audience")) for line in lines}
    assert written == {'{"region": ["eu"]}', '{"region": ["uk"]}', "null"}
    without_ids = "".join(
        json.dumps({name: value for name, value in line.items() if name != "id"}) + "\n" for line in lines
    )
    for content, namespace, added in (
        (exported, "default", False),
        (without_ids, "default", False),
        (exported, "copy", True),
        (exported, "copy", False),
    ):
        reply = control_plane.client.post(
            "/edits:import",
            content=content,
            headers={"content-type": "application/x-ndjson", "x-serac-namespace": namespace},
        )
        outcomes = [json.loads(line) for line in reply.text.splitlines()]
        assert [outcome["added"] for outcome in outcomes] == [added] * 3, outcomes
    copied = control_plane.client.get("/edits:export", headers={"x-serac-namespace": "copy"}).text
    assert copied == exported


def test_a_line_with_a_label_that_is_not_configured_stops_no_other(control_plane: ControlPlane) -> None:
    lines = [
        {"prompt": QUESTION, "target_new": "Ada", "audience": audience} for audience in ({"plan": ["x"]}, EU)
    ]
    reply = control_plane.client.post(
        "/edits:import",
        content="".join(json.dumps(line) + "\n" for line in lines),
        headers={"content-type": "application/x-ndjson"},
    )
    bad, good = (json.loads(line) for line in reply.text.splitlines())
    assert "are: region, tenant" in bad["error"]["detail"]
    assert good["added"]


def test_a_write_warns_of_an_audience_that_is_not_configured_any_more() -> None:
    store = InMemoryEditStore()
    with running_control_plane(store, ROUTING) as before:
        edit = add(before, "Ada", EU)
        assert "warnings" not in edit or not [w for w in edit["warnings"] if w["code"].startswith("audience")]
    with running_control_plane(store) as after:
        reply = after.client.patch(
            f"/edits/{edit['id']}", json={"target_new": "Bea"}, headers={"if-match": '"1"'}
        )
    assert reply.status_code == 200, reply.text
    assert "audience_not_configured" in {warning["code"] for warning in reply.json()["warnings"]}


def test_what_is_rolled_back_comes_back_though_its_label_is_not_configured_any_more() -> None:
    """A single edit and a whole namespace: it never fires, and all else that changed is as it was."""
    store, tag = InMemoryEditStore(), {"if-match": "*"}
    with running_control_plane(store, ROUTING) as before:
        edit = add(before, "Ada", EU)
        other = before.client.post("/edits", json={"prompt": "When did Umbra begin?", "target_new": "1901"})
        point = before.client.get("/log").json()["entries"][-1]["log_id"]
        changes = ((edit["id"], {"audience": {}}), (other.json()["id"], {"target_new": "1902"}))
        for edit_id, change in changes:
            assert before.client.patch(f"/edits/{edit_id}", json=change, headers=tag).is_success
    with running_control_plane(store) as after:
        single = after.client.post(f"/edits/{edit['id']}:rollback", json={"version": 1}, headers=tag)
        assert (single.status_code, single.json()["audience"]) == (200, EU), single.text
        assert after.client.patch(f"/edits/{edit['id']}", json={"audience": {}}, headers=tag).is_success
        whole = after.client.post("/rollback", json={"log_id": point})
        assert whole.status_code == 200, whole.text
        stored = [after.client.get(f"/edits/{edit_id}").json() for edit_id, _ in changes]
        refused = after.client.patch(f"/edits/{other.json()['id']}", json={"audience": EU}, headers=tag)
    assert (stored[0]["audience"], stored[1]["target_new"]) == (EU, "1901")
    assert refused.status_code == 400
