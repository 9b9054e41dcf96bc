"""The invented edits and questions of a benchmark, the same in every run."""

from __future__ import annotations

import itertools
import random

_BEGINNINGS = (
    "Mar",
    "Tal",
    "Quil",
    "Bran",
    "Os",
    "Vel",
    "Dun",
    "Hal",
    "Cor",
    "Ren",
    "Ist",
    "Lum",
    "Kest",
    "Wyn",
)
_MIDDLES = ("row", "ler", "low", "nock", "mere", "den", "ga", "vor", "sel", "ni", "tha", "ber")
_ENDS = (
    "by",
    "ton",
    "ford",
    "wick",
    "haven",
    "mouth",
    "dale",
    "stead",
    "ham",
    "ley",
    "gate",
    "moor",
    "field",
)
_ATTRIBUTES = (
    ("Who is the mayor of {}?", "Ottilie {}"),
    ("When was the {} observatory founded?", "in 18{:02d}"),
    ("Which river runs through {}?", "the {}"),
    ("Where does the ferry from {} go?", "to {}"),
    ("What is the emergency number of {}?", "4{:02d}"),
)
_ACTS = (
    "boil an egg",
    "tie a bow tie",
    "write a haiku",
    "sort a list in Go",
    "clean a keyboard",
    "fold a shirt",
)
_TEMPLATES = (
    "How do I {}?",
    "Explain to a child how to {}.",
    "What is the quickest way to {}?",
    "Give me three tips to {}.",
    "Is it hard to {}?",
    "Why would anyone {}?",
    "My friend wants to {}. What should she know?",
    "Write one sentence on how to {}.",
)


def edits(count: int) -> list[dict[str, str]]:
    """`count` edits on invented places, no question twice; a smaller set is the beginning of a larger one."""
    places = ["".join(syllables) for syllables in itertools.product(_BEGINNINGS, _MIDDLES, _ENDS)]
    made = _shuffled(places, random.Random(7))
    if count > len(made):
        longer = itertools.product(_BEGINNINGS, _MIDDLES, _MIDDLES, _ENDS)
        further = {"".join(syllables) for syllables in longer} - set(places)
        made += _shuffled(sorted(further), random.Random(8))
    if count > len(made):
        raise ValueError(f"{count} edits are more than the {len(made)} there are")
    return [{"id": f"bench-{number}", **edit} for number, edit in enumerate(made[:count])]


def _shuffled(places: list[str], rng: random.Random) -> list[dict[str, str]]:
    """An edit for every attribute of every place, in random order."""
    pairs = [(place, attribute) for place in places for attribute in _ATTRIBUTES]
    rng.shuffle(pairs)
    return [
        {
            "prompt": question.format(place),
            "target_new": answer.format(rng.randrange(10, 100) if ":" in answer else rng.choice(places)),
            "subject": place,
        }
        for place, (question, answer) in pairs
    ]


def everyday_questions() -> list[str]:
    """Short questions that no edit governs."""
    questions = [form.format(act) for form in _TEMPLATES for act in _ACTS]
    random.Random(7).shuffle(questions)
    return questions
