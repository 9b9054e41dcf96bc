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
def serving(handling_s: float, **options: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.e2e.sighup_gateway", str(handling_s)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **options
    ) as process:
        try:
            assert printed(process) == "opening"
            yield process
        finally:
            process.kill()


def printed(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_signal_before_the_gateway_is_open_is_handled_once_it_is() -> None:
    with serving(0.0) as process:
        process.send_signal(signal.SIGHUP)
        assert {printed(process), printed(process), printed(process)[:7]} == {"SIGHUP", "handled", "http://"}
        process.send_signal(signal.SIGTERM)
        assert (printed(process), process.wait(10)) == ("closed", 0)


def test_several_signals_during_a_call_cause_one_more_call_and_a_failure_ends_nothing() -> None:
    with serving(0.5) as process:
        assert printed(process).startswith("http://")
        process.send_signal(signal.SIGHUP)
        assert printed(process) == "SIGHUP"
        for _ in range(5):
            process.send_signal(signal.SIGHUP)
        assert [printed(process) for _ in range(3)] == ["handled", "SIGHUP", "handled"]
        process.send_signal(signal.SIGTERM)
        assert (printed(process), process.wait(10)) == ("closed", 0)


def test_a_long_call_does_not_delay_the_end() -> None:
    with serving(60.0) as process:
        assert printed(process).startswith("http://")
        process.send_signal(signal.SIGHUP)
        assert printed(process) == "SIGHUP"
        process.send_signal(signal.SIGTERM)
        assert (printed(process), process.wait(10)) == ("closed", 0)


def test_the_end_of_its_terminal_ends_it() -> None:
    controller, terminal = os.openpty()
    with serving(0.0, stdin=terminal, start_new_session=True) as process:
        os.close(terminal)
        assert printed(process).startswith("http://")
        process.send_signal(signal.SIGHUP)  # from an operator: the terminal is there
        assert [printed(process), printed(process)] == ["SIGHUP", "handled"]
        os.close(controller)
        process.send_signal(signal.SIGHUP)  # as the kernel does to who runs in it
        assert (printed(process), process.wait(10)) == ("closed", 0)
