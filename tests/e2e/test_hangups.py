"""SIGHUP to a process that serves, and the end of its terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(answer_s: float, **options: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.e2e.hanging_up_gateway", str(answer_s)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **options
    ) as process:
        try:
            assert said(process) == "opening"
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_one_that_comes_before_all_is_open_is_answered_when_it_is() -> None:
    with serving(0.0) as process:
        process.send_signal(signal.SIGHUP)
        assert {said(process), said(process), said(process)[:7]} == {"hung up", "answered", "http://"}
        process.send_signal(signal.SIGTERM)
        assert (said(process), process.wait(10)) == ("closed", 0)


def test_several_that_come_during_an_answer_are_answered_once_and_a_failure_ends_nothing() -> None:
    with serving(0.5) as process:
        assert said(process).startswith("http://")
        process.send_signal(signal.SIGHUP)
        assert said(process) == "hung up"
        for _ in range(5):
            process.send_signal(signal.SIGHUP)
        assert [said(process) for _ in range(3)] == ["answered", "hung up", "answered"]
        process.send_signal(signal.SIGTERM)
        assert (said(process), process.wait(10)) == ("closed", 0)


def test_an_answer_that_takes_long_does_not_delay_the_end() -> None:
    with serving(60.0) as process:
        assert said(process).startswith("http://")
        process.send_signal(signal.SIGHUP)
        assert said(process) == "hung up"
        process.send_signal(signal.SIGTERM)
        assert (said(process), process.wait(10)) == ("closed", 0)


def test_the_end_of_its_terminal_ends_it() -> None:
    controller, terminal = os.openpty()
    with serving(0.0, stdin=terminal, start_new_session=True) as process:
        os.close(terminal)
        assert said(process).startswith("http://")
        process.send_signal(signal.SIGHUP)  # from an operator: the terminal is there
        assert [said(process), said(process)] == ["hung up", "answered"]
        os.close(controller)
        process.send_signal(signal.SIGHUP)  # as the kernel does to who runs in it
        assert (said(process), process.wait(10)) == ("closed", 0)
