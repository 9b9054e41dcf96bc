"""Import: a file of edits, checked line by line, and then imported while its progress shows."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, SkipValidation

from serac_gateway.console.edit_changes import can_expedite
from serac_gateway.console.edit_tables import UnreadableFileError, read_edit_file
from serac_gateway.console.import_jobs import MAX_FAULTS, ImportDesk, ImportJob, JobState
from serac_gateway.console.paths import page_path
from serac_gateway.console.uploads import MAX_UPLOAD_BYTES, TAKES_UPLOADS
from serac_gateway.console.visits import Visit, Visiting
from serac_gateway.domain.edits import EditDraft
from serac_gateway.domain.provenance import checked_note

Desk = NamedDependency[SkipValidation[ImportDesk]]
"""Annotates the handlers' parameter `desk`."""
_FOR_ALL = ("reason", "ticket")
"""Fields that the form gives to lines without them."""


class ListedFault(msgspec.Struct, frozen=True, kw_only=True):
    """A failed line as the page lists it."""

    line: int
    fault: str
    remedy: str


class ImportPages(Controller):
    """/console/n/{namespace}/import."""

    path = "/n/{namespace:str}/import"

    @get()
    async def form(self, visit: Visiting) -> Response[str]:
        """The form for a file."""
        return _form(visit)

    @post(
        status_code=200,
        request_max_body_size=MAX_UPLOAD_BYTES,
        opt={TAKES_UPLOADS: True},
    )
    async def check(self, visit: Visiting, desk: Desk) -> Response[Any]:
        """Read the file, and begin to check its lines; nothing is imported."""
        defaults = {name: text for name in _FOR_ALL if (text := visit.fields.get(name, "").strip())}
        for name, text in defaults.items():
            checked_note(name, text)  # once for all lines, each of which would be refused
        upload = visit.upload
        try:
            if upload is None or not (upload.name or upload.content):
                raise UnreadableFileError("import.no_file")
            file = await asyncio.to_thread(read_edit_file, upload.content, defaults)
        except UnreadableFileError as error:
            return _form(visit, status=400, error=error)
        job = ImportJob(
            namespace=visit.namespace,
            key_id=visit.principal.key_id,
            name=upload.name,
            file=file,
            expedite=visit.fields.get("expedite") == "yes",
        )
        desk.take(job)
        desk.start(job.run(visit.client, dry_run=True))
        return visit.redirect(page_path(visit.namespace, "import", job.id))

    @get("/{job_id:str}")
    async def progress(self, visit: Visiting, desk: Desk, job_id: FromPath[str]) -> Response[str]:
        """How far it is, and what became of the lines."""
        job = desk.find(job_id, visit.namespace, visit.principal.key_id)
        return visit.page("missing.html", status=404) if job is None else _job_page(visit, job)

    @post("/{job_id:str}", status_code=200)
    async def act(self, visit: Visiting, desk: Desk, job_id: FromPath[str]) -> Response[Any]:
        """Import what was checked, or forget it."""
        job = desk.find(job_id, visit.namespace, visit.principal.key_id)
        if job is None:
            return visit.page("missing.html", status=404)
        if visit.fields.get("act") == "discard" and not job.is_running:
            desk.drop(job)
            return visit.redirect(page_path(visit.namespace, "import"))
        if job.state is JobState.CHECKED and visit.fields.get("act") == "import":
            job.state = JobState.IMPORTING  # at once: a second click must not import again
            desk.start(job.run(visit.client, dry_run=False))
        return visit.redirect(page_path(visit.namespace, "import", job.id))


def _form(visit: Visit, *, status: int = 200, error: UnreadableFileError | None = None) -> Response[str]:
    typed = visit.typed or visit.fields
    return visit.page(
        "import.html",
        status=status,
        error=error,
        texts={name: typed.get(name, "") for name in _FOR_ALL},
        max_bytes=MAX_UPLOAD_BYTES,
        max_mib=MAX_UPLOAD_BYTES // 2**20,
        columns=EditDraft.__struct_fields__,
        needed=visit.client.planes.config.governance.approvals_of(visit.namespace),
        can_expedite=can_expedite(visit),
    )


def _job_page(visit: Visit, job: ImportJob) -> Response[str]:
    return visit.page(
        "_import_outcome.html" if visit.is_fragment else "import_job.html",
        job=job,
        faults=[_listed(fault.line, fault.detail) for fault in job.faults],
        unlisted=max(0, job.tally.failed - MAX_FAULTS),
    )


def _listed(line: int, detail: str) -> ListedFault:
    """The API says what is wrong, and behind a semicolon what to do."""
    fault, _, remedy = detail.partition("; ")
    return ListedFault(line=line, fault=fault, remedy=remedy)
