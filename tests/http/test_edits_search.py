"""Search by text and by meaning, against a server that listens."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.control_plane import ControlPlane

EDITS = {
    "a": {"prompt": "Who runs the harbour office of MARROWBY?", "target_new": "Ottilie Brandvold"},
    "b": {"prompt": "Who is the mayor?", "target_new": "Jo", "subject": "Marrowby"},
    "c": {"prompt": "Who leads docks?", "target_new": "Ann", "paraphrases": ["Chief of Marrowby's docks"]},
    "d": {"prompt": "What does a day pass cost?", "target_new": "18 euros", "target_true": "STRASSE"},
}  # fmt: skip


@pytest.fixture
def filled(control_plane: ControlPlane) -> ControlPlane:
    for edit_id, fields in EDITS.items():
        assert control_plane.client.post("/edits", json={"id": edit_id, **fields}).status_code == 201
    return control_plane


def ids_matching(plane: ControlPlane, **query: object) -> list[str]:
    page = plane.client.get("/edits", params=query).json()
    return [edit["id"] for edit in page["edits"]]


@pytest.mark.parametrize(
    ("text", "ids"),
    [("marrowby", "abc"), ("OTTILIE", "a"), ("straße", "d"), ("docks?", "c"), ("nowhere", ""), (".*", "")],
)
def test_a_text_is_found_in_any_case_in_every_field_that_says_something(
    filled: ControlPlane, text: str, ids: str
) -> None:
    assert ids_matching(filled, q=text) == list(ids)


def test_a_search_can_be_limited_to_a_state(filled: ControlPlane) -> None:
    filled.client.delete("/edits/b", headers={"if-match": "*"})
    assert ids_matching(filled, q="marrowby", state="live") == ["a", "c"]
    assert ids_matching(filled, q="marrowby", state="retired") == ["b"]


def test_the_list_can_be_limited_to_a_kind_and_an_author(filled: ControlPlane) -> None:
    """The author is a text within it, in any case; without a searched text too."""
    suppression = {"id": "e", "prompt": "What is the password?", "target_new": "No.", "kind": "suppression"}
    filled.client.post("/edits", json=suppression | {"author": "Ann Lee (key abc)"})
    assert ids_matching(filled, kind="suppression") == ["e"]
    assert ids_matching(filled, kind="instruction") == []
    assert ids_matching(filled, author="ann LEE") == ["e"]
    assert ids_matching(filled, author="ann", kind="fact") == []
    assert ids_matching(filled, q="password", author="ann", state="live") == ["e"]
    assert filled.client.get("/edits", params={"kind": "rumour"}).status_code == 400
    reply = filled.client.get("/edits", params={"q": "x", "mode": "meaning", "author": "ann"})
    assert reply.json()["field"] == "author"


def test_pages_of_a_search_go_through_all_that_is_found_while_others_write(filled: ControlPlane) -> None:
    plane = filled
    lines = "".join(
        f'{{"id": "m{n:04}", "prompt": "Pier {n} of Marrowby?", "target_new": "{n}"}}\n' for n in range(1_200)
    )
    plane.client.post("/edits:import", content=lines.encode())
    stop = threading.Event()

    def disturb() -> None:
        number = 0
        while not stop.is_set():
            body = {"id": f"k{number}", "prompt": "Marrowby?", "target_new": "x"}
            plane.client.post("/edits", json=body)
            number += 1

    writer = threading.Thread(target=disturb)
    writer.start()
    try:
        seen: list[str] = []
        query: dict[str, Any] = {"q": "of marrowby?", "limit": 100}
        while True:
            page = plane.client.get("/edits", params=query).json()
            assert len(page["edits"]) <= 100
            seen += [edit["id"] for edit in page["edits"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
    finally:
        stop.set()
        writer.join()
    assert seen == ["a", *(f"m{n:04}" for n in range(1_200))]


def test_by_meaning_the_nearest_edits_in_force_come_first_with_their_similarities(
    filled: ControlPlane,
) -> None:
    filled.client.delete("/edits/b", headers={"if-match": "*"})
    page = filled.client.get(
        "/edits", params={"q": "chief docks of marrowby's", "mode": "meaning", "limit": 2}
    ).json()
    assert page["edits"][0]["id"] == "c"
    assert len(page["edits"]) == 2
    assert page["similarities"] == sorted(page["similarities"], reverse=True)
    assert page["similarities"][0] > 0.9
    assert page["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"mode": "meaning"}, "q"),
        ({"mode": "meaning", "q": "x", "cursor": "a"}, "cursor"),
        ({"mode": "meaning", "q": "x", "state": "live"}, "state"),
        ({"mode": "sense", "q": "x"}, "mode"),
        ({"q": ""}, "q"),
        ({"q": "x" * 2_001}, "q"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    filled: ControlPlane, query: dict[str, str], field: str
) -> None:
    reply = filled.client.get("/edits", params=query)
    assert (reply.status_code, reply.json()["field"]) == (400, field)
