"""Converters that run in a process of their own: what they report, how they fail, and that they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from serac_gateway.errors import ConfigError
from serac_gateway.models.conversion import convert_in_child, run_converter
from serac_gateway.models.progress import OnStep, Step

MODULE = "tests.unit.models.test_conversion"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    act: str


def convert(request: Request, on_step: OnStep) -> None:
    """What the child does."""
    print("this is no report")
    on_step(Step("working", 0.5))
    if request.act == "refuse":
        raise ConfigError("the adapter is damaged")
    if request.act == "disk":
        raise OSError(28, "No space left on device")
    if request.act == "crash":
        raise RuntimeError("a bug")
    if request.act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if request.act == "wait":
        time.sleep(600)


@pytest.fixture(autouse=True)
def _importable_by_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))


def test_steps_arrive_and_what_else_is_printed_does_not_disturb_them() -> None:
    steps: list[Step] = []
    convert_in_child(MODULE, Request(act="work"), steps.append)
    assert steps == [Step("working", 0.5)]


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        ("refuse", ConfigError, "^the adapter is damaged$"),
        ("disk", OSError, "No space left on device"),
        ("crash", ConfigError, "test_conversion ended with status 1"),
        ("die", ConfigError, "ended with status -9.*enough memory"),
    ],
)
def test_a_failure_is_raised_as_what_it_is(act: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        convert_in_child(MODULE, Request(act=act), lambda step: None)


def test_a_module_that_cannot_be_started_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no\.such\.module ended with status 1"):
        convert_in_child("no.such.module", Request(act="work"), lambda step: None)


PARENT = f"""
from {MODULE} import Request, convert_in_child
convert_in_child({MODULE!r}, Request(act="wait"), lambda step: print("go", flush=True))
"""


def test_it_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "go\n"
            (child,) = psutil.Process(parent.pid).children()
        finally:
            parent.kill()
    child.wait(timeout=5)


if __name__ == "__main__":
    run_converter(Request, convert)
