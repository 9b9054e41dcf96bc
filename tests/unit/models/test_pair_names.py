"""The cross-encoder reads an edit by that name of its subject that is nearest to the query."""

from __future__ import annotations

from serac_gateway.domain.edits import EditDraft, first_version, forms, statement
from serac_gateway.domain.queries import Query
from serac_gateway.models.classifiers.base import Candidate
from serac_gateway.models.classifiers.cross_encoder import pair_texts

DRAFT = EditDraft(
    prompt="The CEO of Acme is", target_new="Ada", subject="Acme", aliases=("Ajax Corporation",)
)


def test_the_edit_is_shown_by_the_nearest_name_of_its_subject() -> None:
    edit = first_version(DRAFT, namespace="default")
    texts = {
        form: pair_texts(Query(text="q"), Candidate(edit=edit, form=form, similarity=0.7))[0]
        for form in forms(edit)
    }
    assert "The CEO of Ajax Corporation is" in texts["The CEO of Ajax Corporation is"]
    assert texts[statement(edit)] == texts["The CEO of Acme is"]
    assert "Ajax" not in texts["The CEO of Acme is"]
