"""What `serac doctor` says, at the console: for admins, on demand, within a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from serac_gateway.console import health
from serac_gateway.doctor.findings import Finding, fine, warning
from tests.http.console_visitor import console_of_people, visiting
from tests.http.four_eyes import People


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with console_of_people() as people:
        yield people


def test_an_admin_has_the_doctor_look(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finding with its remedy, and markup in them is text."""

    async def diagnosis(config: object, *, file: object) -> list[Finding]:
        return [fine("store", "reachable"), warning("clocks", "<b>ahead</b>", "set it")]

    monkeypatch.setattr(health, "diagnosis", diagnosis)
    with visiting(people.locked.url, people.locked.admin) as root:
        root.get("/n/lab/health")
        assert "OK store" not in root.text
        root.post("/n/lab/health")
        assert "OK store reachable" in root.text
        assert "WARN clocks <b>ahead</b> set it" in root.text
        assert "<b>ahead" not in root.page.text


def test_it_ends_after_its_time_and_looks_once_at_a_time(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that hangs keeps nobody waiting."""

    async def hanging(config: object, *, file: object) -> list[Finding]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(health, "diagnosis", hanging)
    monkeypatch.setattr(health, "DOCTOR_LIMIT_S", 0.2)
    with visiting(people.locked.url, people.locked.admin) as root:
        root.get("/n/lab/health")
        root.post("/n/lab/health")
        assert "longer than 0.2 s" in root.text
        with health._looking:
            root.post("/n/lab/health")
            assert "looking already" in root.text


def test_nobody_but_an_admin_for_all_namespaces_may(people: People) -> None:
    """It speaks of all of them."""
    bound = people.locked.key("admin", "lab", name="Admin of lab")
    for key in (people.ann, people.bo, bound):
        with visiting(people.locked.url, key) as visitor:
            visitor.get("/n/lab/health")
            assert "serac doctor" not in visitor.text
            assert visitor.post("/n/lab/health").status_code == 403
