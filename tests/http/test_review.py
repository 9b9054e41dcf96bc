"""GET /serac/v1/edits:due lists what somebody should look at again, and changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.control_plane import ControlPlane

ANY = {"if-match": "*"}


def day(offset: int) -> str:
    return (datetime.now(UTC).date() + timedelta(days=offset)).isoformat()


def add(control_plane: ControlPlane, edit_id: str, review_by: str | None, **fields: object) -> None:
    draft = {"id": edit_id, "prompt": f"Who runs {edit_id}?", "target_new": "Ada", "review_by": review_by}
    assert control_plane.client.post("/edits", json=draft | fields).status_code == 201


def due(control_plane: ControlPlane, **query: str | int) -> list[str]:
    reply = control_plane.client.get("/edits:due", params=query)
    assert reply.status_code == 200, reply.text
    return [edit["id"] for edit in reply.json()["edits"]]


def test_the_longest_overdue_comes_first_and_what_is_not_due_does_not_come(
    control_plane: ControlPlane,
) -> None:
    """Today's is due; those on trial count, retired ones do not. All stay in force."""
    add(control_plane, "later", day(40))
    add(control_plane, "soon", day(20))
    add(control_plane, "today", day(0))
    add(control_plane, "b", "2020-02-29")
    add(control_plane, "a", "2020-02-29", state="shadow")
    add(control_plane, "oldest", "0001-01-01")
    add(control_plane, "never", None)
    add(control_plane, "gone", "2020-01-01")
    control_plane.client.delete("/edits/gone", headers=ANY)
    assert due(control_plane) == ["oldest", "a", "b", "today"]
    assert due(control_plane, within_days=30) == ["oldest", "a", "b", "today", "soon"]
    assert due(control_plane, within_days=36_500)[-1] == "later"
    edit = control_plane.client.get("/edits/oldest").json()
    assert (edit["in_force"], edit["version"]) == (True, 1)
    assert control_plane.client.get("/edits:due").json()["today"] == day(0)
    elsewhere = control_plane.client.get("/edits:due", headers={"x-serac-namespace": "other"})
    assert elsewhere.json()["edits"] == []

    control_plane.client.patch("/edits/oldest", json={"review_by": day(365)}, headers=ANY)
    control_plane.client.patch("/edits/a", json={"review_by": None}, headers=ANY)
    control_plane.client.post("/edits/gone:restore", json={}, headers=ANY)
    assert due(control_plane) == ["gone", "b", "today"]


def test_pages_follow_one_another_without_a_gap(control_plane: ControlPlane) -> None:
    """Also where many edits are due on one day, and one of them goes on the way."""
    for number in range(7):
        add(control_plane, f"e{number}", "2020-01-01" if number < 5 else "2020-01-02")
    listed: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    while True:
        page = control_plane.client.get("/edits:due", params=query).json()
        listed += [edit["id"] for edit in page["edits"]]
        if page["next_cursor"] is None:
            break
        if len(listed) == 2:
            control_plane.client.delete(f"/edits/{listed[-1]}", headers=ANY)
        query["cursor"] = page["next_cursor"]
    assert listed == [f"e{number}" for number in range(7)]


def test_a_bad_parameter_is_refused_by_name(control_plane: ControlPlane) -> None:
    """And a cursor that no page gave out."""
    cursors = ("x", "2020-01-01", "2020-01-01_", "2020-13-01_a", "2020-01-01_a/b")
    bad = {"within_days": ("-1", "36501", "30d"), "limit": ("0",), "cursor": cursors}
    for name, values in bad.items():
        for value in values:
            reply = control_plane.client.get("/edits:due", params={name: value})
            assert (reply.status_code, reply.json()["field"]) == (400, name), value
