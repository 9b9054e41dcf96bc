"""Previews over HTTP: what an edit would do is what it then does."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from serac_gateway.config.model import ConflictPolicy, NamespaceRouting, RoutingConfig, TrafficConfig
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.control_plane import ControlPlane, running_control_plane, running_whole_gateway

QUESTION = "Who runs Acme today?"
DRAFT = {"prompt": QUESTION, "target_new": "Ada"}


def _preview(control_plane: ControlPlane, draft: dict[str, Any] = DRAFT, *queries: object) -> dict[str, Any]:
    reply = control_plane.client.post("/edits:preview", json={"edit": draft, "queries": queries})
    assert reply.status_code == 200, reply.text
    return reply.json()


def _add(control_plane: ControlPlane, prompt: str, target: str, **fields: object) -> str:
    body = {"prompt": prompt, "target_new": target, **fields}
    reply = control_plane.client.post("/edits", json=body)
    return str(reply.raise_for_status().json()["id"])


def test_nothing_is_stored(control_plane: ControlPlane) -> None:
    _preview(control_plane)
    assert control_plane.client.get("/edits").json()["edits"] == []
    assert control_plane.client.get("/log").json()["entries"] == []
    scope = control_plane.client.post("/scope", json={"queries": [QUESTION]}).json()
    assert scope["decisions"][0]["reason"] == "no edits"


def test_what_is_previewed_is_what_happens_then(control_plane: ControlPlane) -> None:
    _add(control_plane, "When was Acme founded?", "1901")
    _add(control_plane, "Who runs the Acme shop today?", "Bea")
    queries = [QUESTION, "today, who runs Acme", "Who runs the shop?", "When was Acme founded?", "egg"]
    previewed = _preview(control_plane, DRAFT, *queries)["queries"]
    edit_id = _add(control_plane, QUESTION, "Ada")
    decided = control_plane.client.post("/scope", json={"queries": queries}).json()["decisions"]
    assert [preview["captured"] for preview in previewed] == [
        decision["edit_id"] == edit_id for decision in decided
    ]
    assert [preview["captured"] for preview in previewed] == [True, True, False, False, False]
    for before, after in zip(previewed, decided, strict=True):
        own = [
            candidate["scope_probability"]
            for candidate in after["candidates"]
            if candidate["edit_id"] == edit_id
        ]
        probabilities = [] if before["scope_probability"] is None else [before["scope_probability"]]
        assert own == pytest.approx(probabilities, abs=1e-5)
        assert before["route"] == after["route"]


def test_generated_paraphrases_are_listed_with_their_form(control_plane: ControlPlane) -> None:
    generated = _preview(control_plane, {"prompt": "Who is the mayor of Marrowby?", "target_new": "Ada"})[
        "generated"
    ]
    by_text = {query["query"]: query for query in generated}
    assert by_text["The mayor of Marrowby is"]["asked_as"] == "cloze"
    assert by_text["who is the mayor of marrowby"]["captured"] is True
    assert any(not query["captured"] for query in generated)


def test_conflicts_are_listed_with_what_the_policy_would_do() -> None:
    routing = RoutingConfig(
        namespaces={
            name: NamespaceRouting(conflicts=ConflictPolicy(name)) for name in ("reject", "supersede")
        }
    )
    with running_control_plane(InMemoryEditStore(), routing) as control_plane:
        for namespace in ("default", "reject", "supersede"):
            headers = {"x-serac-namespace": namespace}
            added = control_plane.client.post("/edits", json=DRAFT, headers=headers).json()
            reply = control_plane.client.post(
                "/edits:preview", json={"edit": {**DRAFT, "target_new": "Bea"}}, headers=headers
            ).json()
            (conflict,) = reply["conflicts"]
            assert conflict["edit_id"] == added["id"]
            assert reply["refused"] is (namespace == "reject")
            assert conflict["superseded"] is (namespace == "supersede")
            assert reply["policy"] == (namespace if namespace != "default" else "newest_wins")


def test_a_shadow_is_previewed_as_if_it_were_live(control_plane: ControlPlane) -> None:
    previewed = _preview(control_plane, {**DRAFT, "state": "shadow"}, QUESTION)
    assert previewed["queries"][0]["captured"] is True


def test_the_next_version_of_a_stored_edit_is_previewed_in_its_place(control_plane: ControlPlane) -> None:
    edit_id = _add(control_plane, QUESTION, "Ada")
    previewed = _preview(
        control_plane, {"id": edit_id, "prompt": "Who founded Acme?", "target_new": "Cy"}, QUESTION
    )
    assert previewed["conflicts"] == []
    assert previewed["queries"][0]["captured"] is False
    assert previewed["queries"][0]["governed_by"] is None


def test_prompts_of_stored_edits_close_to_the_threshold_come_first(control_plane: ControlPlane) -> None:
    far = _add(control_plane, "Who boils an egg today?", "the cook")
    near = _add(control_plane, "Who runs Acme then?", "Bea")
    previewed = _preview(control_plane)
    ids = [query["edit_id"] for query in previewed["near_misses"]]
    assert ids.index(near) < ids.index(far)
    distances = [
        abs(query["scope_probability"] - previewed["scope_threshold"]) for query in previewed["near_misses"]
    ]
    assert distances[0] == min(distances)


def test_messages_may_be_previewed_with_the_turns_before_them(control_plane: ControlPlane) -> None:
    messages = [
        {"role": "user", "content": "Who runs Acme?"},
        {"role": "assistant", "content": "Ann."},
        {"role": "user", "content": "today?"},
    ]
    (previewed,) = _preview(control_plane, DRAFT, {"messages": messages})["queries"]
    assert (previewed["query"], previewed["context"]) == ("today?", ["Who runs Acme?", "Ann."])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"edit": {"prompt": " ", "target_new": "x"}}, "prompt"),
        ({"edit": DRAFT, "queries": ["q"] * 300}, "queries"),
        ({"edit": DRAFT, "queries": [{"messages": [{"role": "tool", "content": "x"}]}]}, "queries[0]"),
        ({"edit": DRAFT, "more": 1}, "more"),
    ],
)
def test_what_cannot_be_previewed_is_refused_by_name(
    control_plane: ControlPlane, body: dict[str, Any], field: str
) -> None:
    reply = control_plane.client.post("/edits:preview", json=body)
    assert (reply.status_code, reply.json()["field"]) == (400, field)


def test_an_encoder_that_fails_is_503(control_plane: ControlPlane) -> None:
    control_plane.encoder.failure = ModelUnavailableError("the encoder is out of memory")
    assert control_plane.client.post("/edits:preview", json={"edit": DRAFT}).status_code == 503


def test_recorded_traffic_that_would_be_captured_is_counted_and_can_be_cleared() -> None:
    with (
        running_whole_gateway(lambda prompt: "Nobody.", traffic=TrafficConfig(namespaces=("acme",))) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        for namespace, question in (
            ("acme", QUESTION), ("acme", QUESTION), ("acme", "How do I boil an egg?"), ("other", QUESTION),
        ):  # fmt: skip
            chat = {"model": "m", "messages": [{"role": "user", "content": question}]}
            reply = client.post("/v1/chat/completions", json=chat, headers={"x-serac-namespace": namespace})
            assert reply.headers["x-serac-route"] == "base"
        traffic = {
            namespace: client.post(
                "/serac/v1/edits:preview", json={"edit": DRAFT}, headers={"x-serac-namespace": namespace}
            ).json()["traffic"]
            for namespace in ("acme", "other")
        }
        (captured,) = traffic["acme"].pop("shown")
        assert traffic["acme"] == {"recording": True, "queries": 3, "captured": 2}
        assert (captured["query"], captured["count"], captured["captured"]) == (QUESTION, 2, True)
        assert traffic["other"] == {"recording": False, "queries": 0, "captured": 0, "shown": []}
        acme = {"x-serac-namespace": "acme"}
        assert client.get("/serac/v1/traffic", headers=acme).json() == {"recording": True, "queries": 3}
        assert client.delete("/serac/v1/traffic", headers=acme).json() == {"cleared": 3}
        assert client.get("/serac/v1/traffic", headers=acme).json()["queries"] == 0
