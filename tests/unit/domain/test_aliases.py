"""Other names of an edit's subject: which are allowed, and under which texts the edit is then searched."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.domain.aliases import MAX_ALIAS_CHARS, MAX_ALIASES, MAX_FORMS
from serac_gateway.domain.edits import (
    Edit,
    EditDraft,
    EditPatch,
    by_name_in,
    first_version,
    forms,
    forms_left_out,
    patched,
    prompt_wordings,
    record_json,
    statement,
    wordings,
)
from serac_gateway.errors import InvalidRequestError


def edit(prompt: str = "Who runs Acme?", **fields: object) -> Edit:
    fields = {"subject": "Acme", **fields}
    return first_version(EditDraft(prompt=prompt, target_new="Ada", **fields), namespace="default")


def test_prompt_and_paraphrases_are_searched_by_every_name() -> None:
    named = edit(paraphrases=("Acme's boss", "Who is it?"), aliases=("Acme Corp", "Ajax"))
    assert forms(named) == (
        "Who runs Acme?",
        "Who runs Acme? Ada",
        "Acme's boss",
        "Who is it?",
        "Who runs Acme Corp?",
        "Who runs Ajax?",
        "Acme Corp's boss",
        "Ajax's boss",
    )
    assert wordings(named) == tuple(form for form in forms(named) if form != statement(named))
    assert prompt_wordings(named) == ("Who runs Acme?", "Who runs Acme Corp?", "Who runs Ajax?")
    assert forms_left_out(named) == 0


def test_the_prompt_may_call_its_subject_by_an_alias() -> None:
    named = edit("Who runs the AC group?", subject="Acme Corporation", aliases=("AC group",))
    assert prompt_wordings(named) == ("Who runs the AC group?", "Who runs the Acme Corporation?")


@pytest.mark.parametrize(
    ("prompt", "subject", "alias", "renamed"),
    [
        ("東京の市長は誰ですか", "東京", "Tokyo", "Tokyoの市長は誰ですか"),
        ("เมืองหลวงของประเทศไทยคืออะไร", "ไทย", "สยาม", "เมืองหลวงของประเทศสยามคืออะไร"),
        ("Who runs Яндекс?", "яндекс", "Yandex", "Who runs Yandex?"),
        ("ما هي عاصمة فرنسا؟", "فرنسا", "France", "ما هي عاصمة France؟"),
        ("מי מנהל את שירה?", "שירה", "Shira", "מי מנהל את Shira?"),
        ("What does 🦆 mean?", "🦆", "duck emoji", "What does duck emoji mean?"),
        ("Ada", "ADA", "Countess", "Countess"),
    ],
)
def test_names_are_replaced_in_any_script(prompt: str, subject: str, alias: str, renamed: str) -> None:
    assert renamed in forms(edit(prompt, subject=subject, aliases=(alias,)))


def test_an_edit_whose_answer_is_its_subject_may_have_aliases() -> None:
    named = first_version(
        EditDraft(prompt="Acme", target_new="Acme", subject="Acme", aliases=("Ajax",)), namespace="default"
    )
    assert forms(named) == ("Acme", "Acme Acme", "Ajax")


def test_two_hundred_aliases_are_each_put_into_the_prompt_and_no_further() -> None:
    aliases = tuple(f"Name {number}" for number in range(MAX_ALIASES))
    named = edit(aliases=aliases, paraphrases=tuple(f"Acme's boss {number}?" for number in range(32)))
    assert set(prompt_wordings(named)) == {"Who runs Acme?", *(f"Who runs {alias}?" for alias in aliases)}
    assert len(forms(named)) == 2 + 32 + MAX_ALIASES
    assert forms_left_out(named) == 32 * MAX_ALIASES


def test_paraphrases_are_renamed_up_to_the_limit_the_first_alias_first() -> None:
    named = edit(aliases=("Ajax", "Bolt", "Cog"), paraphrases=tuple(f"Acme {n}?" for n in range(20)))
    made = forms(named)
    assert len(made) == MAX_FORMS
    assert all(f"Ajax {n}?" in made for n in range(20))
    assert "Cog 19?" not in made
    assert forms_left_out(named) == 3 + 60 + 22 - MAX_FORMS


def test_a_prompt_of_many_names_makes_no_text_beyond_the_limit_of_a_prompt() -> None:
    named = edit("a " * 900, subject="a", aliases=("b", "x" * MAX_ALIAS_CHARS))
    assert max(map(len, forms(named))) <= 2_000
    assert forms_left_out(named) == 1


def test_without_aliases_forms_and_record_are_those_of_releases_before() -> None:
    plain = edit(paraphrases=("Acme's boss",))
    assert forms(plain) == ("Who runs Acme?", "Who runs Acme? Ada", "Acme's boss")
    record = record_json(plain)
    assert b"aliases" not in record
    assert msgspec.json.decode(record, type=Edit) == plain
    draft = EditDraft(prompt='"aliases":[],', target_new="x")
    assert msgspec.json.decode(record_json(draft), type=EditDraft) == draft
    named = edit(aliases=("Ajax",))
    assert msgspec.json.decode(record_json(named), type=Edit) == named


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"aliases": ("x",) * 201}, "aliases", "the limit is 200"),
        ({"aliases": ("x" * 201,)}, "aliases[0]", "the limit is 200"),
        ({"aliases": ("Ajax", " ")}, "aliases[1]", "is blank"),
        ({"aliases": ("\u200b\u200f",)}, "aliases[0]", "invisible"),
        ({"aliases": ("a\x07b",)}, "aliases[0]", "control character U\\+0007; take it out"),
        ({"aliases": ("a\u2028b",)}, "aliases[0]", "control character U\\+2028"),
        ({"aliases": ("\ud800",)}, "aliases[0]", "lone surrogate"),
        ({"aliases": ("Ajax", "Bolt", "ＡＪＡＸ")}, "aliases[2]", "repeats aliases\\[0\\] 'Ajax'"),
        ({"aliases": ("Ajax",), "subject": None}, "subject", "'Ajax' need a subject"),
        ({"aliases": ("Ajax",), "subject": "Bolt"}, "subject", "'Bolt' .* in the prompt 'Who runs Acme"),
    ],
)  # fmt: skip
def test_bad_aliases_are_refused_with_value_and_remedy(
    fields: dict[str, object], field: str, reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        edit(**fields)
    assert caught.value.field == field


def test_a_patch_replaces_aliases_and_must_leave_them_a_name_in_the_prompt() -> None:
    named = edit(aliases=("Ajax",))
    assert patched(named, EditPatch(aliases=("Bolt",))).aliases == ("Bolt",)
    assert patched(named, EditPatch(prompt="Who runs Bolt?", aliases=())).aliases == ()
    with pytest.raises(InvalidRequestError, match="leave the aliases out"):
        patched(named, EditPatch(prompt="Who runs Bolt?"))


@pytest.mark.parametrize(
    ("query", "prompt"),
    [
        ("ajax's boss?", "Who runs Ajax?"),
        ("Is Acme run by Ajax Holding?", "Who runs Ajax Holding?"),
        ("acme's boss?", "Who runs Acme?"),
        ("who is it?", "Who runs Acme?"),
    ],
)
def test_the_answer_model_reads_the_name_that_the_query_uses(query: str, prompt: str) -> None:
    named = edit(aliases=("Ajax", "Ajax Holding"))
    assert by_name_in(query, named) == msgspec.structs.replace(named, prompt=prompt)
    plain = edit()
    assert by_name_in(query, plain) is plain


@given(
    st.text(min_size=1, max_size=40),
    st.text(min_size=1, max_size=20),
    st.lists(st.text(max_size=20), max_size=12),
    st.lists(st.text(min_size=1, max_size=30), max_size=4),
)
def test_any_names_are_refused_by_name_or_give_a_bounded_number_of_texts(
    prompt: str, subject: str, aliases: list[str], paraphrases: list[str]
) -> None:
    try:
        named = edit(prompt, subject=subject, aliases=tuple(aliases), paraphrases=tuple(paraphrases))
    except InvalidRequestError:
        return
    made = forms(named)
    assert len(made) == len(set(made)) <= MAX_FORMS + len(aliases)
    assert made[0] == prompt
    assert set(wordings(named)) <= set(made)
    assert forms_left_out(named) >= 0
