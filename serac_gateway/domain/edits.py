"""What an edit is, and when one is valid. Pure: no I/O, no clock but the one passed in.

An edit is one stored change. An editor writes an `EditDraft`; the store keeps immutable `Edit` versions
of it, the newest of which is current.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from serac_gateway.domain.aliases import (
    MAX_ALIAS_CHARS,
    MAX_ALIASES,
    NO_ALIAS_FORMS,
    AliasForms,
    alias_forms,
    check_aliases,
    prompt_by_name_in,
)
from serac_gateway.domain.audiences import (
    Audience,
    Caller,
    Labels,
    audience_text,
    checked_audience,
    holds_for,
)
from serac_gateway.domain.provenance import (
    MAX_NOTE_CHARS,
    NOTES,
    OF_ONE_VERSION,
    check_document,
    check_text,
    checked_note,
)
from serac_gateway.errors import EditConflictError, EditPurgedError, InvalidRequestError

MAX_PROMPT_CHARS = 2_000
MAX_TARGET_CHARS = 2_000
MAX_SUBJECT_CHARS = 500
MAX_PARAPHRASES = 32

DEFAULT_NAMESPACE = "default"
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_EDIT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

AwareDatetime = Annotated[datetime, msgspec.Meta(tz=True)]


class EditKind(StrEnum):
    """What an edit does to an in-scope query."""

    FACT = "fact"
    """The answer is `target_new`."""
    SUPPRESSION = "suppression"
    """The answer is a refusal: `target_new` is its text, nothing else is revealed."""
    INSTRUCTION = "instruction"
    """`target_new` says how to speak of the topic `prompt`."""


class EditState(StrEnum):
    """Where an edit stands in its life."""

    LIVE = "live"
    SHADOW = "shadow"
    """Decided and counted, never applied: the counts show what it would do."""
    CANARY = "canary"
    """Applied to its `canary_share` of the users, decided and counted for the rest."""
    RETIRED = "retired"
    """It never fires again unless it is restored; its history stays."""
    PURGED = "purged"
    """A tombstone: its content is gone from every version for good."""


ACTIVE_STATES = tuple(state for state in EditState if state not in (EditState.RETIRED, EditState.PURGED))
"""The states of an edit that requests are decided with: it is indexed, whether or not it is applied."""


class DecidedState(StrEnum):
    """The same as an editor writes them; the other states are reached by calls of their own."""

    LIVE = "live"
    SHADOW = "shadow"
    CANARY = "canary"


CanaryShare = Annotated[float, msgspec.Meta(ge=0, le=1)]


class EditDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an editor writes. Only `prompt` and `target_new` are required."""

    prompt: str
    target_new: str
    id: str | None = None
    kind: EditKind = EditKind.FACT
    target_true: str | None = None
    subject: str | None = None
    paraphrases: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    """Other names of the subject: the edit covers its prompt by each of them. Of a suppression without a
    subject, other ways to write `target_true`, which must not leave either."""
    audience: Audience = {}
    """For whose requests it holds: allowed values by label; without any label for everybody's."""
    state: DecidedState = DecidedState.LIVE
    canary_share: CanaryShare | None = None
    """Of the users to whom a canary is applied; a canary needs it, in other states it waits."""
    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None
    author: str | None = None
    reason: str | None = None
    source: str | None = None
    """What the content rests on, in words."""
    ticket: str | None = None
    """Under which case or order this version is made."""
    institution: str | None = None
    """Who answers for the content."""
    source_url: str | None = None
    source_sha256: str | None = None
    """Of the document at `source_url`, as it was read."""
    legal_basis: str | None = None
    review_by: date | None = None
    """By when somebody should look at the edit again; it stays in force."""


class EditPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change to an edit: the fields given replace the stored ones, `null` clears an optional one."""

    prompt: str | msgspec.UnsetType = msgspec.UNSET
    target_new: str | msgspec.UnsetType = msgspec.UNSET
    kind: EditKind | msgspec.UnsetType = msgspec.UNSET
    target_true: str | msgspec.UnsetType | None = msgspec.UNSET
    subject: str | msgspec.UnsetType | None = msgspec.UNSET
    paraphrases: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    aliases: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    audience: Audience | msgspec.UnsetType | None = msgspec.UNSET
    state: DecidedState | msgspec.UnsetType = msgspec.UNSET
    canary_share: CanaryShare | msgspec.UnsetType | None = msgspec.UNSET
    valid_from: AwareDatetime | msgspec.UnsetType | None = msgspec.UNSET
    valid_until: AwareDatetime | msgspec.UnsetType | None = msgspec.UNSET
    author: str | msgspec.UnsetType | None = msgspec.UNSET
    reason: str | msgspec.UnsetType | None = msgspec.UNSET
    source: str | msgspec.UnsetType | None = msgspec.UNSET
    ticket: str | msgspec.UnsetType | None = msgspec.UNSET
    institution: str | msgspec.UnsetType | None = msgspec.UNSET
    source_url: str | msgspec.UnsetType | None = msgspec.UNSET
    source_sha256: str | msgspec.UnsetType | None = msgspec.UNSET
    legal_basis: str | msgspec.UnsetType | None = msgspec.UNSET
    review_by: date | msgspec.UnsetType | None = msgspec.UNSET


class Attribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who makes a version, and why: it belongs to that version only and is not handed on to the next."""

    author: str | None = None
    reason: str | None = None
    ticket: str | None = None


NO_ATTRIBUTION = Attribution()
"""Neither author nor reason nor ticket are known."""


class Edit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One immutable version of a stored edit. Versions count from 1."""

    id: str
    namespace: str
    version: int
    state: EditState
    kind: EditKind
    prompt: str
    target_new: str
    created_at: AwareDatetime
    """When this version was made (UTC)."""
    target_true: str | None = None
    subject: str | None = None
    paraphrases: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    """Other names of `subject`."""
    audience: Audience = {}
    """For whose requests it holds: see domain/audiences.py."""
    canary_share: float | None = None
    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None
    author: str | None = None
    reason: str | None = None
    source: str | None = None
    ticket: str | None = None
    institution: str | None = None
    source_url: str | None = None
    source_sha256: str | None = None
    legal_basis: str | None = None
    review_by: date | None = None

    def is_in_force(self, now: datetime) -> bool:
        """Whether requests are decided with the edit at `now`: by state, and by window (end excluded).

        Whether it is applied to a request is another question: see `is_applied_to`.
        """
        return (
            self.state in ACTIVE_STATES
            and (self.valid_from is None or self.valid_from <= now)
            and (self.valid_until is None or now < self.valid_until)
        )

    def is_for(self, labels: Labels) -> bool:
        """Whether a request with `labels` is in its audience; for any other the edit is as if absent."""
        return not self.audience or holds_for(self.audience, labels)

    def is_applied_to(self, caller: Caller) -> bool:
        """Whether the edit, where it governs, is applied for `caller`.

        A canary always has the same callers of its audience, and gains some when its share grows; other
        canaries have others. A caller without name is in no canary.
        """
        if not self.is_for(caller.labels):
            return False
        if self.state is EditState.CANARY:
            return caller.name is not None and _place(self.id, caller.name) < (self.canary_share or 0.0)
        return self.state is EditState.LIVE


CONTENT_FIELDS = tuple(name for name in EditPatch.__struct_fields__ if name not in OF_ONE_VERSION)
"""The fields of an edit that say what it does, to whom, and what it rests on."""

_LEFT_OUT_WHERE_EMPTY = (
    b'"aliases":[],',
    b'"audience":{},',
    *(
        f',"{name}":null'.encode()
        for name in ("ticket", "institution", "source_url", "source_sha256", "legal_basis", "review_by")
    ),
)
"""The empty fields that releases before do not know. No text can hold these: quotes in it are escaped."""


def new_edit_id() -> str:
    """A fresh id that sorts by creation time: ``ed_`` + 12 hex digits of milliseconds + 10 random ones."""
    return f"ed_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(5)}"


def first_version(draft: EditDraft, *, namespace: str, now: datetime | None = None) -> Edit:
    """The first version of a new edit.

    Raises:
        InvalidRequestError: A field of the draft breaks a rule; the error names field, value and limit.
    """
    check_namespace(namespace)
    edit = Edit(
        id=new_edit_id() if draft.id is None else draft.id,
        namespace=namespace,
        version=1,
        created_at=now or datetime.now(UTC),
        **{name: _as_stored(name, getattr(draft, name)) for name in EditPatch.__struct_fields__},
    )
    return check_edit(edit)


def patched(edit: Edit, patch: EditPatch, *, now: datetime | None = None) -> Edit:
    """The next version of `edit`, with the fields of `patch` that are set.

    `OF_ONE_VERSION` is not handed on: where the patch has no author, the new version has none.

    Raises:
        InvalidRequestError: The patch is empty, or the edit it gives breaks a rule.
        EditPurgedError: `edit` was purged.
        EditConflictError: `edit` is retired, and the patch sets its state.
    """
    check_not_purged(edit)
    if edit.state is EditState.RETIRED and patch.state is not msgspec.UNSET:
        raise EditConflictError(
            f"edit {edit.id!r} is retired, so its state cannot be set to {patch.state.value!r}; restore it"
            " first",
            field="state",
            details={"value": patch.state.value},
        )
    changes = {
        name: _as_stored(name, value)
        for name in EditPatch.__struct_fields__
        if (value := getattr(patch, name)) is not msgspec.UNSET
    }
    if not changes:
        raise InvalidRequestError(
            f"the change is empty; give at least one of {', '.join(EditPatch.__struct_fields__)}"
        )
    return check_edit(_next_version(edit, NO_ATTRIBUTION, now=now, **changes))


def retired(edit: Edit, attribution: Attribution = NO_ATTRIBUTION, *, now: datetime | None = None) -> Edit:
    """The next version of `edit` in state `retired`: it never fires again, its history stays.

    Raises:
        EditPurgedError: `edit` was purged.
    """
    check_not_purged(edit)
    return _next_version(edit, attribution, now=now, state=EditState.RETIRED)


def restored(edit: Edit, attribution: Attribution = NO_ATTRIBUTION, *, now: datetime | None = None) -> Edit:
    """The next version of a retired `edit`, live again.

    Raises:
        EditPurgedError: `edit` was purged.
        EditConflictError: It is not retired.
    """
    if check_not_purged(edit).state is not EditState.RETIRED:
        raise EditConflictError(
            f"edit {edit.id!r} is {edit.state.value}; only a retired edit can be restored",
            field="id",
            details={"value": edit.state.value},
        )
    return _next_version(edit, attribution, now=now, state=EditState.LIVE)


def copied(
    edit: Edit, older: Edit, attribution: Attribution = NO_ATTRIBUTION, *, now: datetime | None = None
) -> Edit:
    """The next version of `edit`, with content and state of its version `older`.

    Raises:
        EditPurgedError: `edit` was purged.
    """
    check_not_purged(edit)
    return _next_version(older, attribution, now=now, version=edit.version + 1)


def purged(edit: Edit, attribution: Attribution = NO_ATTRIBUTION, *, now: datetime | None = None) -> Edit:
    """The next version of `edit`, its tombstone: who purged it and why, and nothing of its content.

    Raises:
        EditPurgedError: `edit` was purged before.
    """
    check_not_purged(edit)
    return msgspec.structs.replace(
        tombstone(edit),
        version=edit.version + 1,
        created_at=now or datetime.now(UTC),
        **_checked(attribution),
    )


def tombstone(edit: Edit) -> Edit:
    """What is left of a version when its edit is purged: id, namespace, version and time."""
    return Edit(
        id=edit.id,
        namespace=edit.namespace,
        version=edit.version,
        state=EditState.PURGED,
        kind=EditKind.FACT,
        prompt="",
        target_new="",
        created_at=edit.created_at,
    )


def statement(edit: Edit) -> str:
    """The edit as one text with its new answer, as the scope classifier is shown it."""
    return f"{edit.prompt.strip()} {edit.target_new.strip()}"


def forms(edit: Edit) -> tuple[str, ...]:
    """The texts under which an edit is indexed; no text twice.

    Prompt, statement, each paraphrase, and prompt and paraphrases by the other names of the subject. Stored
    vectors are in this order.
    """
    return tuple(dict.fromkeys((edit.prompt, statement(edit), *edit.paraphrases, *_alias_forms(edit).texts)))


def wordings(edit: Edit) -> tuple[str, ...]:
    """The forms that ask what the prompt asks, the prompt first: all but the statement."""
    return (edit.prompt, *edit.paraphrases, *_alias_forms(edit).texts)


def prompt_wordings(edit: Edit) -> tuple[str, ...]:
    """The prompt, and its forms by the other names of the subject."""
    return (edit.prompt, *_alias_forms(msgspec.structs.replace(edit, paraphrases=())).texts)


def by_name_in(text: str, edit: Edit) -> Edit:
    """`edit` with its prompt by that name of its subject by which `text` calls it, if that is an alias."""
    if not edit.aliases or edit.subject is None:
        return edit
    prompt = prompt_by_name_in(text, edit.prompt, edit.subject, edit.aliases, max_chars=MAX_PROMPT_CHARS)
    return msgspec.structs.replace(edit, prompt=prompt)


def hides_value(edit: Edit) -> bool:
    """Whether it is a suppression with a value that must not leave."""
    return edit.kind is EditKind.SUPPRESSION and edit.target_true is not None


def hidden_values(edit: Edit) -> tuple[str, ...]:
    """What must not leave, however a suppression writes it: the value first; empty if there is none."""
    if edit.kind is not EditKind.SUPPRESSION or edit.target_true is None:
        return ()
    return (edit.target_true, *(edit.aliases if edit.subject is None else ()))


def forms_left_out(edit: Edit) -> int:
    """How many forms by other names of the subject there are none of, because of the limits of them."""
    return _alias_forms(edit).left_out


def _alias_forms(edit: Edit) -> AliasForms:
    if not edit.aliases or edit.subject is None:
        return NO_ALIAS_FORMS
    return alias_forms(edit.prompt, edit.paraphrases, edit.subject, edit.aliases, max_chars=MAX_PROMPT_CHARS)


def record_json(edit: Edit | EditDraft) -> bytes:
    """The JSON that is stored, or of which a digest is.

    Without the fields that are empty it is what releases before these fields wrote: they can read it, and a
    request is recognised.
    """
    encoded = msgspec.json.encode(edit)
    for empty in _LEFT_OUT_WHERE_EMPTY:
        encoded = encoded.replace(empty, b"", 1)
    return encoded


def is_namespace(text: str) -> bool:
    """Whether it is 1-63 characters of a-z, 0-9, ``_`` and ``-``, the first a letter or digit."""
    return _NAMESPACE.fullmatch(text) is not None


def check_namespace(namespace: str) -> str:
    """`namespace` itself.

    Raises:
        InvalidRequestError: It is not 1-63 characters of a-z, 0-9, ``_`` and ``-``.
    """
    if not is_namespace(namespace):
        raise InvalidRequestError(
            f"namespace {namespace[:80]!r} is not allowed; use 1 to 63 characters of a-z, 0-9, _ and -,"
            " the first a letter or digit",
            field="namespace",
            details={"value": namespace[:80]},
        )
    return namespace


def is_edit_id(text: str) -> bool:
    """Whether it is 1-64 letters, digits, ``_`` and ``-``, the first a letter or digit."""
    return _EDIT_ID.fullmatch(text) is not None


def check_edit_id(edit_id: str) -> str:
    """`edit_id` itself.

    Raises:
        InvalidRequestError: It is not 1-64 letters, digits, ``_`` and ``-``.
    """
    if not is_edit_id(edit_id):
        raise InvalidRequestError(
            f"edit id {edit_id[:80]!r} is not allowed; use 1 to 64 letters, digits, _ and -,"
            " the first a letter or digit",
            field="id",
            details={"value": edit_id[:80]},
        )
    return edit_id


def check_not_purged(edit: Edit) -> Edit:
    """`edit` itself.

    Raises:
        EditPurgedError: It is a tombstone.
    """
    if edit.state is EditState.PURGED:
        raise EditPurgedError(
            f"edit {edit.id!r} was purged: its content is gone from all versions and cannot be had back; the"
            " log says who purged it and when",
            field="id",
            details={"value": edit.id},
        )
    return edit


def same_content(edit: Edit, other: Edit) -> bool:
    """Whether they say the same: everything but id, version, time, author, reason and ticket."""
    return all(getattr(edit, name) == getattr(other, name) for name in CONTENT_FIELDS)


def _place(edit_id: str, caller: str) -> float:
    """The place of a caller among all callers, for this edit: evenly spread, 0 <= place < 1."""
    digest = hashlib.sha256(f"{edit_id}\0{caller}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _as_stored(name: str, value: Any) -> Any:  # noqa: ANN401 - a field's type is its own
    if name == "audience":
        return checked_audience(value or {})
    return EditState(value) if isinstance(value, DecidedState) else value


def _next_version(edit: Edit, attribution: Attribution, *, now: datetime | None, **changes: object) -> Edit:
    version = {"version": edit.version + 1, "created_at": now or datetime.now(UTC)}
    return msgspec.structs.replace(edit, **{**version, **_checked(attribution), **changes})


def _checked(attribution: Attribution) -> dict[str, str | None]:
    return {name: checked_note(name, getattr(attribution, name)) for name in OF_ONE_VERSION}


def check_edit(edit: Edit) -> Edit:
    """`edit` itself, if it is no tombstone and keeps every rule: of its id, its texts, its window.

    Raises:
        InvalidRequestError: A field breaks a rule; the error names field, value and limit.
    """
    check_edit_id(edit.id)
    check_text("prompt", edit.prompt, MAX_PROMPT_CHARS)
    check_text("target_new", edit.target_new, MAX_TARGET_CHARS)
    for name, limit in (
        ("target_true", MAX_TARGET_CHARS),
        ("subject", MAX_SUBJECT_CHARS),
        *((note, MAX_NOTE_CHARS) for note in NOTES),
    ):
        text = getattr(edit, name)
        if text is not None:
            check_text(name, text, limit)
    check_document(edit.source_url, edit.source_sha256)
    if len(edit.paraphrases) > MAX_PARAPHRASES:
        raise InvalidRequestError(
            f"{len(edit.paraphrases)} paraphrases are too many; the limit is {MAX_PARAPHRASES}",
            field="paraphrases",
            details={"value": len(edit.paraphrases), "limit": MAX_PARAPHRASES},
        )
    for position, paraphrase in enumerate(edit.paraphrases):
        check_text(f"paraphrases[{position}]", paraphrase, MAX_PROMPT_CHARS)
    for position, alias in enumerate(edit.aliases[:MAX_ALIASES]):
        check_text(f"aliases[{position}]", alias, MAX_ALIAS_CHARS)
    check_aliases(
        edit.prompt, edit.subject, edit.aliases, are_of_value=hides_value(edit) and edit.subject is None
    )
    if edit.audience and checked_audience(edit.audience) != edit.audience:
        raise InvalidRequestError(
            f"audience {audience_text(edit.audience)[:80]!r} is not as the API stores it: in small letters,"
            " sorted, each value once",
            field="audience",
        )
    if edit.state is EditState.CANARY and edit.canary_share is None:
        raise InvalidRequestError(
            "state 'canary' needs canary_share, the share of users to whom the edit is applied; give a number"
            " from 0 to 1, such as 0.1",
            field="canary_share",
        )
    for field, moment in (("valid_from", edit.valid_from), ("valid_until", edit.valid_until)):
        _check_in_range(field, moment)
    if edit.valid_from and edit.valid_until and edit.valid_until <= edit.valid_from:
        raise InvalidRequestError(
            f"valid_until {edit.valid_until.isoformat()!r} is not after valid_from"
            f" {edit.valid_from.isoformat()!r}; the window must not be empty",
            field="valid_until",
            details={"value": edit.valid_until.isoformat(), "limit": edit.valid_from.isoformat()},
        )
    return edit


def _check_in_range(field: str, moment: datetime | None) -> None:
    """Return if the moment has a year from 1 to 9999 also in UTC, as which it is shown."""
    if moment is None:
        return
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise InvalidRequestError(
            f"{field} {moment.isoformat()!r} is no moment of the years 1 to 9999 in UTC; give another, or"
            " leave it out for no bound",
            field=field,
            details={"value": moment.isoformat()},
        ) from None
