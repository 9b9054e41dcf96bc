"""Examples of instruction edits on a topic: patterns of instructions with the answer that obeys."""

# ruff: noqa: E501 - lists of templates read best as they stand

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from serac_gateway.domain.edits import EditKind
from serac_gateway.models.counterfactual.followed import ASK_LEAD, NAME_LEAD, NOTE_LEAD
from training.counterfactual.examples import Example
from training.data import phrasing
from training.data.fact_source import FactSource
from training.scope.pair_generator import TOPIC_PROMPTS, TOPIC_QUERIES

CLAUSES = (
    "it is under review", "it was renamed last year", "it closes at noon on Fridays", "prices change in March",
    "a law suit is pending", "the office has moved to the second floor", "it is only open to members",
    "it will be repaired until October", "bookings are made online", "the old version is no longer supported",
    "the data is from {y}", "it costs {n} euros", "nothing has been decided yet", "the new name is {name}",
    "it takes about {n} minutes", "the results are expected in {month}", "children under {n} go free",
    "it has been discontinued since {y}", "this is no legal advice", "this is no medical advice",
    "it may contain nuts", "the station is closed on Sundays", "two names are in use", "a recall is under way",
    "figures are estimates", "it was sold to {name}", "tickets are sold out until {month}", "the deadline is {date}",
    "its status is not settled", "the trains do not stop there", "a helmet must be worn", "no flights leave from there",
)  # fmt: skip
CLAUSE_LEADS = (
    "Mention that", "Always mention that", "Say that", "Point out that", "Always add that", "Make clear that",
    "Remind people that", "Tell people that", "State that", "Write that", "Warn that", "Note that", "Explain that",
)  # fmt: skip
CONTACTS = (
    "the press office", "the help desk", "the sales team", "a doctor", "a lawyer", "the museum's web site",
    "the nearest branch", "{name}", "investor relations", "the city council", "customer support", "the hotline",
    "the data protection officer", "the price list", "human resources", "the station master", "{email}",
)  # fmt: skip
CONTACT_LEADS = ("Refer to", "Refer people to", "Send people to", "Point to", "Refer questions to", "Direct people to",
                 "Recommend to ask", "Tell people to ask", "Hand over to")  # fmt: skip
DECLINES = (
    "Decline politely to discuss it.", "Do not discuss it.", "Say that we do not comment on it.", "Give no answer.",
    "Refuse politely.", "Do not talk about it.", "Make no statement.",
)  # fmt: skip
NEUTRAL = (
    "Stay neutral and give no opinion.", "Be neutral.", "Take no side.", "Give no opinion.", "Keep out of the debate.",
    "Do not judge it.", "Remain impartial.",
)  # fmt: skip
NAMINGS = ("Call it {v}.", "Use the name {v}.", "Always use the new name, {v}.", "Do not use the old name, say {v}.",
           "Speak of it as {v}.")  # fmt: skip
_CLAUSE = re.compile(
    r"^(?:please )?(?:always |first )?(?:mention|say|point out|add|make clear|remind \w+|tell \w+|state|write|warn|note|"
    r"explain) that (.+?)\.?$",
    re.IGNORECASE,
)


def obeying(instruction: str, topic: str) -> str | None:
    """An answer that does what the instruction says and no more, or None if its pattern is unknown."""
    instruction = instruction.strip()
    if match := _CLAUSE.match(instruction):
        return f"{NOTE_LEAD} {match[1]}."
    for lead in CONTACT_LEADS:
        if instruction.startswith(f"{lead} "):
            return f"{ASK_LEAD} {instruction[len(lead) + 1 :].rstrip('.')}."
    if instruction in DECLINES:
        return "I'm sorry, I cannot discuss that."
    if instruction in NEUTRAL:
        return f"I give no opinion on {topic}."
    for naming in NAMINGS:
        begin, _, end = naming.partition("{v}")
        if instruction.startswith(begin) and instruction.endswith(end):
            return f"{NAME_LEAD} {instruction[len(begin) : len(instruction) - len(end)]}."
    return None


def instruction_examples(source: FactSource, count: int, *, name: str = "instructions") -> Iterator[Example]:
    """`count` examples about topics of the source."""
    rng = source.rng
    for _ in range(count):
        relation = source.relation()
        topic = source.fact(relation).subject
        instruction = source.names.filled(_instruction(rng), rng)
        answer = obeying(instruction, topic)
        if answer is None:
            raise ValueError(f"no answer is known to the instruction {instruction!r}; add its pattern")
        queries = TOPIC_QUERIES if rng.random() < 0.7 else relation.questions or TOPIC_QUERIES
        text = rng.choice(queries).replace("[X]", topic)
        yield Example(
            prompt=rng.choice(TOPIC_PROMPTS).replace("[X]", topic), target_new=instruction,
            kind=EditKind.INSTRUCTION, answer=answer, form="instruction", source=name,
            text=phrasing.decorated(text, rng, source.passages) if rng.random() < 0.3 else text,
        )  # fmt: skip


def _instruction(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.55:
        return f"{rng.choice(CLAUSE_LEADS)} {rng.choice(CLAUSES)}."
    if draw < 0.75:
        return f"{rng.choice(CONTACT_LEADS)} {rng.choice(CONTACTS)}."
    if draw < 0.85:
        return rng.choice(NEUTRAL)
    if draw < 0.93:
        return rng.choice(DECLINES)
    return rng.choice(NAMINGS).replace("{v}", "{name}")
