"""Answers in the form that a request wants: the model answers what is stripped, code makes the form of it.

Only what is asked is shown to the model, without the words about the form: it was trained on questions, and
answers a question with another sentence behind it worse. Its answer is held until it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.domain.wanted_forms import FormKind, WantedForm
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.counterfactual.declines import not_in_form
from serac_gateway.models.counterfactual.truncation import LimitedAnswer
from serac_gateway.models.forms.shapes import in_form
from serac_gateway.models.language_models.base import Piece, Sampling

_TOKENS = 128
"""The most that the model may generate besides what the edit says; the client's limit is on the form."""


def formed_answer(
    model: CounterfactualModel,
    edit: Edit,
    query: Query,
    sampling: Sampling,
    form: WantedForm,
    *,
    may_decline: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Piece]:
    """The answer of `model` from a fact in `form`, piece by piece; see `CounterfactualModel.answer`.

    Raises:
        AnswerDeclinedError: Instead of the first piece: the answer cannot be given in the form, and does not
            fall back; or as `CounterfactualModel.answer` does.
        ModelUnavailableError: The model failed.
    """
    stripped = msgspec.structs.replace(query, language=form.language)
    if form.is_plain:
        yield from model.answer(edit, stripped, sampling, may_decline=may_decline, cancelled=cancelled)
        return
    if form.question is not None:
        stripped = msgspec.structs.replace(stripped, text=form.question)
    room = model.count_tokens(edit.target_new) + _TOKENS
    unlimited = msgspec.structs.replace(sampling, max_tokens=room, stop=())
    pieces = model.answer(edit, stripped, unlimited, may_decline=may_decline, cancelled=cancelled)
    said = "".join(piece.text for piece in pieces).strip()
    sentence = model.sentence(edit, stripped) if FormKind.SENTENCE in form.kinds and not cancelled() else None
    text = in_form(form, target=edit.target_new.strip(), said=said, sentence=sentence)
    if text is None and not form.falls_back:
        raise not_in_form(edit.id)
    answer = LimitedAnswer(sampling, model)
    for piece in (*answer.feed(said if text is None else text), *answer.finish()):
        if cancelled():
            return
        yield piece
