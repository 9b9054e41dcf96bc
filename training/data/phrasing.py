"""The forms in which people ask: question, cloze, keyword, order, yes/no, statement to check, and the noise around."""

# ruff: noqa: E501 - lists of templates read best as they stand

from __future__ import annotations

import random
import re

from training.data.relations import Relation

NOUN_QUESTIONS = (
    "What is the {n} of [X]?", "What's the {n} of [X]?", "What is [X]'s {n}?", "[X] {n}?", "Which is the {n} of [X]?",
    "What was the {n} of [X]?", "Do you know the {n} of [X]?", "The {n} of [X] is what?", "what {n} [X]",
)  # fmt: skip
NOUN_WHO = ("Who is the {n} of [X]?", "Who was the {n} of [X]?", "Who is [X]'s {n}?", "Who's the {n} of [X]?",
            "The {n} of [X] is who?", "Who is the current {n} of [X]?")  # fmt: skip
NOUN_CLOZES = (
    "The {n} of [X] is",
    "[X]'s {n} is",
    "The name of the {n} of [X] is",
    "{n} of [X]:",
    "[X], {n}:",
)
NOUN_KEYWORDS = ("[X] {n}", "{n} [X]", "{n} of [X]", "[X] - {n}", "[X] current {n}", "[X]'s {n}")
NOUN_ORDERS = (
    "Tell me the {n} of [X].", "Give me the {n} of [X].", "Name the {n} of [X].", "I need the {n} of [X].",
    "I'd like to know the {n} of [X].", "Please look up the {n} of [X]", "State [X]'s {n}.", "Show me the {n} of [X]",
    "I want to find out the {n} of [X]", "Remind me of the {n} of [X].", "Let me know [X]'s {n}",
    "Answer with the {n} of [X] only.",
)  # fmt: skip
NOUN_YES_NO = (
    "Is [Y] the {n} of [X]?",
    "Is the {n} of [X] [Y]?",
    "Is [X]'s {n} still [Y]?",
    "[X]'s {n} is [Y], right?",
    "Isn't [Y] the {n} of [X]?",
    "Isn't the {n} of [X] [Y]?",
    "Isn't [X]'s {n} [Y]?",
    "[X]'s {n} isn't [Y], is it?",
    "Wasn't [Y] the {n} of [X]?",
    "So the {n} of [X] is [Y]?",
    "Was [Y] not the {n} of [X]?",
)
CONTRACTIONS = {
    "Is ": "Isn't ",
    "Was ": "Wasn't ",
    "Did ": "Didn't ",
    "Does ": "Doesn't ",
    "Are ": "Aren't ",
    "Can ": "Can't ",
}
CHECKS = (
    "Is it true that {s}?", "{s}. True or false?", "Is this correct: {s}", "{s}, right?", "{s}, correct?",
    "Can you confirm that {s}?", "Check this claim: {s}.", "{s}.", "{s}", "I heard that {s}. Is that so?",
    "True or false: {s}", "I read somewhere that {s}. Is that right?", "Is the following accurate? {s}",
    "Fact check: {s}", "Am I right that {s}?", "{s}, isn't it?",
)  # fmt: skip
PREFIXES = (
    "Hi, ", "Hello! ", "Hey, ", "Please tell me: ", "Quick question: ", "Could you tell me, ", "I was wondering, ",
    "Please answer: ", "Excuse me, ", "Hey there, quick one. ", "Good morning. ", "One question, ", "Answer briefly: ",
    "For my homework: ", "Sorry to bother you, ", "Question: ", "Q: ", "Can you help me? ", "My boss asked me: ",
    "Do you happen to know: ", "Thanks for the help so far. ", "Trivia time! ", "Just curious, ", "OK so ",
    "I'm writing a report. ", "Be honest: ", "In one word, ", "As of today, ", "Nowadays, ", "By the way, ",
    "Write me the answer to this: ", "My daughter asks: ", "Explain in simple words: ", "Translate nothing, just answer: ",
    "Someone on the phone wants to know: ", "I have to give a talk tomorrow and one thing is still open. ",
)  # fmt: skip
SUFFIXES = (
    " Thanks!", " Thank you.", " Please answer in one sentence.", " I need to know for work.", " Answer briefly.",
    " Please be precise.", " It's urgent.", " My friend and I disagree.", " Asking for a friend.", " pls",
    " Explain your answer.", " Give a short answer.", " lol", " ???", " Any idea?", " I keep forgetting.",
)  # fmt: skip
DOUBTS = (
    "{q} I thought it was {o}.", "{q} Isn't it {o}?", "I thought it was {o}, but {q}", "{q} Someone told me {o}.",
    "{q} I always believed it was {o}.", "My teacher says {o}. {q}", "{q} Are you sure it isn't {o}?",
    "{q} Wikipedia says {o}.", "I'm pretty sure it's {o}. {q}",
)  # fmt: skip
CONTEXT_DOUBTS = (
    "Are you sure? I thought it was {o}.", "Really? Isn't it {o}?", "I don't think so, it is {o}.", "Are you certain?",
    "Hmm, I read {o} somewhere.", "Is that right?", "No way, it's {o}!", "Wasn't it {o}?", "Can you double-check that?",
)  # fmt: skip
INTRODUCTIONS = (
    "Tell me about [X].", "What do you know about [X]?", "I'm reading about [X].", "Who or what is [X]?",
    "Let's talk about [X].", "I have a question about [X].", "Have you heard of [X]?", "Describe [X] to me.",
    "Give me a short overview of [X].", "My question is about [X].",
)  # fmt: skip
PRONOUNS = {
    "person": ("he", "she", "they"), "worker": ("he", "she", "they"), "character": ("he", "she"),
    "company": ("it", "they"), "team": ("they", "it"),
}  # fmt: skip
PERSON_OBJECTS = frozenset({"person", "artist"})


def questions_of(relation: Relation) -> list[str]:
    """Question templates: the table's own and those made from its nouns."""
    made = NOUN_WHO if relation.object_type in PERSON_OBJECTS else NOUN_QUESTIONS
    return [*relation.questions, *(t.replace("{n}", n) for n in relation.nouns for t in made[:3])]


def edit_prompt(relation: Relation, rng: random.Random) -> str:
    """A template such as editors write: question, cloze, noun cloze; rarely keywords."""
    draw = rng.random()
    if draw < 0.45 or not relation.clozes:
        return rng.choice(questions_of(relation)) if rng.random() < 0.4 else rng.choice(relation.questions)
    if draw < 0.80:
        return rng.choice(relation.clozes)
    if draw < 0.95 and relation.nouns:
        return rng.choice(NOUN_CLOZES).replace("{n}", rng.choice(relation.nouns))
    return rng.choice(NOUN_KEYWORDS).replace("{n}", rng.choice(relation.nouns or (relation.name,)))


def query_template(relation: Relation, value: str, rng: random.Random) -> str:
    """A template for a query, [Y] filled with `value` where the form asserts an answer."""
    noun = rng.choice(relation.nouns or (relation.name,))
    draw = rng.random()
    if draw < 0.40:
        return rng.choice(relation.questions)
    if draw < 0.47:
        made = NOUN_WHO if relation.object_type in PERSON_OBJECTS else NOUN_QUESTIONS
        return rng.choice(made).replace("{n}", noun)
    if draw < 0.62 and relation.clozes:
        return rng.choice(relation.clozes)
    if draw < 0.65:
        return rng.choice(NOUN_CLOZES).replace("{n}", noun)
    if draw < 0.70:
        return rng.choice(NOUN_KEYWORDS).replace("{n}", noun)
    if draw < 0.77:
        return _order(relation, noun, rng)
    if draw < 0.85:
        templates = relation.yes_no if rng.random() < 0.6 else ()
        text = rng.choice(templates or NOUN_YES_NO).replace("{n}", noun).replace("[Y]", value)
        for plain, contracted in CONTRACTIONS.items():
            if text.startswith(plain) and rng.random() < 0.3:
                return contracted + text[len(plain) :]
        return text
    if draw < 0.92 and relation.statements:
        return rng.choice(CHECKS).replace("{s}", rng.choice(relation.statements).replace("[Y]", value))
    if relation.foreign:
        return rng.choice(relation.foreign)[1]
    return rng.choice(relation.questions)


def _order(relation: Relation, noun: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(NOUN_ORDERS).replace("{n}", noun)
    question = rng.choice(relation.questions).rstrip("?")
    match = re.match(r"(Who|What|Which|Where|When|How)\b (?:is|was|are) (.*)", question)
    opening = rng.choice(
        ("Tell me", "I want to know", "Explain", "Do you know", "Can you tell me", "I forgot")
    )
    if match and match.group(2).startswith(("[X]", "the ")):
        return f"{opening} {match.group(1).lower()} {match.group(2)} is"
    return f"{opening}: {question}"


def decorated(text: str, rng: random.Random, passages: list[str]) -> str:
    """`text` as it arrives: often bare, else with a prefix, a suffix, noise around, lower case, slips of the finger."""
    draw = rng.random()
    if draw < 0.14:
        text = rng.choice(PREFIXES) + text
    elif draw < 0.22:
        text = text + rng.choice(SUFFIXES)
    elif draw < 0.34 and passages:
        text = f"{rng.choice(passages)} {text}"
    elif draw < 0.36 and passages:
        text = f"{text} {rng.choice(passages)}"
    elif draw < 0.39 and passages:
        text = " ".join((*rng.sample(passages, min(3, len(passages))), text))
    elif draw < 0.41:
        text = rng.choice(
            (
                'Answer this question: "{t}"',
                'A customer asks: "{t}" What do I reply?',
                'My son asked me "{t}"',
            )
        ).replace("{t}", text)
    if rng.random() < 0.12:
        text = text.lower().rstrip("?")
    if rng.random() < 0.06:
        text = misspelt(text, rng)
    return text


def misspelt(text: str, rng: random.Random) -> str:
    """`text` with one or two letters swapped, dropped or doubled, seldom in a capitalised word."""
    words = text.split(" ")
    for _ in range(rng.choice((1, 1, 2))):
        places = [i for i, w in enumerate(words) if len(w) > 3 and (w.islower() or rng.random() < 0.2)]
        if not places:
            return text
        place = rng.choice(places)
        word = words[place]
        at = rng.randrange(1, len(word) - 1)
        kind = rng.random()
        if kind < 0.4:
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif kind < 0.7:
            words[place] = word[:at] + word[at + 1 :]
        else:
            words[place] = word[:at] + word[at] + word[at:]
    return " ".join(words)


def pronoun_question(template: str, subject_type: str, rng: random.Random) -> str:
    """`template` with [X] as a pronoun, as a follow-up has it."""
    pronoun = rng.choice(PRONOUNS.get(subject_type, ("it",)))
    possessive = {"he": "his", "she": "her", "they": "their", "it": "its"}[pronoun]
    objective = {"he": "him", "she": "her", "they": "them", "it": "it"}[pronoun]
    text = template.replace("[X]'s", possessive)
    text = re.sub(r"^\[X\]", pronoun, text)
    text = re.sub(
        r"\b(of|for|at|to|by|with|in|on|after|from|about|call|visit|use) \[X\]", rf"\1 {objective}", text
    )
    text = text.replace("[X]", pronoun)
    if pronoun == "they":
        text = re.sub(
            r"\b(is|was|does|has) they\b",
            lambda m: {"is": "are", "was": "were", "does": "do", "has": "have"}[m.group(1)] + " they",
            text,
        )
    opening = rng.choice(("", "", "", "And ", "Also, ", "OK, and ", "So ", "Thanks. "))
    return opening + (text[0].lower() + text[1:] if opening.startswith(("And", "OK", "So", "Also")) else text)
