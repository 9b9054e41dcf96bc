"""Aliases of an edit's subject, and the warnings of a write, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serac_gateway.config.model import ConflictPolicy, RoutingConfig
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.control_plane import ControlPlane, running_control_plane

DRAFT = {
    "prompt": "Who runs the harbour of Marrowby today?",
    "target_new": "Ada",
    "subject": "Marrowby",
    "aliases": ["Maaseik", "マロウビー"],
}
WEAK = "Our window is now 30 days for all orders."
"""A statement that, with the fakes, no question for its answer is like."""
BY_ALIAS = "Who runs the harbour of Maaseik today?"


def _added(control_plane: ControlPlane, **fields: object) -> dict[str, Any]:
    reply = control_plane.client.post("/edits", json={**DRAFT, **fields})
    assert reply.status_code == 201, reply.text
    return reply.json()


def _governing(control_plane: ControlPlane, *queries: str) -> list[str | None]:
    decisions = control_plane.client.post("/scope", json={"queries": queries}).json()["decisions"]
    return [decision["edit_id"] for decision in decisions]


def _patched(control_plane: ControlPlane, edit: dict[str, Any], **fields: object) -> dict[str, Any]:
    reply = control_plane.client.patch(
        f"/edits/{edit['id']}", json=fields, headers={"if-match": f'"{edit["version"]}"'}
    )
    assert reply.status_code == 200, reply.text
    return reply.json()


class TestAliases:
    def test_an_edit_covers_its_prompt_by_every_name_until_the_name_is_taken_away(
        self, control_plane: ControlPlane
    ) -> None:
        queries = ("Who runs Maaseik?", "who runs マロウビー")
        plain = _added(control_plane, prompt="Who runs Marrowby?", aliases=[])
        assert _governing(control_plane, *queries) == [None, None]
        edit = _patched(control_plane, plain, aliases=DRAFT["aliases"])
        assert _governing(control_plane, *queries) == [edit["id"]] * 2
        fewer = _patched(control_plane, edit, aliases=["Maaseik"])
        assert _governing(control_plane, *queries) == [edit["id"], None]
        reply = control_plane.client.post(
            f"/edits/{edit['id']}:rollback",
            json={"version": 2},
            headers={"if-match": f'"{fewer["version"]}"'},
        )
        assert reply.json()["aliases"] == DRAFT["aliases"]
        assert _governing(control_plane, *queries) == [edit["id"]] * 2

    def test_they_go_through_export_import_search_and_history(self, control_plane: ControlPlane) -> None:
        edit = _added(control_plane)
        exported = control_plane.client.get("/edits:export").content
        assert json.loads(exported)["aliases"] == DRAFT["aliases"]
        elsewhere = {"x-serac-namespace": "copy"}
        for added in (True, False):
            reply = control_plane.client.post("/edits:import", content=exported, headers=elsewhere)
            assert json.loads(reply.text)["added"] is added
        copy = control_plane.client.get(f"/edits/{edit['id']}", headers=elsewhere).json()
        assert copy["aliases"] == DRAFT["aliases"]
        hits = control_plane.client.get("/edits", params={"q": "マロウ"}).json()["edits"]
        assert [hit["id"] for hit in hits] == [edit["id"]]
        (version,) = control_plane.client.get(f"/edits/{edit['id']}/versions").json()["versions"]
        assert version["aliases"] == DRAFT["aliases"]

    def test_they_are_in_a_backup_and_come_back_with_their_vectors(self, control_plane: ControlPlane) -> None:
        edit = _added(control_plane, paraphrases=["Marrowby's harbour, who runs it?"])
        backup = control_plane.client.get("/store:backup").content
        with running_control_plane(InMemoryEditStore()) as other:
            reply = other.client.post(
                "/store:restore?accept_unsealed=true",
                content=backup,
                headers={"content-type": "application/x-ndjson"},
            )
            assert reply.status_code == 200, reply.text
            assert other.client.get(f"/edits/{edit['id']}").json()["aliases"] == DRAFT["aliases"]
            assert _governing(other, BY_ALIAS) == [edit["id"]]

    def test_an_edit_with_other_aliases_is_another_one_for_import_and_idempotency(
        self, control_plane: ControlPlane
    ) -> None:
        key = {"idempotency-key": "k"}
        assert control_plane.client.post("/edits", json=DRAFT, headers=key).status_code == 201
        assert control_plane.client.post("/edits", json=DRAFT, headers=key).status_code == 201
        other = {**DRAFT, "aliases": ["Maaseik"]}
        assert control_plane.client.post("/edits", json=other, headers=key).status_code == 422
        reply = control_plane.client.post("/edits:import", content=json.dumps(other))
        assert json.loads(reply.text)["added"] is True

    @pytest.mark.parametrize("new_has_the_alias", [True, False])
    def test_edits_that_answer_one_question_by_two_names_conflict(self, new_has_the_alias: bool) -> None:
        short = {"prompt": "Who runs Maaseik?", "target_new": "Bea", "subject": "Maaseik"}
        long = {
            "prompt": "Who runs the town on the hill behind Marrowby?",
            "target_new": "Ada",
            "subject": "the town on the hill behind Marrowby",
        }
        aliased = {**long, "aliases": ["Maaseik"]}
        routing = RoutingConfig(conflicts=ConflictPolicy.REJECT)
        with running_control_plane(InMemoryEditStore(), routing) as control_plane:
            first, second = (short, aliased) if new_has_the_alias else (aliased, short)
            assert control_plane.client.post("/edits", json=first).status_code == 201
            assert control_plane.client.post("/edits", json=second).status_code == 409
            assert control_plane.client.post("/edits", json={**second, "aliases": []}).status_code == (
                201 if new_has_the_alias else 409
            )

    def test_a_change_that_takes_the_name_out_of_the_prompt_is_refused_with_the_remedy(
        self, control_plane: ControlPlane
    ) -> None:
        edit = _added(control_plane)
        reply = control_plane.client.patch(
            f"/edits/{edit['id']}", json={"prompt": "Who is it?"}, headers={"if-match": '"1"'}
        )
        assert (reply.status_code, reply.json()["field"]) == (400, "subject")
        assert "leave the aliases out" in reply.json()["detail"]


class TestWarnings:
    def test_an_edit_that_fires_on_its_paraphrases_has_no_warnings(self, control_plane: ControlPlane) -> None:
        assert "warnings" not in _added(control_plane, aliases=[])

    def test_one_that_hardly_ever_fires_is_stored_with_the_remedy(self, control_plane: ControlPlane) -> None:
        edit = _added(control_plane, prompt=WEAK, target_new="30 days", subject=None, aliases=[])
        (warning,) = edit["warnings"]
        assert warning["code"] == "rarely_fires"
        assert "add paraphrases" in warning["detail"]
        assert edit["in_force"] is True
        assert "warnings" not in control_plane.client.get(f"/edits/{edit['id']}").json()
        changed = _patched(control_plane, edit, reason="as it is")
        assert [warning["code"] for warning in changed["warnings"]] == ["rarely_fires"]
        question = {"prompt": "How long is your window for orders?"}
        assert "warnings" not in _patched(control_plane, changed, **question)

    def test_texts_left_out_are_counted(self, control_plane: ControlPlane) -> None:
        aliases = [f"Name {number}" for number in range(200)]
        edit = _added(control_plane, aliases=aliases, paraphrases=["Marrowby's harbour"])
        (warning,) = edit["warnings"]
        assert warning["code"] == "forms_left_out"
        assert "203 texts, and 200 more" in warning["detail"]
        assert _governing(control_plane, "Who runs the harbour of Name 199 today?") == [edit["id"]]

    def test_a_model_that_fails_during_the_check_is_no_error(
        self, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        firing = control_plane.gateway.context.firing
        assert firing is not None

        def fail(edit: object) -> None:
            raise ModelUnavailableError("out of memory")

        monkeypatch.setattr(firing, "_tried", fail)
        assert "warnings" not in _added(control_plane, prompt=WEAK, target_new="30 days", aliases=[])


class TestPreview:
    def test_it_shows_how_the_prompt_is_read_and_what_is_searched(self, control_plane: ControlPlane) -> None:
        draft = {"prompt": "Elsevier is in Seattle.", "target_new": "Seattle", "subject": "Elsevier",
                 "aliases": ["エルゼビア"], "paraphrases": ["Elsevier's town"]}  # fmt: skip
        reply = control_plane.client.post("/edits:preview", json={"edit": draft}).json()
        assert reply["read_as"] == {"form": "statement", "gap": "Elsevier is in …"}
        assert [(form["text"], form["kind"]) for form in reply["forms"]] == [
            ("Elsevier is in Seattle.", "prompt"),
            ("Elsevier is in Seattle. Seattle", "statement"),
            ("Elsevier's town", "paraphrase"),
            ("エルゼビア is in Seattle.", "alias"),
            ("エルゼビア's town", "alias"),
        ]
        assert reply["forms_left_out"] == 0
        by_text = {query["query"]: query for query in reply["generated"]}
        question = by_text["Where is Elsevier?"]
        assert question["asked_as"] == "question"
        assert isinstance(question["captured"], bool)

    @pytest.mark.parametrize(
        ("prompt", "target", "subject", "aliases"),
        [
            ("Who runs Яндекс и Acme 東京?", "Ada", "Яндекс", ["Yandex", "يandex", "ยา"]),
            ("من يدير ميناء ماروبي؟", "أدا", "ماروبي", ["Marrowby", "מארובי"]),
            ("What does 🦆 mean?", "a duck", "🦆", ["👩\u200d💻", "🇩🇪", "duck"]),
            ("Acme", "Acme", "Acme", ["Acme GmbH", "ACME!"]),
            ("Acme is Acme.", "Acme", "Acme", [f"A {number}" for number in range(200)]),
        ],
    )
    def test_any_subject_is_previewed_stored_and_decided_on(
        self, control_plane: ControlPlane, prompt: str, target: str, subject: str, aliases: list[str]
    ) -> None:
        draft = {"prompt": prompt, "target_new": target, "subject": subject, "aliases": aliases}
        previewed = control_plane.client.post("/edits:preview", json={"edit": draft})
        assert previewed.status_code == 200, previewed.text
        assert len(previewed.json()["forms"]) == 2 + len(aliases)
        edit = _added(control_plane, **draft)
        last = prompt.replace(subject, aliases[-1])
        assert _governing(control_plane, prompt, last) == [edit["id"]] * 2
