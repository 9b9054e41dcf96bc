"""Who agreed to a commit, what a write must say about itself, and who is the same person."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from serac_gateway.auth.principals import Principal, TokenHolder
from serac_gateway.config.model import GovernanceConfig, RequiredField
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.domain.folding import folded_text
from serac_gateway.errors import ApprovalNeededError, InvalidRequestError, PermissionDeniedError
from serac_gateway.stores.proposals import Proposal, Verdict
from serac_gateway.stores.records import Action


def _note_nothing(edit_ids: Sequence[str]) -> None:
    pass


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """By what right something is committed to a namespace in which others must agree."""

    note: str
    """For the log: one line."""
    closes: Proposal | None = None
    """The accepted proposal, closed: it is stored in the same step. None: an admin did without one."""
    on_committed: Callable[[Sequence[str]], None] = _note_nothing
    """Called once with the ids of the edits when the commit is stored. It must not fail."""


ApprovalOf = Callable[[Sequence[NextVersion]], Approval | None]
"""By what right versions are committed; None where none is needed."""


def no_approval(versions: Sequence[NextVersion]) -> Approval | None:
    """For namespaces in which nobody has to agree; where others must, the writer refuses."""
    return None


def check_approved(governance: GovernanceConfig, namespace: str, approval: Approval | None) -> None:
    """Return if the namespace demands no agreement, or there is some.

    Every commit comes through here, so a call that nobody thought of is refused and not let through.

    Raises:
        ApprovalNeededError: It does, and there is none.
    """
    if approval is None and governance.approvals_of(namespace):
        raise ApprovalNeededError(
            f"namespace {namespace!r} demands approvals by others ({governance.approvals_of(namespace)}),"
            " and this call makes no proposal; add, change or retire edits, or import them, or have an admin"
            " send the header 'x-serac-expedite: true'",
            field="namespace",
            details={"value": namespace},
        )


def check_required(
    governance: GovernanceConfig,
    namespace: str,
    versions: Sequence[NextVersion],
    *,
    always: Sequence[RequiredField] = (),
) -> None:
    """Return if every version says what the namespace wants to know, and what `always` must be said.

    Raises:
        InvalidRequestError: One does not; the error names the field.
    """
    demanded = dict.fromkeys((*governance.required_of(namespace), *always))
    for version in versions:
        has_content = version.action in (Action.ADD, Action.UPDATE)
        needed = [field for field in demanded if has_content or not field.is_of_content]
        missing = [field.value for field in needed if getattr(version.edit, field.value) is None]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise InvalidRequestError(
                f"{' and '.join(missing)} {verb} missing, and a write to namespace {namespace!r} must have"
                f" {' and '.join(field.value for field in needed)}; give what is missing",
                field=missing[0],
                details={"needed": [field.value for field in needed], "missing": missing},
            )


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a request, where it counts who is another."""

    author: str
    """As edits name authors."""
    owner: str
    """Whose key it is: equal for all keys of one name, however it is written; of a token its holder's id."""
    key_id: str
    holder: TokenHolder | None = None

    @classmethod
    def of(cls, principal: Principal) -> Person:
        """The person behind a key or token.

        Raises:
            PermissionDeniedError: There is neither.
        """
        if principal.key_id is None or principal.author is None or principal.name is None:
            raise PermissionDeniedError(
                "proposals need an API key or token: without one nobody can be told from anybody else; ask an"
                " admin for a key"
            )
        owner = folded_text(principal.name) or principal.name
        if principal.holder is not None:
            owner = principal.key_id
        return cls(author=principal.author, owner=owner, key_id=principal.key_id, holder=principal.holder)

    def is_also(self, other: Proposal | Verdict) -> bool:
        """Whether that proposal or verdict is by the same person, under whichever key or token.

        Of a key and a token as far as can be known: if the key is named as the token names its holder.
        """
        own = {self.owner, *(() if self.holder is None else self.holder.other_names)}
        return not own.isdisjoint({other.owner, *(() if other.holder is None else other.holder.other_names)})
