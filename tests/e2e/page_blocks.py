"""Runs the commands of a page of docs/ as its reader would, and compares what they print with what it shows.

A block of `sh` or `python` is run, in the order of the page; a block of `text` right below it is its output.
In that, … stands for what differs from run to run: within a line for any characters, on a line of its own for
any lines. `PROPOSAL_ID`, `LOG_ID` and `REQUEST_ID` in a command are the last such id that was printed. A
comment `<!-- not run: why -->` above a block leaves it out, and `serac serve` starts the gateway.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.gateway_process import GatewayProcess

WRITTEN_URL = "http://127.0.0.1:8080"
"""In the pages; the gateway of a test is elsewhere."""
DATA_FOLDER = "data"
"""In the pages, of the gateway that they start."""
COLUMNS = "100"
"""Of the terminal in the pages."""
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?"
    r"^```(?P<language>sh|python)\n(?P<code>.*?)^```$"
    r"(?:\n+```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_IDS = {
    "PROPOSAL_ID": re.compile(r"\bpr_[0-9a-f]{22}\b"),
    "LOG_ID": re.compile(r"\b\d{13}-\d+\b"),
    "REQUEST_ID": re.compile(r"\breq_[0-9a-f]{24}\b"),
}
_PROGRAMS = {"serac": "-m serac_gateway", "python": ""}
_START_S = 120


@dataclass(frozen=True, kw_only=True)
class Block:
    """Commands of a page. `line`: where their fence is, from 1; `output`: as it is shown, None: it is not."""

    line: int
    language: str
    code: str
    output: str | None
    reason_not_run: str | None

    @property
    def starts_gateway(self) -> bool:
        return any(line.startswith("serac serve") for line in self.code.splitlines())


def blocks(text: str) -> list[Block]:
    """The blocks of a page's text, in its order."""
    return [
        Block(
            line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            code=match["code"],
            output=match["output"],
            reason_not_run=match["reason"],
        )
        for match in _BLOCK.finditer(text)
    ]


def fits(output: str, printed: str) -> bool:
    """Whether `printed` is what the page shows as `output`, but for what … stands for, and blanks at ends."""
    lines = [line.rstrip() for line in output.strip().splitlines()]
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else ".*?".join(map(re.escape, line.split("…"))) + r"\n"
        for line in lines
    )
    text = "".join(f"{line.rstrip()}\n" for line in printed.strip().splitlines())
    return re.fullmatch(pattern, text) is not None


@dataclass
class PageReader:
    """Runs blocks below `folder`, in one shell as it seems: variables that are exported stay.

    The gateway takes the embedded models from the data folder `converted_models` instead of converting them.
    """

    folder: Path
    converted_models: Path
    gateway: GatewayProcess | None = None
    _printed: str = field(default="", init=False)

    def __post_init__(self) -> None:
        programs = self.folder / "bin"
        programs.mkdir()
        for name, options in _PROGRAMS.items():
            script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {options} "$@"\n'
            (programs / name).write_text(script, "utf-8")
            (programs / name).chmod(0o755)
        self._exports = self.folder / "exports"
        self._exports.touch()
        self._work = self.folder / "work"
        self._work.mkdir()

    def problem(self, block: Block) -> str | None:
        """Run the block; what is not as the page says, None if all is.

        Raises:
            subprocess.TimeoutExpired: It does not end.
        """
        printed = self._start(block.code) if block.starts_gateway else self._run(block)
        self._printed += printed
        if block.output is not None and not fits(block.output, printed):
            return f"line {block.line}: the page shows\n{block.output}\nand this was printed:\n{printed}"
        return None

    def close(self) -> None:
        if self.gateway is not None:
            self.gateway.kill()

    def _run(self, block: Block) -> str:
        code = block.code
        for name, pattern in _IDS.items():
            if re.search(rf"\b{name}\b", code):
                code = re.sub(rf"\b{name}\b", pattern.findall(self._printed)[-1], code)
        if self.gateway is not None:
            code = code.replace(WRITTEN_URL, self.gateway.url)
        if block.language == "python":
            (self._work / "block.py").write_text(code, "utf-8")
            code = "python block.py"
        # What a page shows may be a refusal; without that, all commands must succeed.
        strict = "" if block.output is not None and "error:" in block.output else "set -e\n"
        exports = shlex.quote(str(self._exports))
        done = subprocess.run(
            ["bash", "-c", f". {exports}\n{strict}{code}\nexport -p >{exports}"],
            cwd=self._work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_START_S,
            env=self._environment(),
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"line {block.line}: exit code {done.returncode}\n{code}\n{done.stdout}")
        return done.stdout if self.gateway is None else done.stdout.replace(self.gateway.url, WRITTEN_URL)

    def _start(self, code: str) -> str:
        """Run what stands before `serac serve` in the block, then start it with its options."""
        before, _, command = code.partition("serac serve")
        if before.strip():
            self._run(Block(line=0, language="sh", code=before, output=None, reason_not_run=None))
        options = shlex.split(command, comments=True)
        self.gateway = GatewayProcess(
            self._work / DATA_FOLDER, self.converted_models, *options, cwd=self._work
        )
        return "".join(self.gateway.errors).replace(self.gateway.url, WRITTEN_URL)

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("SERAC_")}
        url = {} if self.gateway is None else {"SERAC_URL": self.gateway.url}
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return kept | url | {"PATH": path, "COLUMNS": COLUMNS, "HF_HUB_OFFLINE": "1"}
