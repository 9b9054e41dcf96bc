"""A real `serac serve` in a process of its own, with the embedded models."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil

_START_TIMEOUT_S = 300


class GatewayProcess:
    """Started when made, ready when `url` is there. Use as ``with``: it is ended in any case."""

    def __init__(
        self, data_path: Path, converted_models: Path, *options: str, cwd: Path | None = None
    ) -> None:
        data_path.mkdir(exist_ok=True)
        if not (data_path / "models").exists():
            (data_path / "models").symlink_to(converted_models / "models")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "serac_gateway",
                "serve",
                "--port",
                "0",
                "--data-dir",
                str(data_path),
                *options,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "300"},
            cwd=cwd,
        )
        self.errors: list[str] = []
        self.url = ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()
        if not self._ready.wait(_START_TIMEOUT_S) or not self.url:
            self.kill()
            raise AssertionError("the gateway did not start:\n" + "".join(self.errors))

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """SIGKILL, as a power failure or the kernel would."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def children(self) -> list[psutil.Process]:
        """The store's and the base model's processes."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)
            if match := re.search(r"serving on (http://\S+)/v1", line):
                self.url = match[1]
                self._ready.set()
        self._ready.set()
