"""The options that say what an edit rests on, and `--expedite` of the commands that write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from tests.control_plane import ControlPlane
from tests.http.four_eyes import People, running_people

PROMPT, ANSWER = "Who runs the harbour office?", "Ottilie Brandvold"

Serac = Callable[..., Result]


@pytest.fixture
def serac(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Serac:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("SERAC_URL", control_plane.url)

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    with running_people() as running:
        monkeypatch.setenv("SERAC_URL", running.locked.url)
        monkeypatch.setenv("SERAC_NAMESPACE", "one")
        monkeypatch.setenv("COLUMNS", "300")
        yield running


def test_what_an_edit_rests_on_goes_through_add_change_log_export_and_import(
    serac: Serac, tmp_path: Path
) -> None:
    """Each version has its own ticket; what is cleared is gone, what is not given stays."""
    document = tmp_path / "minutes.pdf"
    document.write_bytes(b"minutes")
    digest = hashlib.sha256(b"minutes").hexdigest()
    rests_on = {
        "institution": "Town of Marrowby",
        "source": "Minutes 12/4",
        "source_url": "https://marrowby.example/minutes.pdf",
        "source_sha256": digest,
        "legal_basis": "§ 5",
        "review_by": "2027-12-01",
    }
    options = [
        text
        for name, value in rests_on.items()
        if name != "source_sha256"
        for text in (f"--{name.replace('_', '-')}", value)
    ]
    add = ("edits", "add", PROMPT, ANSWER, "--id", "harbour", "--ticket", "LEG-7", *options)
    edit = json.loads(serac(*add, "--source-file", str(document), "--json").stdout)
    assert {name: edit[name] for name in (*rests_on, "ticket")} == {**rests_on, "ticket": "LEG-7"}
    assert digest in serac("edits", "show", "harbour").stdout

    change = ("edits", "change", "harbour", "--review-by", "2028-12-01", "--clear", "source", "--json")
    changed = json.loads(serac(*change, "--ticket", "LEG-9").stdout)
    assert (changed["review_by"], changed["source"]) == ("2028-12-01", None)
    assert (changed["institution"], changed["source_sha256"]) == ("Town of Marrowby", digest)
    page = json.loads(serac("log", "list", "--json").stdout)
    tickets = [(entry["ticket"], entry["source"], entry["source_sha256"]) for entry in page["entries"]]
    assert tickets == [("LEG-7", "Minutes 12/4", digest), ("LEG-9", None, digest)]
    assert "LEG-9" in serac("log", "list").stdout

    exported = tmp_path / "edits.ndjson"
    serac("edits", "export", "-o", str(exported))
    assert "1 imported" in serac("edits", "import", str(exported), "--namespace", "elsewhere").stdout
    again = json.loads(serac("edits", "show", "harbour", "--namespace", "elsewhere", "--json").stdout)
    names = (*rests_on, "ticket")
    assert {name: again[name] for name in names} == {name: changed[name] for name in names}

    serac("edits", "remove", "harbour", "--ticket", "LEG-11")
    serac("edits", "restore", "harbour", "--ticket", "LEG-12")
    serac("edits", "purge", "harbour", "--reason", "Asked", "--ticket", "DSR-1", "--yes")
    entries = json.loads(serac("log", "list", "--json").stdout)["entries"]
    assert [entry["ticket"] for entry in entries] == [None, None, None, None, "DSR-1"]


def test_what_cannot_be_is_refused_with_the_remedy_and_nothing_is_stored(serac: Serac) -> None:
    """By the command where it can see it, else by the gateway."""
    for options, code, why in (
        (("--source-url", "javascript:alert(1)"), 1, "scheme 'javascript'"),
        (("--source-sha256", "abc"), 1, "sha256sum"),
        (("--source-file", "no-such-file"), 2, "No such file"),
        (("--source-file", "/"), 2, "cannot read the document '/'"),
        (("--source-sha256", "0" * 64, "--source-file", "/"), 2, "give one of them"),
        (("--review-by", "soon"), 2, "soon"),
        (("--review-by", "2027-02-30"), 2, "2027-02-30"),
        (("--institution", " "), 1, "institution ' ' is blank"),
        (("--ticket", "x" * 2_001), 1, "the limit is 2,000"),
    ):
        assert why in serac("edits", "add", PROMPT, ANSWER, *options, code=code).output
    assert json.loads(serac("edits", "list", "--all", "--json").stdout) == []


def test_an_admin_in_a_hurry_writes_by_every_command_and_the_log_says_so(
    people: People, tmp_path: Path
) -> None:
    """Others are refused, and without a reason an admin is, too."""
    lines = tmp_path / "edits.ndjson"
    lines.write_text('{"id": "b", "prompt": "Who is b?", "target_new": "B", "reason": "Now"}\n', "utf-8")
    commands: list[tuple[str, ...]] = [
        ("edits", "add", PROMPT, ANSWER, "--id", "a"),
        ("edits", "change", "a", "--target", "Ilse"),
        ("edits", "set-state", "a", "shadow"),
        ("edits", "rollback", "a", "1"),
        ("edits", "remove", "a"),
        ("edits", "restore", "a"),
        ("rollback", "0-0", "--yes"),
    ]

    def run(key: str, *arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--expedite"], env={"SERAC_API_KEY": key})
        assert result.exit_code == code, result.output
        return result

    add, *_ = commands
    assert "admin" in run(people.ann, *add, "--reason", "Now", code=1).output
    assert "reason is missing" in run(people.locked.admin, *add, code=1).output
    assert people.log("one") == []
    for command in commands:
        run(people.locked.admin, *command, "--reason", "Now")
    assert "1 imported" in run(people.locked.admin, "edits", "import", str(lines)).stdout
    entries = people.log("one")
    actions = [entry["action"] for entry in entries]
    assert actions == ["add", "update", "update", "rollback", "retire", "restore", "rollback", "add"]
    assert all(entry["approval"].startswith("expedited by ") for entry in entries)


def test_what_is_due_for_review_is_listed_in_order_of_date(serac: Serac) -> None:
    """Overdue ones as such; the window is in days or weeks."""
    today = datetime.now(UTC).date()
    days = {"a": date(2020, 1, 2), "b": date(2020, 1, 1), "c": today, "d": today + timedelta(days=10)}
    for edit_id, day in days.items():
        serac("edits", "add", f"Who is {edit_id}?", "A [b]", "--id", edit_id, "--review-by", day.isoformat())

    def due(*arguments: str) -> list[str]:
        return [edit["id"] for edit in json.loads(serac("edits", "due", *arguments, "--json").stdout)]

    assert due() == ["b", "a", "c"]
    assert due("--within", "9d") == ["b", "a", "c"]
    assert due("--within", "2w") == due("--within", "10d") == ["b", "a", "c", "d"]
    table = serac("edits", "due", "--limit", "3")
    assert (table.stdout.count("overdue"), "A [b]" in table.stdout) == (2, True)
    assert "more than 2" in serac("edits", "due", "--limit", "2").output
    serac("edits", "change", "b", "--clear", "review_by")
    assert due() == ["a", "c"]


def test_a_window_that_is_none_is_wrong_usage() -> None:
    """Before the gateway is called."""
    for within in ("", "30", "d", "-1d", "1.5d", "30h", "36501d", "99999w", "1d\n", "١d"):
        result = CliRunner().invoke(app, ["edits", "due", f"--within={within}"])
        assert (result.exit_code, "30d, 4w" in result.output) == (2, True), within
