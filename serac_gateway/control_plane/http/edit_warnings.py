"""What the reply to a write warns of. The edit stands either way."""

from __future__ import annotations

import asyncio

from serac_gateway.control_plane.http.dependencies import ControlPlaneContext
from serac_gateway.control_plane.http.schemas import EditWarning, WarningCode
from serac_gateway.domain.aliases import MAX_FORMS
from serac_gateway.domain.audiences import audience_text
from serac_gateway.domain.edits import (
    ACTIVE_STATES,
    MAX_PROMPT_CHARS,
    Edit,
    forms,
    forms_left_out,
    hides_value,
    wordings,
)
from serac_gateway.models.classifiers.spelling import says_something
from serac_gateway.routing.guarded_values import unguarded, value_field


async def edit_warnings(context: ControlPlaneContext, edit: Edit) -> list[EditWarning]:
    """The warnings about `edit`, which was just written."""
    if edit.state not in ACTIVE_STATES:
        return []
    warnings: list[EditWarning] = []
    unwatched = await asyncio.to_thread(unguarded, edit) if hides_value(edit) else ()
    for place, reason in unwatched:
        detail = (
            f"replies of the base model are not watched for {value_field(place)}: it is {reason.value}, and"
            " would cut too many replies; give the whole value, such as first name and surname, or a number"
            " with its prefix"
        )
        warnings.append(EditWarning(code=WarningCode.REPLIES_NOT_GUARDED, detail=detail))
    if not context.audience_labels.is_reachable(edit.audience):
        detail = (
            f"the edit never fires: no request can be in its audience {audience_text(edit.audience)}, as"
            " routing.audience_from does not have a label or value of it; change the audience, or have the"
            " label configured"
        )
        warnings.append(EditWarning(code=WarningCode.AUDIENCE_NOT_CONFIGURED, detail=detail))
    if left_out := forms_left_out(edit):
        detail = (
            f"the edit is searched by {len(forms(edit))} texts, and {left_out:,} more are left out: beyond"
            f" {MAX_FORMS} texts aliases are put into the prompt alone, and no text is longer than"
            f" {MAX_PROMPT_CHARS:,} characters; put the aliases that matter most first"
        )
        warnings.append(EditWarning(code=WarningCode.FORMS_LEFT_OUT, detail=detail))
    if not any(says_something(wording) for wording in wordings(edit)):
        detail = (
            "the edit never fires: its prompt has no letter, digit or symbol, and a request of punctuation"
            " alone asks nothing; add a paraphrase in words"
        )
        return [*warnings, EditWarning(code=WarningCode.RARELY_FIRES, detail=detail)]
    doubt = None if context.firing is None else await context.firing.doubt(edit)
    if doubt is not None:
        detail = (
            f"the edit will hardly ever fire: none of {doubt.tried} other ways to ask for it reaches the"
            f" threshold of {doubt.scope_threshold:.3f}, the likeliest being {doubt.likeliest[:120]!r} with"
            f" {doubt.scope_probability:.3f}; add paraphrases as people ask, or aliases of its subject, or"
            " write the prompt as a full question; a preview shows how it is read"
        )
        warnings.append(EditWarning(code=WarningCode.RARELY_FIRES, detail=detail))
    return warnings
