"""Edits over HTTP, against a server that listens."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from serac_gateway.errors import ModelUnavailableError
from tests.control_plane import MAX_BODY_BYTES, ControlPlane

DRAFT = {"prompt": "Who runs the harbour office?", "target_new": "Ottilie Brandvold"}


def _added(control_plane: ControlPlane, **fields: object) -> dict[str, Any]:
    reply = control_plane.client.post("/edits", json={**DRAFT, **fields})
    assert reply.status_code == 201, reply.text
    edit: dict[str, Any] = reply.json()
    return edit


def _problem(reply: httpx.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-request-id"]
    problem: dict[str, Any] = reply.json()
    assert problem["status"] == status
    return problem


class TestAdd:
    def test_only_prompt_and_target_are_required_and_the_reply_has_the_edits_location(
        self, control_plane: ControlPlane
    ) -> None:
        reply = control_plane.client.post("/edits", json=DRAFT)
        assert reply.status_code == 201
        assert reply.headers["etag"] == '"1"'
        assert reply.headers["location"] == f"/serac/v1/edits/{reply.json()['id']}"
        read = httpx.get(control_plane.url + reply.headers["location"]).json()
        assert read | {"conflicts": []} == reply.json() | {"verification": None}

    def test_an_added_edit_is_in_force_before_the_reply(self, control_plane: ControlPlane) -> None:
        edit = _added(control_plane)
        reply = control_plane.client.post("/scope", json={"queries": [DRAFT["prompt"]]})
        assert reply.json()["decisions"][0]["edit_id"] == edit["id"]

    @pytest.mark.parametrize(
        ("body", "field", "limit"),
        [
            ({"prompt": "Who?"}, "target_new", None),
            ({"target_new": "Jo"}, "prompt", None),
            ({**DRAFT, "prompt": "x" * 2_001}, "prompt", 2_000),
            ({**DRAFT, "prompt": " \t"}, "prompt", None),
            ({**DRAFT, "prompt": 5}, "prompt", None),
            ({**DRAFT, "kind": "joke"}, "kind", None),
            ({**DRAFT, "colour": "red"}, "colour", None),
            ({**DRAFT, "id": "../../etc/passwd"}, "id", None),
            ({**DRAFT, "paraphrases": ["p"] * 33}, "paraphrases", 32),
            ({**DRAFT, "paraphrases": ["p", 3]}, "paraphrases[1]", None),
            ({**DRAFT, "valid_from": "2026-01-01"}, "valid_from", None),
            (
                {**DRAFT, "valid_from": "2026-02-01T00:00:00Z", "valid_until": "2026-01-01T00:00:00Z"},
                "valid_until",
                "2026-02-01T00:00:00+00:00",
            ),
        ],
    )
    def test_a_bad_edit_is_refused_with_field_and_limit_and_nothing_is_stored(
        self, control_plane: ControlPlane, body: dict[str, object], field: str, limit: object
    ) -> None:
        problem = _problem(control_plane.client.post("/edits", json=body), 400)
        missing = field in problem["detail"] and "missing required field" in problem["detail"]
        assert problem.get("field") == field or missing
        assert problem.get("limit") == limit
        assert control_plane.client.get("/edits").json()["edits"] == []

    def test_an_unknown_kind_is_answered_with_the_known_ones(self, control_plane: ControlPlane) -> None:
        problem = _problem(control_plane.client.post("/edits", json={**DRAFT, "kind": "joke"}), 400)
        assert problem["value"] == "joke"
        assert "fact, suppression, instruction" in problem["detail"]

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"prompt": "\xff"}', b"[" * 100_000])
    def test_a_body_that_is_no_json_object_is_refused(self, control_plane: ControlPlane, body: bytes) -> None:
        assert _problem(control_plane.client.post("/edits", content=body), 400)["field"] == "body"

    def test_a_body_over_the_limit_is_refused_with_the_limit(self, control_plane: ControlPlane) -> None:
        reply = control_plane.client.post("/edits", content=b" " * (MAX_BODY_BYTES + 1))
        assert _problem(reply, 413)["limit"] == MAX_BODY_BYTES

    def test_an_id_that_exists_is_a_conflict(self, control_plane: ControlPlane) -> None:
        _added(control_plane, id="mine")
        problem = _problem(control_plane.client.post("/edits", json={**DRAFT, "id": "mine"}), 409)
        assert (problem["field"], problem["value"]) == ("id", "mine")

    def test_a_repeated_request_with_its_idempotency_key_answers_the_same_and_adds_nothing(
        self, control_plane: ControlPlane
    ) -> None:
        headers = {"idempotency-key": "k-1"}
        first = control_plane.client.post("/edits", json=DRAFT, headers=headers)
        spaced = json.dumps(DRAFT, indent=4).encode()
        second = control_plane.client.post("/edits", content=spaced, headers=headers)
        assert (second.status_code, second.json()) == (201, first.json())
        assert second.headers["etag"] == first.headers["etag"]
        assert len(control_plane.client.get("/edits").json()["edits"]) == 1

    def test_an_idempotency_key_with_another_body_is_refused(self, control_plane: ControlPlane) -> None:
        headers = {"idempotency-key": "k-1"}
        control_plane.client.post("/edits", json=DRAFT, headers=headers)
        reply = control_plane.client.post("/edits", json={**DRAFT, "target_new": "Jo"}, headers=headers)
        assert _problem(reply, 422)["value"] == "k-1"

    def test_an_idempotency_key_beyond_its_limit_is_refused(self, control_plane: ControlPlane) -> None:
        reply = control_plane.client.post("/edits", json=DRAFT, headers={"idempotency-key": "k" * 256})
        assert _problem(reply, 400)["limit"] == 255

    def test_an_encoder_that_fails_is_503_and_nothing_is_stored(self, control_plane: ControlPlane) -> None:
        control_plane.encoder.failure = ModelUnavailableError("the encoder is out of memory")
        reply = control_plane.client.post("/edits", json=DRAFT)
        assert _problem(reply, 503)["detail"] == "the encoder is out of memory"
        assert reply.headers["retry-after"]
        assert control_plane.client.get("/edits").json()["edits"] == []

    def test_an_unexpected_failure_is_500_without_internals(self, control_plane: ControlPlane) -> None:
        control_plane.encoder.failure = ZeroDivisionError("secret: 42")
        reply = control_plane.client.post("/edits", json=DRAFT)
        _problem(reply, 500)
        assert "secret" not in reply.text
        assert "ZeroDivisionError" not in reply.text


class TestNamespaces:
    def test_edits_of_one_namespace_are_not_seen_in_another(self, control_plane: ControlPlane) -> None:
        reply = control_plane.client.post("/edits", json=DRAFT, headers={"x-serac-namespace": "tenant-a"})
        path = f"/edits/{reply.json()['id']}"
        _problem(control_plane.client.get(path), 404)
        assert control_plane.client.get(path, headers={"x-serac-namespace": "tenant-a"}).status_code == 200
        assert control_plane.client.get("/namespaces").json() == {"namespaces": ["tenant-a"]}

    @pytest.mark.parametrize("namespace", ["Bad", "", "a" * 64, "../etc", "a b", "ä"])
    def test_a_namespace_that_is_not_allowed_is_refused(
        self, control_plane: ControlPlane, namespace: str
    ) -> None:
        headers = {"x-serac-namespace": namespace.encode()}
        problem = _problem(control_plane.client.get("/edits", headers=headers), 400)  # type: ignore[arg-type]
        assert problem["field"] == "x-serac-namespace"


class TestReadAndList:
    def test_an_unknown_edit_is_404(self, control_plane: ControlPlane) -> None:
        for path in ("/edits/none", "/edits/none/versions"):
            assert "'none'" in _problem(control_plane.client.get(path), 404)["detail"]

    @pytest.mark.parametrize("path", ["/edits/%20", "/edits/a%0Ab", "/edits/" + "x" * 65])
    def test_an_id_that_is_not_allowed_is_refused(self, control_plane: ControlPlane, path: str) -> None:
        assert _problem(control_plane.client.get(path), 400)["field"] == "id"

    def test_the_versions_are_listed_oldest_first(self, control_plane: ControlPlane) -> None:
        path = f"/edits/{_added(control_plane)['id']}"
        control_plane.client.patch(path, json={"target_new": "Jo"}, headers={"if-match": '"1"'})
        versions = control_plane.client.get(f"{path}/versions").json()["versions"]
        assert [(version["version"], version["target_new"]) for version in versions] == [
            (1, "Ottilie Brandvold"),
            (2, "Jo"),
        ]

    def test_pages_follow_each_other_until_the_last(self, control_plane: ControlPlane) -> None:
        ids = sorted(_added(control_plane)["id"] for _ in range(5))
        seen: list[str] = []
        query: dict[str, str] = {"limit": "2"}
        while True:
            page = control_plane.client.get("/edits", params=query).json()
            assert len(page["edits"]) <= 2
            seen += [edit["id"] for edit in page["edits"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == ids

    def test_the_list_can_be_limited_to_a_state(self, control_plane: ControlPlane) -> None:
        gone, there = _added(control_plane)["id"], _added(control_plane)["id"]
        control_plane.client.delete(f"/edits/{gone}", headers={"if-match": "*"})
        for state, ids in (("live", [there]), ("retired", [gone])):
            page = control_plane.client.get("/edits", params={"state": state}).json()
            assert [edit["id"] for edit in page["edits"]] == ids

    @pytest.mark.parametrize(
        ("query", "field", "limit"),
        [("limit=0", "limit", 1), ("limit=1001", "limit", 1_000), ("limit=x", "limit", None)],
    )
    def test_a_bad_page_size_is_refused(
        self, control_plane: ControlPlane, query: str, field: str, limit: int | None
    ) -> None:
        problem = _problem(control_plane.client.get(f"/edits?{query}"), 400)
        assert (problem["field"], problem["value"]) == (field, query.partition("=")[2])
        assert problem.get("limit") == limit

    def test_an_unknown_state_is_answered_with_the_known_ones(self, control_plane: ControlPlane) -> None:
        problem = _problem(control_plane.client.get("/edits?state=gone"), 400)
        assert (problem["field"], problem["value"]) == ("state", "gone")
        assert "retired, purged" in problem["detail"]


class TestChangeAndRetire:
    @pytest.fixture
    def path(self, control_plane: ControlPlane) -> str:
        return f"/edits/{_added(control_plane)['id']}"

    def test_a_change_is_a_new_version_in_force(self, control_plane: ControlPlane, path: str) -> None:
        reply = control_plane.client.patch(path, json={"target_new": "Jo"}, headers={"if-match": '"1"'})
        assert (reply.status_code, reply.headers["etag"]) == (200, '"2"')
        decision = control_plane.client.post("/scope", json={"queries": [DRAFT["prompt"]]}).json()
        assert decision["decisions"][0]["edit_version"] == 2

    @pytest.mark.parametrize("method", ["PATCH", "DELETE"])
    def test_without_if_match_it_is_428(self, control_plane: ControlPlane, path: str, method: str) -> None:
        body = {"target_new": "Jo"} if method == "PATCH" else None
        assert _problem(control_plane.client.request(method, path, json=body), 428)["field"] == "if-match"

    @pytest.mark.parametrize("method", ["PATCH", "DELETE"])
    @pytest.mark.parametrize("if_match", ['"2"', 'W/"1"', '""'])
    def test_a_stale_or_weak_etag_is_412_and_changes_nothing(
        self, control_plane: ControlPlane, path: str, method: str, if_match: str
    ) -> None:
        body = {"target_new": "Jo"} if method == "PATCH" else None
        reply = control_plane.client.request(method, path, json=body, headers={"if-match": if_match})
        problem = _problem(reply, 412)
        assert (problem["value"], problem["current"]) == (if_match, '"1"')
        assert control_plane.client.get(path).json()["version"] == 1

    @pytest.mark.parametrize("if_match", ["1", "abc", '"1', ""])
    def test_an_if_match_that_is_no_entity_tag_is_400(
        self, control_plane: ControlPlane, path: str, if_match: str
    ) -> None:
        _problem(control_plane.client.delete(path, headers={"if-match": if_match}), 400)
        assert control_plane.client.get(path).json()["version"] == 1

    @pytest.mark.parametrize("if_match", ["*", '"7", "1"'])
    def test_a_star_or_a_list_with_the_current_tag_matches(
        self, control_plane: ControlPlane, path: str, if_match: str
    ) -> None:
        assert control_plane.client.delete(path, headers={"if-match": if_match}).status_code == 200

    def test_of_two_changes_to_one_version_only_the_first_is_made(
        self, control_plane: ControlPlane, path: str
    ) -> None:
        statuses = [
            control_plane.client.patch(
                path, json={"target_new": who}, headers={"if-match": '"1"'}
            ).status_code
            for who in ("Jo", "Ann")
        ]
        assert statuses == [200, 412]
        assert control_plane.client.get(path).json()["target_new"] == "Jo"

    def test_a_retired_edit_no_longer_fires_and_can_still_be_read(
        self, control_plane: ControlPlane, path: str
    ) -> None:
        reply = control_plane.client.delete(path, headers={"if-match": '"1"'})
        assert (reply.json()["state"], reply.headers["etag"]) == ("retired", '"2"')
        decision = control_plane.client.post("/scope", json={"queries": [DRAFT["prompt"]]}).json()
        assert not decision["decisions"][0]["in_scope"]
        assert control_plane.client.get(path).json()["state"] == "retired"

    def test_retiring_twice_is_answered_with_the_retired_edit(
        self, control_plane: ControlPlane, path: str
    ) -> None:
        first = control_plane.client.delete(path, headers={"if-match": "*"})
        assert control_plane.client.delete(path, headers={"if-match": "*"}).json() == first.json()

    def test_an_empty_change_is_refused(self, control_plane: ControlPlane, path: str) -> None:
        _problem(control_plane.client.patch(path, json={}, headers={"if-match": '"1"'}), 400)
        assert control_plane.client.get(path).json()["version"] == 1

    def test_null_clears_an_optional_field_and_a_required_one_cannot_be_null(
        self, control_plane: ControlPlane
    ) -> None:
        path = f"/edits/{_added(control_plane, subject='Marrowby')['id']}"
        cleared = control_plane.client.patch(path, json={"subject": None}, headers={"if-match": '"1"'})
        assert cleared.json()["subject"] is None
        reply = control_plane.client.patch(path, json={"prompt": None}, headers={"if-match": '"2"'})
        assert _problem(reply, 400)["field"] == "prompt"

    def test_an_unknown_edit_is_404(self, control_plane: ControlPlane) -> None:
        problem = _problem(control_plane.client.delete("/edits/none", headers={"if-match": "*"}), 404)
        assert "'none'" in problem["detail"]


class TestRefusals:
    def test_an_unknown_path_is_404_and_a_wrong_method_405_with_what_is_allowed(
        self, control_plane: ControlPlane
    ) -> None:
        assert "/serac/v1/nope" in _problem(control_plane.client.get("/nope"), 404)["detail"]
        reply = control_plane.client.put("/edits/some")
        _problem(reply, 405)
        assert reply.headers["allow"] == "DELETE, GET, OPTIONS, PATCH"

    def test_while_loading_the_api_says_what_is_missing(self, control_plane: ControlPlane) -> None:
        control_plane.gateway.readiness.note("edits", "1,000 loaded")
        reply = control_plane.client.get("/edits")
        assert "edits (1,000 loaded)" in _problem(reply, 503)["detail"]

    def test_a_sane_request_id_is_kept_and_another_replaced(self, control_plane: ControlPlane) -> None:
        for sent, kept in (("abc-1", True), ("x" * 200, False), ("a b", False)):
            reply = control_plane.client.get("/edits", headers={"x-request-id": sent})
            assert (reply.headers["x-request-id"] == sent) is kept
            assert reply.headers["x-request-id"]


def test_created_at_is_now(control_plane: ControlPlane) -> None:
    made = datetime.fromisoformat(_added(control_plane)["created_at"])
    assert abs((datetime.now(UTC) - made).total_seconds()) < 60
