"""Scope, log, stats and health over HTTP, against a server that listens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from serac_gateway.errors import ModelUnavailableError, StoreUnavailableError
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.control_plane import ControlPlane, running_control_plane

PROMPT = "Who runs the harbour office?"


def _add(control_plane: ControlPlane, **fields: object) -> str:
    draft = {"prompt": PROMPT, "target_new": "Ottilie Brandvold", **fields}
    return str(control_plane.client.post("/edits", json=draft).json()["id"])


def _decisions(control_plane: ControlPlane, *queries: str) -> list[dict[str, Any]]:
    reply = control_plane.client.post("/scope", json={"queries": queries})
    assert reply.status_code == 200, reply.text
    decisions: list[dict[str, Any]] = reply.json()["decisions"]
    return decisions


class TestScope:
    def test_decisions_come_in_the_order_of_the_queries(self, control_plane: ControlPlane) -> None:
        harbour = _add(control_plane)
        ferry = _add(control_plane, prompt="When does the ferry leave?")
        queries = ["When does the ferry leave?", "Bake me a cake", PROMPT] * 20
        decisions = _decisions(control_plane, *queries)
        assert [decision["edit_id"] for decision in decisions] == [ferry, None, harbour] * 20
        assert [decision["route"] for decision in decisions[:3]] == [
            "counterfactual",
            "base",
            "counterfactual",
        ]
        assert [decision["in_scope"] for decision in decisions[:3]] == [True, False, True]

    def test_a_decision_lists_its_candidates_most_probable_first(self, control_plane: ControlPlane) -> None:
        _add(control_plane, prompt="Who runs the harbour?")
        best = _add(control_plane)
        (decision,) = _decisions(control_plane, PROMPT)
        probabilities = [candidate["scope_probability"] for candidate in decision["candidates"]]
        assert len(probabilities) == 2
        assert probabilities == sorted(probabilities, reverse=True)
        assert decision["candidates"][0]["edit_id"] == best
        assert decision["candidates"][0]["form"] == PROMPT
        assert decision["scope_probability"] == probabilities[0] >= decision["scope_threshold"]

    def test_a_decision_says_what_was_read(self, control_plane: ControlPlane) -> None:
        _add(control_plane)
        long_text = f"{'The ferry is late again. ' * 120}{PROMPT} {'So much for that. ' * 120}"
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Tell me of Marrowby."},
            {"role": "assistant", "content": "A town by the sea."},
            {"role": "user", "content": "Who runs it?"},
        ]
        image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
        reply = control_plane.client.post(
            "/scope", json={"queries": [{"messages": messages}, long_text, {"messages": [image]}]}
        )
        followed, searched, nothing = (decision["read_as"] for decision in reply.json()["decisions"])
        assert followed == {
            "text": "Who runs it?",
            "context": ["Tell me of Marrowby.", "A town by the sea."],
            "instructions": "Be brief.",
            "question": None,
        }
        assert searched["question"] == PROMPT
        assert len(searched["text"]) < len(long_text)
        assert nothing is None

    def test_without_edits_every_query_goes_to_the_base_model(self, control_plane: ControlPlane) -> None:
        (decision,) = _decisions(control_plane, PROMPT)
        assert (decision["route"], decision["reason"], decision["candidates"]) == ("base", "no edits", [])

    @pytest.mark.parametrize(
        "text", ["", " \n\t", "🙂", "\u0000", "ｗｉｄｅ", "x" * 1_000_000, "🙂" * 250_000]
    )
    def test_any_text_gets_a_decision(self, control_plane: ControlPlane, text: str) -> None:
        _add(control_plane)
        first, second = _decisions(control_plane, text, PROMPT)
        assert first["in_scope"] is False
        assert second["in_scope"] is True

    def test_no_queries_give_no_decisions(self, control_plane: ControlPlane) -> None:
        assert _decisions(control_plane) == []

    def test_as_many_queries_as_allowed_are_decided(self, control_plane: ControlPlane) -> None:
        assert len(_decisions(control_plane, *["q"] * 256)) == 256

    def test_too_many_queries_are_refused_with_the_limit(self, control_plane: ControlPlane) -> None:
        reply = control_plane.client.post("/scope", json={"queries": ["q"] * 300})
        assert reply.status_code == 400
        problem = reply.json()
        assert (problem["field"], problem["value"], problem["limit"]) == ("queries", 300, 256)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "body"),
            ({"queries": "q"}, "queries"),
            ({"queries": ["q", 5]}, "queries[1]"),
            ({"queries": [], "extra": 1}, "extra"),
        ],
    )
    def test_a_body_of_another_shape_is_refused(
        self, control_plane: ControlPlane, body: dict[str, object], field: str
    ) -> None:
        reply = control_plane.client.post("/scope", json=body)
        assert (reply.status_code, reply.json()["field"]) == (400, field)

    def test_an_encoder_that_fails_is_503(self, control_plane: ControlPlane) -> None:
        _add(control_plane)
        control_plane.encoder.failure = ModelUnavailableError("the encoder is out of memory")
        assert control_plane.client.post("/scope", json={"queries": ["q"]}).status_code == 503


class TestLogAndStats:
    def test_the_log_lists_every_change_in_order_and_can_be_read_on(
        self, control_plane: ControlPlane
    ) -> None:
        edit_id = _add(control_plane, author="jo", reason="because")
        path = f"/edits/{edit_id}"
        control_plane.client.patch(path, json={"target_new": "Ann"}, headers={"if-match": '"1"'})
        control_plane.client.delete(path, headers={"if-match": '"2"'})
        first = control_plane.client.get("/log?limit=2").json()
        rest = control_plane.client.get("/log", params={"after": first["next_after"]}).json()
        entries = first["entries"] + rest["entries"]
        assert [(entry["action"], entry["edit_id"], entry["version"]) for entry in entries] == [
            ("add", edit_id, 1),
            ("update", edit_id, 2),
            ("retire", edit_id, 3),
        ]
        assert (entries[0]["author"], entries[0]["reason"]) == ("jo", "because")
        end = control_plane.client.get("/log", params={"after": rest["next_after"]}).json()
        assert end == {"entries": [], "next_after": rest["next_after"]}

    @pytest.mark.parametrize("after", ["x", "1", "-", "1-x", "9" * 30 + "-0", "\u0663-0"])
    def test_what_is_no_log_id_is_refused(self, control_plane: ControlPlane, after: str) -> None:
        reply = control_plane.client.get("/log", params={"after": after})
        assert (reply.status_code, reply.json()["field"], reply.json()["value"]) == (400, "after", after)

    def test_the_stats_count_edits_by_namespace_and_name_the_upstream(
        self, control_plane: ControlPlane
    ) -> None:
        _add(control_plane)
        stats = control_plane.client.get("/stats").json()
        assert stats == {
            "edits": {"default": 1}, "routes": [], "governed": [], "upstream_url": "http://upstream.invalid/v1"
        }  # fmt: skip


class TestHealth:
    def test_a_loaded_gateway_is_live_and_ready(self, control_plane: ControlPlane) -> None:
        assert httpx.get(f"{control_plane.url}/health/live").json() == {"live": True}
        reply = httpx.get(f"{control_plane.url}/health/ready")
        assert reply.status_code == 200
        assert reply.json() == {
            "ready": True,
            "missing": {},
            "store": "reachable",
            "quarantined_namespaces": 0,
        }

    def test_a_loading_gateway_is_live_but_not_ready_and_names_what_is_missing(
        self, control_plane: ControlPlane
    ) -> None:
        control_plane.gateway.readiness.note("edits", "1,000 loaded")
        assert httpx.get(f"{control_plane.url}/health/live").status_code == 200
        reply = httpx.get(f"{control_plane.url}/health/ready")
        assert reply.status_code == 503
        assert reply.json()["missing"] == {"edits": "1,000 loaded"}
        control_plane.gateway.readiness.done("edits")
        assert httpx.get(f"{control_plane.url}/health/ready").status_code == 200

    def test_a_store_that_fails_later_is_reported_but_leaves_the_gateway_ready(self) -> None:
        class StoreThatWent(InMemoryEditStore):
            async def ping(self) -> None:
                raise StoreUnavailableError("the store does not answer")

        with running_control_plane(StoreThatWent()) as control_plane:
            reply = httpx.get(f"{control_plane.url}/health/ready")
            assert reply.status_code == 200
            assert reply.json()["store"] == "the store does not answer"
