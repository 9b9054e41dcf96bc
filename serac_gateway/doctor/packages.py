"""Installed packages against what this version declares, and against the versions that its tests ran with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from serac_gateway.doctor.findings import Finding, failure, fine, warning

_PROJECT = "serac_gateway"
_LISTED = 6

InstalledVersion = Callable[[str], str | None]
"""The installed version of a package; None: it is not installed."""


def installed_version(name: str) -> str | None:
    """Of this Python."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_findings(
    requirements: list[str], pins: list[str], *, version_of: InstalledVersion = installed_version
) -> list[Finding]:
    """One finding; `requirements` and `pins` as in pyproject.toml and constraints.txt, version by version."""
    wrong = []
    needed = [
        requirement
        for requirement in map(Requirement, requirements)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    for requirement in needed:
        installed = version_of(requirement.name)
        if installed is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        return [
            failure(
                "packages",
                _listed(wrong),
                "run `pip install --constraint constraints.txt` again as the installation page says",
            )
        ]
    others = [
        f"{pin.name} {installed} instead of {pinned}"
        for pin in map(Requirement, pins)
        for pinned in [str(pin.specifier).removeprefix("==")]
        if (installed := version_of(pin.name)) is not None and not _same(installed, pinned)
    ]
    if others:
        return [
            warning(
                "packages",
                f"{len(others)} are not those that the tests ran with: {_listed(others)}",
                "install with `--constraint constraints.txt` to have the tested ones",
            )
        ]
    return [fine("packages", f"{len(needed)} required ones fit, {len(pins)} pins hold")]


def index_findings() -> list[Finding]:
    """Whether the library of the edit index is there, which comes with an extra."""
    if importlib.util.find_spec("faiss") is None:
        return [
            failure("packages", "the edit index's library is missing", "install the extra [cpu] or [gpu]")
        ]
    return []


def declared_requirements() -> list[str]:
    """As the installed project has them."""
    return [str(requirement) for requirement in importlib.metadata.requires(_PROJECT) or []]


def constraint_lines() -> list[str]:
    """The lines of constraints.txt: of the checkout, else of the wheel."""
    checkout = Path(__file__).parents[2] / "constraints.txt"
    file = checkout if checkout.is_file() else resources.files(_PROJECT) / "constraints.txt"
    lines = (line.partition("#")[0].strip() for line in file.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def _same(installed: str, pinned: str) -> bool:
    """Whether it is that release, in whichever build (2.13.0+cpu)."""
    try:
        return Version(installed).public == Version(pinned).public
    except InvalidVersion:
        return installed == pinned


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
