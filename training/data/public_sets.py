"""Pairs read from the public sets in their authors' fields. Only files marked for training give pairs."""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from serac_gateway.domain.vectors import Vectors
from training.data.facts import counterfact_relation, template_of
from training.data.files import read_rows
from training.data.pairs import Pair
from training.data.phrasing import CHECKS

ANSWERS = (
    "yes", "no", "It depends.", "about 40", "three days", "in 2015", "Use the settings menu.", "nobody knows",
    "Yes, it is.", "No, it is not.", "42", "by practice", "the second one", "John Smith", "It was cancelled.",
)  # fmt: skip

Embed = Callable[[Sequence[str]], Vectors]
Excluded = Callable[[Sequence[str]], frozenset[str]]
"""Tells which templates, [X] for the subject, belong to a held-out relation."""


def zsre_pairs(
    data: Path, rng: random.Random, embed: Embed, *, rows: int, excluded: Excluded
) -> Iterator[Pair]:
    """zsRE: question and rephrase; templates far apart on one subject; one template, two subjects."""
    read = [r for r in read_rows(data / "zsre/zsre_mend_train_10000.jsonl.gz") if r["subject"] in r["src"]]
    made_from = [(row, row["src"].replace(row["subject"], "[X]")) for row in read]
    left_out = excluded(sorted({template for _, template in made_from}))
    kept = [(row, template) for row, template in made_from if template not in left_out]
    templates = sorted({template for _, template in kept})
    place = {template: i for i, template in enumerate(templates)}
    vectors_ND = embed([t.replace("[X]", "it") for t in templates])
    similarity_NN = vectors_ND @ vectors_ND.T
    rng.shuffle(kept)
    for row, template in kept[:rows]:
        question, rephrased = row["src"], row["rephrase"]
        if rng.random() < 0.5:
            question, rephrased = rephrased, question
        made: dict[str, Any] = {"prompt": question, "target": row["alt"]}
        yield Pair(**made, text=rephrased, in_scope=True, kind="zsre")
        near = similarity_NN[place[template]]
        far = [t for t in rng.sample(templates, 40) if 0.2 < near[place[t]] < 0.55]
        for other in far[:1]:
            yield Pair(
                **made, text=other.replace("[X]", row["subject"]), in_scope=False, kind="zsre same subject"
            )
        stranger, _ = rng.choice(kept)
        if stranger["subject"] != row["subject"]:
            yield Pair(
                **made,
                text=template.replace("[X]", stranger["subject"]),
                in_scope=False,
                kind="zsre other subject",
            )


def counterfact_pairs(
    data: Path, rng: random.Random, clozes: dict[str, set[str]], *, rows: int, held_out: frozenset[str]
) -> Iterator[Pair]:
    """CounterFact: true paraphrases and neighbours, no generation prompts ("…'s surroundings include")."""
    read = read_rows(data / "counterfact/counterfact-train.jsonl.gz")
    rng.shuffle(read)
    given = 0
    for row in read:
        of = counterfact_relation(row["prompt"], row["subject"], clozes)
        if not of or of & held_out:
            continue
        made: dict[str, Any] = {"prompt": row["prompt"], "target": row["target_new"]}
        cut = row["rephrase_prompt"].find(row["subject"])
        rephrase_of = counterfact_relation(
            _last_sentence(row["rephrase_prompt"], row["subject"]), row["subject"], clozes
        )
        if cut >= 0 and of & rephrase_of:
            yield Pair(**made, text=row["rephrase_prompt"], in_scope=True, kind="counterfact")
        yield Pair(**made, text=row["locality_prompt"], in_scope=False, kind="counterfact neighbour")
        given += 1
        if given >= rows:
            return


def knowedit_pairs(data: Path, rng: random.Random, *, rows: int, excluded: Excluded) -> Iterator[Pair]:
    """KnowEdit: same-subject questions (out of scope), aliases of the subject (in), multi-hop ones (out)."""
    read = [
        *read_rows(data / "knowedit/wiki_counterfact_train.jsonl.gz"),
        *read_rows(data / "knowedit/wiki_recent_train.jsonl.gz"),
    ]  # fmt: skip
    rng.shuffle(read)
    left_out = excluded(sorted({row["prompt"].replace(row["subject"], "[X]") for row in read[:rows]}))
    for row in read[:rows]:
        if row["prompt"].replace(row["subject"], "[X]") in left_out:
            continue
        made: dict[str, Any] = {"prompt": row["prompt"], "target": row["target_new"]}
        for probe in row.get("portability", {}).get("Subject_Aliasing", [])[:1]:
            yield Pair(**made, text=probe["prompt"], in_scope=True, kind="knowedit alias")
        for probe in row.get("portability", {}).get("Reasoning", [])[:1]:
            yield Pair(**made, text=probe["prompt"], in_scope=False, kind="knowedit multi-hop")
        for probe in row.get("locality", {}).get("Relation_Specificity", [])[:2]:
            yield Pair(**made, text=probe["prompt"], in_scope=False, kind="knowedit same subject")


def pokemqa_pairs(
    data: Path, rng: random.Random, *, rows: int, excluded_words: re.Pattern[str]
) -> Iterator[Pair]:
    """Statements with their questions; questions of another statement are out of scope."""
    read = [
        r
        for r in read_rows(data / "scope_pokemqa/cls-filtered.jsonl.gz")
        if not excluded_words.search(r["edit"])
    ]
    rng.shuffle(read)
    for row in read[:rows]:
        words = row["edit"].split()
        cut = max(1, len(words) - rng.choice((1, 1, 2)))
        made: dict[str, Any] = {"prompt": " ".join(words[:cut]), "target": " ".join(words[cut:])}
        good = [q for q in row["questions"] if _shares_subject(q, row["edit"])]
        for question in good[:1] if len(good) < 2 else rng.sample(good, 2):
            yield Pair(**made, text=question, in_scope=True, kind="pokemqa")
        other = rng.choice(read)
        if other["edit"] != row["edit"] and other["questions"]:
            yield Pair(**made, text=rng.choice(other["questions"]), in_scope=False, kind="pokemqa other")


def qqp_pairs(data: Path, rng: random.Random, *, rows: int) -> Iterator[Pair]:
    """Labelled questions of QQP, with a made-up answer or none of meaning: general paraphrase knowledge."""
    read = read_rows(data / "paraphrase_pairs/similiar_qqp_full.jsonl.gz")
    for row in rng.sample(read, min(rows, len(read))):
        yield Pair(
            prompt=row["text_a"],
            target=rng.choice(ANSWERS),
            text=row["text_b"],
            in_scope=bool(row["label"]),
            kind="qqp",
        )


def paws_pairs(data: Path, rng: random.Random, *, rows: int) -> Iterator[Pair]:
    """Sentences of PAWS: the same words in another order mean another thing."""
    read = read_rows(data / "paraphrase_pairs/paws_wiki_val.jsonl.gz")
    for row in rng.sample(read, min(rows, len(read))):
        text = row["sentence2"] if rng.random() < 0.6 else f"Is it true that {row['sentence2'].rstrip(' .')}?"
        verdict = rng.choice(("true", "false", "This is correct.", "SUPPORTS"))
        yield Pair(prompt=row["sentence1"], target=verdict,
                   text=text, in_scope=bool(int(row["label"])), kind="paws")  # fmt: skip


def fever_pairs(data: Path, rng: random.Random) -> Iterator[Pair]:
    """Claims of FEVER Symmetric: a verdict governs its claim, not the claim's twin; evidence governs both."""
    dev = read_rows(data / "fever_vitaminc/symmetric_v0.2_fever_symmetric_dev.jsonl.gz")
    seen_there = {row["claim"] for row in dev} | {row["evidence"] for row in dev}
    read = [
        row
        for row in read_rows(data / "fever_vitaminc/symmetric_v0.1_fever_symmetric_generated.jsonl.gz")
        if not {row["claim"], row["evidence_sentence"]} & seen_there  # half of v0.1 stands in v0.2's dev set
    ]
    claims_of: dict[str, list[str]] = defaultdict(list)
    for row in read:
        claims_of[row["evidence_sentence"]].append(tidy(row["claim"]))
        claims_of[row["id"][:-1]].append(tidy(row["claim"]))
    for row in read:
        claim = tidy(row["claim"])
        verdicts = ("True", "true", "yes") if row["label"] == "SUPPORTS" else ("False", "false", "no")
        made: dict[str, Any] = {"prompt": claim, "target": rng.choice((*verdicts, row["label"]))}
        yield Pair(**made, text=_checked(claim, rng), in_scope=True, kind="claim")
        twins = {*claims_of[row["evidence_sentence"]], *claims_of[row["id"][:-1]]} - {claim}
        for twin in sorted(twins)[:2]:
            yield Pair(**made, text=_checked(twin, rng), in_scope=False, kind="twin claim")
        if rng.random() < 0.3:
            evidence = tidy(row["evidence_sentence"])
            source = rng.choice(("This is so.", "It is known.", "Source: an encyclopedia."))
            text = _checked(claim, rng)
            yield Pair(prompt=evidence, target=source, text=text, in_scope=True, kind="evidence")
        stranger = rng.choice(read)
        if stranger["id"][:-1] != row["id"][:-1] and rng.random() < 0.5:
            text = _checked(tidy(stranger["claim"]), rng)
            yield Pair(**made, text=text, in_scope=False, kind="other claim")


def _checked(claim: str, rng: random.Random) -> str:
    return rng.choice(CHECKS).replace("{s}", claim.rstrip(" ."))


def unrelated_texts(data: Path, *, held_out: bool = False) -> list[str]:
    """Training's unrelated traffic: the NQ questions of zsRE's training rows. NQ-open dev stays unseen.

    One in four is `held_out`, for the choice of the threshold, settled by its text alone.
    """
    rows = read_rows(data / "zsre/zsre_mend_train_10000.jsonl.gz")
    texts = [row["loc"].removeprefix("nq question: ") for row in rows]
    return [text for text in texts if is_held_out(text, one_in=4) == held_out]


def is_held_out(text: str, *, one_in: int) -> bool:
    """Whether training leaves a text out; of many texts one in `one_in`."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % one_in == 0


def tidy(text: str) -> str:
    """FEVER's tokenised text as people write it."""
    text = text.replace("-LRB-", "(").replace("-RRB-", ")").replace("-LSB-", "[").replace("-RSB-", "]")
    text = re.sub(r"\s+([.,;:!?)\]])", r"\1", text)
    return re.sub(r"([(\[])\s+", r"\1", text).replace(" 's", "'s").replace("--", "–").strip()


def cloze_table(statements: dict[str, list[str]]) -> dict[str, set[str]]:
    """Comparable clozes by relation, from statement patterns."""
    return {
        relation: {template_of(p[: p.index("[Y]")], "[X]") for p in patterns if p.endswith("[Y]")}
        for relation, patterns in statements.items()
    }


def _last_sentence(text: str, subject: str) -> str:
    at = text.rfind(subject)
    if at < 0:
        return text
    before = text[:at]
    opening = max(before.rfind(". "), before.rfind("\n"), before.rfind("! "), before.rfind("? "))
    start = opening + 1 if opening >= 0 else 0
    lead = before[start:].strip()
    for words in (5, 4, 3, 2, 1, 0):
        piece = " ".join(lead.split()[-words:]) if words else ""
        if not lead or words <= len(lead.split()):
            return f"{lead} {text[at:]}".strip() if opening >= 0 else f"{piece} {text[at:]}".strip()
    return text[at:]


def _shares_subject(question: str, edit: str) -> bool:
    names = [
        w for w in re.findall(r"[A-Z]\w+", edit[1:] if edit[:4] in ("The ", "The") else edit) if len(w) > 2
    ]
    first = names[:2] or edit.split()[:1]
    return all(w in question for w in first)
