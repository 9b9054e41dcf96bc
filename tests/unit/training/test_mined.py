"""Mined hard negatives: what the current weights take for an edit's, and nothing that an edit may answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.testing import WordEncoder
from training.data.pairs import Pair
from training.data.public_sets import is_held_out
from training.scope import mined
from training.scope.mined import (
    MiningSettings,
    Unrelated,
    mined_pairs,
    unrelated_requests,
    without_easy,
    written_prompts,
)


class FixedModel:
    """The same logit for every pair."""

    def __init__(self, logit: float) -> None:
        self._logit = logit

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return np.full((len(pairs), 1), self._logit, dtype=np.float32)

    def unreadable(self, text: str) -> frozenset[str]:
        return frozenset()


def edit(prompt: str, subject: str | None, target: str = "Ada Example") -> Pair:
    return Pair(prompt=prompt, target=target, text=prompt, in_scope=True, kind="paraphrase", subject=subject)


GHENT = edit("Who runs the harbour office of Ghent?", "Ghent")
OSLO = edit("Who runs the harbour office of Oslo?", "Oslo")
ANY = edit("who runs the harbour office?", None)


def mine(
    pairs: Sequence[Pair], requests: Sequence[Unrelated], *, logit: float = 2.0, seed: int = 1
) -> list[Pair]:
    encoder = WordEncoder()
    return mined_pairs(
        pairs, requests, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width),
        model=FixedModel(logit), floor=0.1, margin=2.0, unlikely=-1.0, edits=100, rng=random.Random(seed),
        on_progress=lambda part, done, total: None,
    )  # fmt: skip


def unrelated(text: str, kind: str = "question", own: tuple[str, str] | None = None) -> Unrelated:
    return Unrelated(text=text, kind=kind, own=own)


def test_what_the_model_takes_for_an_edits_is_out_of_scope() -> None:
    (made,) = mine([GHENT], [unrelated("who runs the harbour of the moon")])
    assert (made.prompt, made.text, made.in_scope) == (
        GHENT.prompt,
        "who runs the harbour of the moon",
        False,
    )
    assert made.kind == "mined, question"


def test_a_request_that_names_the_subject_is_left_out() -> None:
    assert mine([GHENT], [unrelated("is the harbour office of ghent far away")]) == []


def test_the_question_of_another_edit_meets_all_edits_but_those_of_its_own_subject() -> None:
    ghent_too = edit("The harbour office of Ghent is run by", "Ghent")
    own = unrelated(GHENT.text, "other edit", own=(GHENT.prompt, GHENT.target))
    assert {pair.prompt for pair in mine([GHENT, ghent_too, OSLO], [own])} == {OSLO.prompt}


def test_an_edit_without_a_subject_meets_written_prompts_alone() -> None:
    text = "who runs the harbour office of the moon"
    assert mine([ANY], [unrelated(text)]) == []
    assert [pair.prompt for pair in mine([ANY], [unrelated(text, "written")])] == [ANY.prompt]


def test_few_of_the_pairs_that_the_model_knows_already_are_kept() -> None:
    requests = [unrelated(f"who runs the harbour number {number}") for number in range(100)]
    assert len(mine([GHENT], requests)) == 100
    assert 1 <= len(mine([GHENT], requests, logit=-6.0)) <= 25


def test_a_long_message_comes_once_more_with_a_question_in_scope() -> None:
    """So that neither length nor what stands around a question says whether an edit answers it."""
    around = ("The tide came in.", "It rained.", "Gulls sat on the roof.")
    asks_else = unrelated("The tide came in. Who runs the ferry? It rained. Gulls sat on the roof.", "long")
    ghent_too = msgspec.structs.replace(GHENT, text="And who is in charge of that office?")
    elsewhere = msgspec.structs.replace(GHENT, text="and there?", context=("Who runs the office of Oslo?",))
    texts = set()
    for seed in range(30):
        pairs = [ghent_too, elsewhere]
        out, made = mine(pairs, [msgspec.structs.replace(asks_else, around=around)], seed=seed)
        assert (out.in_scope, out.text) == (False, asks_else.text)
        assert (made.in_scope, made.prompt, made.kind) == (True, GHENT.prompt, "mined, long")
        assert ghent_too.text in made.text
        assert made.text.replace(ghent_too.text, "").split() == " ".join(around).split()
        texts.add(made.text)
    places = {text.index(ghent_too.text) for text in texts}
    assert 0 in places
    assert max(places) == len(" ".join(around)) + 1
    assert len(places) > 2, "somewhere between the passages as well"


def test_of_easy_pairs_a_share_is_kept_and_of_others_all() -> None:
    def kept(logit: float, share: float) -> list[bool]:
        pairs = [GHENT, msgspec.structs.replace(OSLO, in_scope=False)] * 200
        settings = MiningSettings(easy_share=share)
        left = without_easy(
            pairs, FixedModel(logit), settings, random.Random(2),
            on_progress=lambda part, done, total: None,
        )  # fmt: skip
        return [pair.in_scope for pair in left]

    assert kept(3.5, 0.0) == [False] * 200, "in scope is known, out of scope is taken for in scope"
    assert kept(-3.8, 0.0) == [True] * 200
    assert len(kept(0.0, 0.0)) == 400, "nothing is clear"
    assert 230 <= len(kept(3.5, 0.3)) <= 290


def test_written_prompts_are_split_by_their_text(tmp_path: Path) -> None:
    lines = [f"Prompt {number}\\nwith a second line" for number in range(80)]
    (tmp_path / "a.txt").write_text("\n".join(["# a comment", "", *lines]), encoding="utf-8")
    kept, held_out = written_prompts(tmp_path), written_prompts(tmp_path, held_out=True)
    assert sorted(kept + held_out) == sorted(line.replace("\\n", "\n") for line in lines)
    assert 1 <= len(held_out) <= 30
    assert all(is_held_out(prompt, one_in=8) for prompt in held_out)


def test_the_prompts_that_ship_are_many_and_different() -> None:
    prompts = [*written_prompts(), *written_prompts(held_out=True)]
    assert len(prompts) > 800
    assert len(set(prompts)) == len(prompts)


def test_each_source_gives_what_is_wanted_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"loc": "", "text": ""}
    read = {f"{name}.jsonl.gz": [{**rows, "text": f"{name} {n}"} for n in range(9)]
            for name in (*mined._ASSISTANTS, "tatoeba/pairs")}  # fmt: skip
    monkeypatch.setattr(mined, "read_rows", lambda path: read[str(path.relative_to(tmp_path))])
    monkeypatch.setattr(mined, "unrelated_texts", lambda data: [f"question {n}" for n in range(9)])
    settings = MiningSettings(
        edits=1, written=2, questions=3, assistants=4, statements=100, other_edits=1, long=2
    )
    made = unrelated_requests(tmp_path, [GHENT], ["One.", "Two.", "Three.", "Four.", "Five."], settings,
                              random.Random(3))  # fmt: skip
    counts = {kind: sum(request.kind == kind for request in made) for kind in {r.kind for r in made}}
    assert counts == {
        "written": 2, "question": 3, "assistant": 4, "statement": 9, "other edit": 1, "long": 2,
    }  # fmt: skip
    assert [request.own for request in made if request.own] == [(GHENT.prompt, GHENT.target)]
