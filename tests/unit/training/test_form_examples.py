"""The heads that read forms are fitted on written requests; what is reported is measured on others."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from serac_gateway.domain.wanted_forms import FormKind
from serac_gateway.models.forms import heads
from serac_gateway.models.forms.heads import GAP, NO_FORM, FormHeads
from serac_gateway.testing import WordEncoder
from training.forms import train
from training.forms.examples import (
    FormRequest,
    Labelled,
    halves,
    key_examples,
    kind_examples,
    load_form_requests,
    wanted_examples,
)

SLOT = re.compile(r"\[[KNLG]\]")


def test_the_files_have_every_kind_in_many_languages() -> None:
    """A kind that nobody wrote a request for is never read."""
    requests = load_form_requests()
    assert {request.kind for request in requests} == {*FormKind, NO_FORM}
    assert len({request.language for request in requests}) >= 25


def test_slots_are_filled_in_every_example() -> None:
    """A request with a slot is none that anybody sends."""
    requests, rng = load_form_requests(), random.Random(1)
    examples = [*kind_examples(requests, rng), *wanted_examples(requests, rng)]
    assert [each.text for each in examples if SLOT.search(each.text)] == []


def test_a_gap_stands_for_the_name_or_for_another_word() -> None:
    """The head tells names from the words around them."""
    request = FormRequest(kind="json", language="en", text="as JSON with the key [K], please")
    query = Labelled(text="Who runs it?", label="en", source="a set")
    examples = list(key_examples([request], [query], random.Random(3)))
    named = [each.text for each in examples if each.label == "yes"]
    assert len(named) == 1
    assert named[0].endswith(f"with the key {GAP}")
    assert all(GAP in each.text for each in examples)
    assert {each.label for each in examples} == {"yes", "no"}


def test_halves_of_questions_ask_for_no_form() -> None:
    """The reader looks at pieces of sentences, too."""
    query = Labelled(text="who runs the bakery in Tolvar", label="en", source="a set")
    first, last = halves([query], random.Random(0))
    assert f"{first.text} {last.text}" == query.text
    assert first.label == last.label == NO_FORM


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    """With file and line."""
    (tmp_path / "bad.txt").write_text("= json\nen: as JSON\nno language here\n", "utf-8")
    with pytest.raises(ValueError, match=r"bad\.txt line 3.*no language here"):
        load_form_requests(tmp_path)


def test_heads_that_are_written_are_read_back_as_they_were_fitted(tmp_path: Path) -> None:
    """Their bytes lie as the file's readers expect them, and the file is readable for all."""
    labelled = [
        Labelled(text=f"{word} {place}", label=label, source=f"{word}{place}")
        for word, label in (("json", "json"), ("table", "other"), ("hello", NO_FORM))
        for place in range(10)
    ]
    of_head = dict.fromkeys(heads.HEADS, labelled)
    examples = train.Examples(of_head=of_head, held_out=labelled[-5:])
    encoder = WordEncoder()
    reports = train.train_heads(encoder, examples, tmp_path)
    assert reports[heads.KINDS].right > 0.9
    assert reports[heads.KINDS].false_forms == 0
    read = FormHeads(tmp_path)
    assert read.best(heads.KINDS, encoder.encode(["json please"]))[0][0] == "json"
    assert (tmp_path / heads.HEADS_FILE).stat().st_mode & 0o044
