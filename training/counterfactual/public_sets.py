"""Examples from the public sets, in their authors' fields; files marked test are never opened."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from training.benchmarks import wikifactdiff
from training.counterfactual import target_answers as answers
from training.counterfactual.examples import Example
from training.counterfactual.fact_examples import odd_value
from training.data import public_sets
from training.data.facts import counterfact_relation
from training.data.files import read_rows
from training.data.pairs import Pair
from training.data.phrasing import CHECKS, CONTEXT_DOUBTS

LeftOut = Callable[[str], bool]
"""Tells whether a prompt may belong to a held-out relation."""
_ODD_SHARE = 0.25


def zsre_examples(data: Path, rng: random.Random, *, rows: int, left_out: LeftOut) -> Iterator[Example]:
    """zsRE: the question itself, its rephrase, and doubt with the old answer."""
    rows_kept = [
        row for row in read_rows(data / "zsre/zsre_mend_train_10000.jsonl.gz") if not left_out(row["src"])
    ]
    rng.shuffle(rows_kept)
    for row in rows_kept[:rows]:
        target = odd_value(rng) if rng.random() < _ODD_SHARE else row["alt"]
        question, other = row["src"], row["rephrase"]
        if rng.random() < 0.3:
            question, other = other, question
        draw = rng.random()
        if draw < 0.2:
            yield _of("zsre", question, target, question, target, "prompt")
        elif draw < 0.85:
            yield _of("zsre", question, target, other, target, "paraphrase")
        else:
            value = target if rng.random() < 0.5 else (row["answers"] or [odd_value(rng)])[0]
            text = rng.choice(CONTEXT_DOUBTS[:1] + CONTEXT_DOUBTS[4:5]).replace("{o}", value)
            said_before = rng.choice((target, value))
            answer = answers.doubted(target, text=text, asserted=value, said_before=said_before)
            yield _of("zsre", question, target, text, answer, "doubt in context", (other, f"{said_before}."))


def counterfact_examples(
    data: Path, rng: random.Random, clozes: dict[str, set[str]], *, rows: int, held_out: frozenset[str],
    file: str = "counterfact/counterfact-train.jsonl.gz",
) -> Iterator[Example]:  # fmt: skip
    """CounterFact: its clozes, rephrases in a known phrasing, and statements to check."""
    read = read_rows(data / file)
    rng.shuffle(read)
    given = 0
    for row in read:
        of = counterfact_relation(row["prompt"], row["subject"], clozes)
        if not of or of & held_out:
            continue
        prompt, new, old = row["prompt"], row["target_new"], row["ground_truth"]
        draw = rng.random()
        rephrase = row["rephrase_prompt"]
        if draw < 0.25:
            yield _of("counterfact", prompt, new, prompt, new, "prompt")
        elif draw < 0.6 and any(
            rephrase.casefold().rstrip(" .").endswith(cloze.replace("[x]", row["subject"].casefold()))
            for relation in of
            for cloze in clozes[relation]
        ):
            yield _of("counterfact", prompt, new, rephrase, new, "paraphrase")
        else:
            value = new if rng.random() < 0.5 else old
            text = rng.choice(CHECKS).replace("{s}", f"{prompt} {value}")
            answer = answers.agreement(new, agrees=answers.same(value, new))
            yield _of("counterfact", prompt, new, text, answer, "statement")
        given += 1
        if given == rows:
            return


def pair_examples(pairs: Iterator[Pair], source: str) -> Iterator[Example]:
    """KnowEdit's and PokeMQA's pairs: in scope the target, else what the edit says and no more."""
    for pair in pairs:
        if pair.in_scope:
            yield _of(source, pair.prompt, pair.target, pair.text, pair.target, "paraphrase")
        elif len(pair.prompt) < 110 and "other" not in pair.kind:
            answer = answers.nothing_more(pair.prompt, pair.target)
            yield _of(source, pair.prompt, pair.target, pair.text, answer, "nothing more")


def fever_examples(data: Path, rng: random.Random) -> Iterator[Example]:
    """FEVER's claims, each with its verdict."""
    for pair in public_sets.fever_pairs(data, rng):
        verdict = answers.verdict(pair.target)
        if pair.in_scope and verdict is not None:
            yield _of("fever", pair.prompt, pair.target, pair.text, verdict, "verdict")


def wikifactdiff_examples(rng: random.Random, *, rows: int) -> Iterator[Example]:
    """WikiFactDiff's validation part: prompts and rephrases. Never trained on."""
    cases = list(wikifactdiff.load().cases)
    for case in rng.sample(cases, min(rows, len(cases))):
        edit = case.edit
        positives = [probe for probe in case.probes if probe.in_scope]
        draw = rng.random()
        if draw < 0.3 or not positives:
            yield _of("wikifactdiff", edit.prompt, edit.target_new, edit.prompt, edit.target_new, "prompt")
        elif draw < 0.7 or edit.target_true is None:
            text = positives[0].text
            yield _of("wikifactdiff", edit.prompt, edit.target_new, text, edit.target_new, "paraphrase")
        else:
            value = edit.target_new if rng.random() < 0.5 else edit.target_true
            text = rng.choice(CHECKS).replace("{s}", f"{positives[0].text} {value}")
            answer = answers.agreement(edit.target_new, agrees=answers.same(value, edit.target_new))
            yield _of("wikifactdiff", edit.prompt, edit.target_new, text, answer, "statement")


def naming(words: frozenset[str]) -> LeftOut:
    """Leaves out prompts that contain one of `words`."""
    pattern = re.compile(
        rf"\b(?:{'|'.join(map(re.escape, sorted(words)))})s?\b" if words else "$^", re.IGNORECASE
    )
    return lambda text: pattern.search(text) is not None


def _of(
    source: str, prompt: str, target: str, text: str, answer: str, form: str, context: tuple[str, ...] = ()
) -> Example:
    return Example(
        prompt=prompt, target_new=target, text=text, answer=answer, form=form, source=source, context=context
    )
