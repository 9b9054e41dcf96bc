"""POST /serac/v1/edits/{id}:verify: sends an edit's own questions through router and model."""

from __future__ import annotations

from litestar import Controller, post

from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.parameters import EditId, Namespace, problems
from serac_gateway.control_plane.http.schemas import VerificationReply, verification_reply
from serac_gateway.domain.edits import check_edit_id, check_not_purged


class VerificationController(Controller):
    """/serac/v1/edits/{id}:verify. Its path is explained in colon_paths.py."""

    tags = ("verification",)

    @post(
        "/edits/{edit_id:str}/:verify",
        status_code=200,
        summary="Verify an edit",
        description="Sends its prompt and its paraphrases through router and counterfactual model, and judges"
        " the answers; an edit on trial is verified as if it were live. The outcome is stored beside the"
        " edit, without texts.",
        responses=problems(400, 404, 409, 410, 503),
    )
    async def verify(self, edit_id: EditId, namespace: Namespace, context: Context) -> VerificationReply:
        """Verify an edit."""
        edit = check_not_purged(await context.store.get(namespace, check_edit_id(edit_id)))
        return verification_reply(await context.verifier.verify(namespace, edit))
