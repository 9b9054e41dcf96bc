"""What a writing handler asks where others must agree: does this write take effect, or become a proposal?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Response
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, SkipValidation

from serac_gateway.auth.principals import Principal, Role
from serac_gateway.config.model import RequiredField
from serac_gateway.control_plane.approval import Approval, check_required
from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext
from serac_gateway.control_plane.http.guards import Sender
from serac_gateway.control_plane.http.parameters import Namespace
from serac_gateway.control_plane.http.proposal_replies import ProposalReply, proposal_response
from serac_gateway.control_plane.importer import ImportRules
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.errors import ApprovalNeededError, InvalidRequestError
from serac_gateway.stores.records import Action, Idempotency

PROPOSED: dict[int, ResponseSpec] = {
    202: ResponseSpec(
        data_container=ProposalReply,
        description="Others must agree: nothing is changed yet, and this is the proposal; `location` is its"
        " path",
        generate_examples=False,
    )
}


class Governance:
    """The rules of the request's namespace, for one request."""

    def __init__(
        self,
        context: ControlPlaneContext,
        principal: Principal,
        namespace: str,
        *,
        expedite: bool,
        propose: bool = False,
    ) -> None:
        self._context = context
        self._principal = principal
        self._namespace = namespace
        self._demands = context.governance.approvals_of(namespace) > 0
        self._expedite = expedite
        self._propose = propose

    @property
    def proposes(self) -> bool:
        """Whether a write becomes a proposal."""
        return self._propose or (self._demands and not self._expedite)

    def approval(self, versions: Sequence[NextVersion]) -> Approval | None:
        """By what right `versions` are committed at once; None where none is needed. The commit is noted.

        Raises:
            InvalidRequestError: They lack what the namespace demands; an expedited write needs its reason.
        """
        self._check(versions)
        return self.expedited() if self._expedite else None

    def expedited(self) -> Approval | None:
        """For what is never proposed, because an admin alone may do it; None where none is needed.

        Raises:
            ApprovalNeededError: The sender wants it to be proposed.
        """
        if self._propose:
            raise ApprovalNeededError(
                "this call cannot be proposed; send it without the header x-serac-propose",
                field="x-serac-propose",
            )
        if not self._demands:
            return None
        author = self._principal.author
        approval = self._context.writer.expedited(self._namespace, author)
        noted = partial(self._context.proposals.note_expedited, self._namespace, author)
        return None if approval is None else msgspec.structs.replace(approval, on_committed=noted)

    def of_import(self, *, checks_conflicts_first: bool) -> ImportRules:
        """The same for the edits of an import.

        Raises:
            ApprovalNeededError: They would be proposed, and conflicts decide on each of them.
        """
        if self.proposes and checks_conflicts_first:
            raise ApprovalNeededError(
                f"namespace {self._namespace!r} demands the agreement of others, and its policy on conflicts"
                " treats one edit at a time, so an import cannot be proposed as a whole; add the edits one by"
                " one, each as a proposal of its own",
                field="namespace",
                details={"value": self._namespace},
            )
        return ImportRules(
            proposes=self.proposes,
            check=self._check,
            approval=self.approval,
        )

    async def proposed(
        self, action: str, versions: Sequence[NextVersion], *, idempotency: Idempotency | None = None
    ) -> Response[Any]:
        """Open a proposal of `versions`, and answer with it.

        Raises:
            InvalidRequestError: They lack what the namespace demands.
        """
        self._check(versions)
        proposal = await self._context.proposals.propose(
            self._namespace, action, versions, self._principal, idempotency=idempotency
        )
        return proposal_response(self._context, proposal, status=202)

    def _check(self, versions: Sequence[NextVersion]) -> None:
        always = (RequiredField.REASON,) if self._demands and self._expedite else ()
        check_required(self._context.governance, self._namespace, versions, always=always)
        for version in versions:
            # What is rolled back was stored before: a label that went since must not keep it away.
            is_new = version.current is None or version.edit.audience != version.current.audience
            if is_new and version.action is not Action.ROLLBACK:
                self._context.audience_labels.check(version.edit.audience)


def provide_governance(
    context: Context,
    principal: Sender,
    namespace: Namespace,
    expedite: Annotated[
        str,
        HeaderParameter(
            name="x-serac-expedite",
            description="`true`: an admin writes at once where others would have to agree; the log says so."
            " It needs a reason. Without effect where nobody has to agree",
            # Documented only: the refusal below explains more than a converter does.
            schema_extra={"enum": ["true", "false"]},
        ),
    ] = "false",
    propose: Annotated[
        str,
        HeaderParameter(
            name="x-serac-propose",
            description="`true`: the write becomes a proposal that somebody else must agree to, also where"
            " the namespace does not demand it; for senders that may not decide, as agents",
            schema_extra={"enum": ["true", "false"]},
        ),
    ] = "false",
) -> Governance:
    """What a writing handler asks before it writes.

    Raises:
        InvalidRequestError: A header holds another word, or both are `true`.
        PermissionDeniedError: It is `true`, others must agree, and the API key is no admin's.
    """
    if expedite not in ("true", "false"):
        raise InvalidRequestError(
            f"x-serac-expedite {expedite[:80]!r} is not allowed; send 'true', or leave it out",
            field="x-serac-expedite",
            details={"value": expedite[:80]},
        )
    if propose not in ("true", "false") or propose == expedite == "true":
        raise InvalidRequestError(
            f"x-serac-propose {propose[:80]!r} is not allowed here; send 'true' without x-serac-expedite, or"
            " leave it out",
            field="x-serac-propose",
            details={"value": propose[:80]},
        )
    if expedite == "true" and context.governance.approvals_of(namespace):
        principal.require(Role.ADMIN)
    return Governance(context, principal, namespace, expedite=expedite == "true", propose=propose == "true")


Governed = NamedDependency[SkipValidation[Governance]]
"""Annotates the handlers' parameter `governed`."""
