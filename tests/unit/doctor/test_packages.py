"""Installed packages against declared and tested versions."""

from __future__ import annotations

import pytest

from serac_gateway.doctor.findings import Level
from serac_gateway.doctor.packages import (
    constraint_lines,
    declared_requirements,
    index_findings,
    package_findings,
)

DECLARED = ["redis[hiredis]<9,>=8.1", "torch==2.13.0", "mcp<3,>=2.3; extra == 'mcp'"]
PINS = ["redis==8.1.0", "torch==2.13.0", "mcp==2.3.0"]


@pytest.mark.parametrize(
    ("installed", "level", "words"),
    [
        ({"redis": "8.1.0", "torch": "2.13.0+cpu"}, Level.OK, "2 required ones fit"),
        ({"redis": "8.1.0"}, Level.FAIL, "torch is missing"),
        ({"redis": "9.0.0", "torch": "2.13.0"}, Level.FAIL, "redis 9.0.0 is not <9,>=8.1"),
        ({"redis": "8.2.0", "torch": "2.13.0"}, Level.WARN, "redis 8.2.0 instead of 8.1.0"),
        ({"redis": "8.1.0", "torch": "2.13.0", "mcp": "2.4"}, Level.WARN, "mcp 2.4 instead of 2.3.0"),
    ],
)
def test_a_missing_foreign_or_untested_package_is_named(
    installed: dict[str, str], level: Level, words: str
) -> None:
    """One of an extra only if it is installed; builds of one release count as the same."""
    (finding,) = package_findings(DECLARED, PINS, version_of=installed.get)
    assert (finding.level, words in finding.detail) == (level, True)


def test_this_checkout_declares_and_pins_what_it_needs() -> None:
    assert any(text.startswith("litestar") for text in declared_requirements())
    assert any(pin.startswith("litestar==") for pin in constraint_lines())
    assert index_findings() == []
