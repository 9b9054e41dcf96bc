"""Imports edits in batches, and leaves those that are stored already as they are."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence, Set

import msgspec

from serac_gateway.control_plane.approval import ApprovalOf, no_approval
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import CONTENT_FIELDS, Edit, EditDraft, first_version, same_content
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import (
    ApprovalNeededError,
    ContradictionError,
    EditConflictError,
    EditNotFoundError,
    GatewayError,
    InvalidRequestError,
)
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.errors import id_taken
from serac_gateway.stores.proposals import MAX_PROPOSED_CHANGES
from serac_gateway.stores.records import Action


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a draft that was accepted."""

    edit: Edit
    added: bool
    """False: an edit with this content was stored before, or it is proposed. Of a dry run: would be."""
    proposed: bool = False
    """It is a part of the proposal that the import ends with."""


Outcome = Imported | GatewayError


class ImportRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the namespace demands of an import."""

    proposes: bool
    """Whether its edits are proposed and not added."""
    check: Callable[[Sequence[NextVersion]], None]
    """Raises InvalidRequestError where an edit lacks something."""
    approval: ApprovalOf
    """By what right they are added."""


NO_RULES = ImportRules(proposes=False, check=lambda versions: None, approval=no_approval)


class EditImport:
    """One import into one namespace.

    A draft with an id has the edit of that id for its outcome where that one is live and says the same; one
    without an id has any live edit that says the same. So the same file twice changes nothing. The edits
    that were in force here when the import began, and its own, are what a draft is compared with.
    """

    def __init__(
        self,
        *,
        writer: EditWriter,
        store: EditStore,
        active_edits: ActiveEdits,
        namespace: str,
        author: str | None = None,
        rules: ImportRules = NO_RULES,
        dry_run: bool = False,
    ) -> None:
        """`author`, if given, is the author of all its edits, whatever the drafts say.

        A `dry_run` gives the outcomes and writes nothing.
        """
        self._writer = writer
        self._store = store
        self._active_edits = active_edits
        self._namespace = namespace
        self._author = author
        self._rules = rules
        self._dry_run = dry_run
        self._foreseen: dict[str, bytes] = {}
        """The digest of the content by id, of what a dry run would add."""
        self.proposed: list[NextVersion] = []
        """What is to be proposed when the import ends, where others must agree."""
        self._ids_by_content: dict[bytes, str] | None = None

    async def add(self, drafts: Sequence[EditDraft]) -> list[Outcome]:
        """Add new edits, encoded together and committed together; an outcome for each, in order."""
        await self._read_contents(drafts)
        outcomes: dict[int, Outcome] = {}
        fresh: dict[int, Edit] = {}
        fresh_ids: set[str] = set()
        repeated: dict[int, Edit] = {}
        """Drafts with an id of `fresh`, which are compared once those are committed."""
        for position, given in enumerate(drafts):
            draft = msgspec.structs.replace(given, author=self._author or given.author)
            try:
                edit = first_version(draft, namespace=self._namespace)
                self._rules.check([NextVersion(action=Action.ADD, edit=edit)])
            except InvalidRequestError as error:
                outcomes[position] = error
                continue
            edit = self._named(edit, draft, fresh_ids)
            held = self._active_edits.current(self._namespace, edit.id)
            if held is not None and same_content(held, edit):
                outcomes[position] = Imported(edit=held, added=False)
            elif edit.id in fresh_ids:
                repeated[position] = edit
            else:
                fresh[position] = edit
                fresh_ids.add(edit.id)
        for position, outcome in zip(fresh, await self._committed(list(fresh.values())), strict=True):
            outcomes[position] = outcome
        for position, edit in repeated.items():
            outcomes[position] = await self._committed_alone(edit)
        return [outcomes[position] for position in range(len(drafts))]

    async def _read_contents(self, drafts: Sequence[EditDraft]) -> None:
        """Index the edits in force by content, once, if a draft comes without an id."""
        if self._ids_by_content is None and any(draft.id is None for draft in drafts):
            held = self._active_edits.all(self._namespace)
            self._ids_by_content = await asyncio.to_thread(_ids_by_content, held)

    def _named(self, edit: Edit, draft: EditDraft, fresh_ids: Set[str]) -> Edit:
        """The edit under its own id, or if it was given none under that of one that says the same."""
        if self._ids_by_content is None:
            return edit
        content = _content_digest(edit)
        known = self._ids_by_content.get(content)
        stands = known in fresh_ids or (
            known is not None and self._active_edits.current(self._namespace, known) is not None
        )
        if draft.id is None and known is not None and stands:
            return msgspec.structs.replace(edit, id=known)
        self._ids_by_content[content] = edit.id
        return edit

    async def _committed(self, edits: Sequence[Edit]) -> list[Outcome]:
        if not edits:
            return []
        if self._dry_run:
            return [await self._committed_alone(edit) for edit in edits]
        if self._rules.proposes:
            return [await self._to_be_proposed(edit) for edit in edits]
        if self._writer.checks_conflicts_first(self._namespace):
            # One after the other, so that a line that contradicts the line before it is dealt with, too.
            return [await self._committed_alone(edit) for edit in edits]
        try:
            versions = [NextVersion(action=Action.ADD, edit=edit) for edit in edits]
            await self._writer.commit(self._namespace, versions, approval=self._rules.approval(versions))
        except EditConflictError:  # at least one of the ids exists
            return [await self._committed_alone(edit) for edit in edits]
        except GatewayError as error:
            return [error] * len(edits)
        return [Imported(edit=edit, added=True) for edit in edits]

    async def _foresee(self, edit: Edit) -> Outcome:
        """What adding the edit would give."""
        if (earlier := self._foreseen.get(edit.id)) is not None:
            if earlier != _content_digest(edit):
                return id_taken(edit.id)
            return Imported(edit=edit, added=False, proposed=self._rules.proposes)
        if self._rules.proposes and len(self._foreseen) == MAX_PROPOSED_CHANGES:
            return _too_many_proposed()
        try:
            current = await self._store.get(self._namespace, edit.id)
        except EditNotFoundError:
            pass
        except GatewayError as error:
            return error
        else:
            return Imported(edit=current, added=False) if same_content(current, edit) else id_taken(edit.id)
        try:
            await self._writer.check_contradictions(
                self._namespace, NextVersion(action=Action.ADD, edit=edit)
            )
        except GatewayError as error:
            return error
        self._foreseen[edit.id] = _content_digest(edit)
        return Imported(edit=edit, added=not self._rules.proposes, proposed=self._rules.proposes)

    async def _to_be_proposed(self, edit: Edit) -> Outcome:
        if len(self.proposed) == MAX_PROPOSED_CHANGES:
            return _too_many_proposed()
        try:
            current = await self._store.get(self._namespace, edit.id)
        except EditNotFoundError:
            self.proposed.append(NextVersion(action=Action.ADD, edit=edit))
            return Imported(edit=edit, added=False, proposed=True)
        except GatewayError as error:
            return error
        return Imported(edit=current, added=False) if same_content(current, edit) else id_taken(edit.id)

    async def _committed_alone(self, edit: Edit) -> Outcome:
        if self._dry_run:
            return await self._foresee(edit)
        if self._rules.proposes:  # a second line with the id of one before
            first = next((other.edit for other in self.proposed if other.edit.id == edit.id), None)
            if first is not None and same_content(first, edit):
                return Imported(edit=first, added=False, proposed=True)
            return id_taken(edit.id)
        version = NextVersion(action=Action.ADD, edit=edit)
        try:
            approval = self._rules.approval([version])
            await self._writer.write(self._namespace, version, approval=approval)
        except ContradictionError as error:
            return error
        except EditConflictError as conflict:
            try:
                current = await self._store.get(self._namespace, edit.id)
            except GatewayError as error:
                return error
            return Imported(edit=current, added=False) if same_content(current, edit) else conflict
        except GatewayError as error:
            return error
        return Imported(edit=edit, added=True)


def _too_many_proposed() -> ApprovalNeededError:
    return ApprovalNeededError(
        f"a proposal has at most {MAX_PROPOSED_CHANGES:,} changes, and this edit would be one more;"
        " import the rest once this proposal is decided, or in another import",
        details={"limit": MAX_PROPOSED_CHANGES},
    )


def _ids_by_content(edits: Sequence[Edit]) -> dict[bytes, str]:
    return {_content_digest(edit): edit.id for edit in edits}


def _content_digest(edit: Edit) -> bytes:
    content = msgspec.msgpack.encode([getattr(edit, name) for name in CONTENT_FIELDS])
    return hashlib.blake2b(content, digest_size=16).digest()
