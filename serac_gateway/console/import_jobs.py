"""Imports that run in the background of the console: checked first, then done, with their progress.

The lines go through the import of the API, on behalf of whoever sent them. A job lives in the memory of this
process; what it has imported stays, and the same file again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from serac_gateway.console.edit_tables import EditFile, Fault
from serac_gateway.console.planes import PlanesClient, RefusedError
from serac_gateway.errors import RateLimitedError

log = logging.getLogger(__name__)

MAX_JOBS = 4
"""Kept at a time in this process; `uploads.MAX_UPLOAD_BYTES` and `edit_tables.MAX_LINES` bound each."""
MAX_FAULTS = 500
"""Of a job that are kept and shown; the rest are counted."""
_IDLE_S = 900.0
"""A job that nobody has looked at for so long makes room for another."""
_LINES_AT_A_TIME = 64


class JobState(StrEnum):
    """How far an import is."""

    CHECKING = "checking"
    CHECKED = "checked"
    IMPORTING = "importing"
    DONE = "done"
    BROKEN = "broken"
    """The API refused it as a whole, or it broke off."""


@dataclass(kw_only=True)
class Tally:
    """What has become of the lines, or would."""

    added: int = 0
    same: int = 0
    """Stored before with the same content."""
    proposed: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """Lines with an outcome."""
        return self.added + self.same + self.proposed + self.failed


@dataclass(kw_only=True)
class ImportJob:
    """One file on its way into one namespace."""

    namespace: str
    key_id: str | None
    name: str
    """Of the file."""
    file: EditFile
    expedite: bool
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: JobState = JobState.CHECKING
    tally: Tally = field(default_factory=Tally)
    faults: list[Fault] = field(default_factory=list)
    """The first `MAX_FAULTS` of them, by line."""
    problem: str | None = None
    """Why the import as a whole was refused or broke off, in English."""
    proposal_id: str | None = None
    seen_s: float = 0.0
    total: int = 0
    """Lines that hold something."""

    @property
    def is_running(self) -> bool:
        """Whether its progress is worth another look."""
        return self.state in (JobState.CHECKING, JobState.IMPORTING)

    async def run(self, client: PlanesClient, *, dry_run: bool) -> None:
        """Send the lines; its state says how that went."""
        self.total = len(self.file.lines) + len(self.file.faults)
        self.faults, self.problem = list(self.file.faults[:MAX_FAULTS]), None
        self.tally = Tally(failed=len(self.file.faults))
        rest = b""

        async def take(chunk: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._note(msgspec.json.decode(line))
            await asyncio.sleep(0)  # other requests are served meanwhile

        self.state = JobState.CHECKING if dry_run else JobState.IMPORTING
        try:
            await client.send_lines(
                "/edits:import",
                self._chunks(),
                take,
                query={"dry_run": "true"} if dry_run else {},
                headers={"x-serac-expedite": "true"} if self.expedite else {},
            )
        except RefusedError as refusal:
            self.problem = refusal.detail
        except Exception:
            log.exception("an import of the console into namespace %s broke off", self.namespace)
            self.problem = "the import broke off; the gateway's log says why. The same file again goes on"
        self.faults.sort(key=lambda fault: fault.line)
        if self.problem is None and self.tally.done < self.total:
            self.problem = "the import broke off before its last line; the same file again goes on"
        self.state = JobState.CHECKED if dry_run else JobState.DONE
        if self.problem is not None:
            self.state = JobState.BROKEN
        if self.state is not JobState.CHECKED:
            self.file = EditFile(lines=[], faults=[])

    def _chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.file.lines), _LINES_AT_A_TIME):
            yield self.file.as_ndjson(start, start + _LINES_AT_A_TIME)

    def _note(self, outcome: dict[str, Any]) -> None:
        if "proposal" in outcome:
            self.proposal_id = outcome["proposal"]["id"]
        elif "line" not in outcome:
            self.problem = outcome["error"]["detail"]
        elif "error" in outcome:
            self.tally.failed += 1
            if len(self.faults) < MAX_FAULTS:
                line = self.file.lines[outcome["line"] - 1][0]
                self.faults.append(Fault(line=line, detail=outcome["error"]["detail"]))
        elif outcome.get("proposed"):
            self.tally.proposed += 1
        elif outcome["added"]:
            self.tally.added += 1
        else:
            self.tally.same += 1


class ImportDesk:
    """The imports of this process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._jobs: dict[str, ImportJob] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, job: ImportJob) -> None:
        """Keep a new job.

        Raises:
            RateLimitedError: As many as are kept run, or are looked at.
        """
        self._make_room()
        if len(self._jobs) >= MAX_JOBS:
            raise RateLimitedError(
                f"{MAX_JOBS} imports are under way at this gateway's console; try again when one of them has"
                " ended, or use `serac edits import FILE`",
                details={"limit": MAX_JOBS},
            )
        job.seen_s = time.monotonic()
        self._jobs[job.id] = job

    def find(self, job_id: str, namespace: str, key_id: str | None) -> ImportJob | None:
        """The job of that id, if whoever has the key sent it to the namespace."""
        job = self._jobs.get(job_id)
        if job is None or (job.namespace, job.key_id) != (namespace, key_id):
            return None
        job.seen_s = time.monotonic()
        return job

    def drop(self, job: ImportJob) -> None:
        """Forget it."""
        self._jobs.pop(job.id, None)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it run until it ends, whoever looks on."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _make_room(self) -> None:
        now_s = time.monotonic()
        for job in sorted(self._jobs.values(), key=lambda job: job.seen_s):
            ended = job.state in (JobState.DONE, JobState.BROKEN)
            if not job.is_running and (now_s - job.seen_s > _IDLE_S or (ended and self._is_full)):
                self.drop(job)

    @property
    def _is_full(self) -> bool:
        return len(self._jobs) >= MAX_JOBS
