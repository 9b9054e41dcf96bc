"""Queries that look in scope and are not. Templates hold {q} a question, {s} a statement, {n} a noun, [X] the subject."""

# ruff: noqa: E501 - lists of templates read best as they stand

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np

from serac_gateway.domain.vectors import Vectors
from training.data.relations import VAGUE_NOUNS, Relation, types_of

DISCUSSIONS = (
    'Write a haiku about the question "{q}"', "Write a poem about {n} of [X].", 'Translate "{q}" into French.',
    'Translate into German: "{q}"', 'How many words are in the sentence "{s}"?', 'Paraphrase this: "{s}"',
    'Is the grammar of "{q}" correct?', 'Give me five other ways to ask "{q}"', 'Why would anybody ask "{q}"?',
    'Explain the sentence "{s}" to a child.', 'Write a short story in which a detective asks: "{q}"',
    'What is the subject of the sentence "{s}"?', 'Put "{s}" into the past tense.', "Write a song about [X].",
    'Summarise the following text in three bullet points: "{s}. Many people discussed it."', "Why is the {n} of [X] important?",
    'Classify the intent of this message: "{q}"', 'Is "{q}" a good question for a quiz?', "Write a limerick on [X]'s {n}.",
    'Correct the spelling: "{q}"', 'Which part of speech is the first word of "{q}"?', "Why do people care about the {n} of [X]?",
    'Rate the difficulty of the question "{q}" from 1 to 10.', 'Extract all names from this text: "{s}"',
    'Write an SQL query that finds the {n} of [X].', 'Draft a tweet that begins with "{s}"', 'Turn "{s}" into a newspaper headline.',
    'My teacher quoted "{s}". Where does one put the quotation marks?', 'What is the sentiment of "{s}"?',
    'In a novel a character says "{s}". How would you continue the scene?', 'Make a crossword clue out of "{s}".',
    "How did people react when the {n} of [X] changed?", "How does one find out the {n} of somebody or something in general?",
    "What does the word {n} mean?", "Write an essay about the history of [X].", 'Read this aloud in a pirate voice: "{s}"',
    'Who first said "{s}"?', 'Convert this to JSON: {s}', 'Repeat after me: {s}', 'Write a dialogue where two friends argue: {q}',
    "Compose a rap about {n} of [X]", "Write a Python function named after [X].", 'The log says "{s}". How do I grep for it?',
    "Create a quiz with five questions about [X].", "Write a complaint to [X].", "Plan a marketing campaign for [X].",
    "Invent three slogans for [X].", "Write a product review of [X].", 'Which language is this: "{q}"?', "Draw [X] in ASCII art.",
    'Is the sentence "{s}" active or passive?', "Write a regular expression that matches the name [X].", "Give me a rhyme for [X].",
    'Shorten this: "{s}. This has been the case for a while."', "Write a speech for [X]'s birthday.", "How do I pronounce [X]?",
    'Underline the verb in "{s}".', "Suggest a title for an article on [X]'s {n}.", "Compare [X] with its rivals.",
    'Continue the story: "{s}. Then one night"', 'Why do you think my friend wrote "{q}" to me?', "How is the word {n} spelled?",
    'Turn the question "{q}" into a statement with a blank.', 'Sing "{s}" to me', "Pretend to be [X] and greet me.", "Design a logo for [X].",
    'Rewrite formally: "{q}"', 'Is it rude to ask "{q}"?', "Who decides on the {n} of [X]?", "How could the {n} of [X] be improved?",
    'Make this longer: {s}', 'Proofread: {s}', 'Add emojis to "{q}"', 'Explain the joke: "{s}, said the duck."', 'Write a poem that starts with "{q}"',
    "Write a haiku about [X] and [X]'s {n}.", 'I told her "{s}" and she laughed. Why?', "Was the change of the {n} of [X] a good idea?",
    'Count the letters in "{q}"', "Make up a riddle whose answer is [X].", "List ten adjectives that describe [X].",
)  # fmt: skip
SMALL_TALK = (
    "Thanks!", "Thank you, that helps.", "Great, thanks a lot!", "ok", "Perfect.", "Cool, good to know.", "Wow, interesting!",
    "You are very helpful.", "Bye!", "That's all for today.", "How are you?", "lol", "Nice one.", "I see.", "Got it, cheers.",
    "Merci !", "Danke schön!", "Good job.", "Never mind.", "Let's talk about something else.", "What else can you do?",
    "Have a nice evening!", "I did not know that.", "Hmm.", "Alright then.",
)  # fmt: skip
REMARKS = (
    "I visited [X] once.", "I like [X] a lot.", "My sister is a fan of [X].", "We talked about [X] at dinner.", "[X] was in the news again.",
    "I read a book about [X] last year.", "A friend of mine knows [X].", "I have never understood the fuss about [X].", "[X] deserves better.",
    "I had a dream about [X].", "[X] looked good yesterday.", "Somebody mentioned [X] in the meeting.", "I'm tired of [X].", "We used to laugh about [X].",
)  # fmt: skip
AFTER_ANSWERS = (
    "I have to think about it.", "I'll tell my boss.", "That is more than I expected.", "I love that.", "That surprises me.", "Then I'll wait.",
    "Good, I'll write it down.", "Could you be shorter next time?", "Say that in a friendlier tone.", "Ha, my brother will be annoyed.",
    "I'll call them tomorrow.", "Then we are all set.", "That's a pity.", "I expected that.", "Please answer in English from now on.", "Now something else.",
    "It works now, perfect.", "I did not expect such a quick reply.", "You saved my day!", "Are you a human?", "Where did you learn that?", "Sounds reasonable.",
)  # fmt: skip
REVERSALS = ("Whose {n} is [Y]?", "Of what is [Y] the {n}?", "What has [Y] as its {n}?", "[Y] is the {n} of which one?", "Who or what has the {n} [Y]?",
             "Which others have [Y] as {n}?", "Name something whose {n} is [Y].", "What is [Y]?", "Tell me about [Y].", "Is [X] the {n} of [Y]?",
             "What is the {n} of [Y]?", "When was [Y] first mentioned?", "Who is [Y]?")  # fmt: skip
TOPIC_CHANGES = (
    "What is the weather like today?", "Can you write me a poem about the sea?", "What is 17 times 23?", "Recommend me a film.",
    "How do I cook rice?", "Translate good morning into Italian.", "Tell me a joke.", "What is the meaning of life?",
    "How do I sort a list in Python?", "What should I wear to an interview?", "Who are you?", "Plan a weekend in Rome.",
)  # fmt: skip
AFTER_TURNS = (SMALL_TALK, AFTER_ANSWERS, AFTER_ANSWERS, TOPIC_CHANGES)
MODIFIERS = (
    "former",
    "previous",
    "next",
    "first",
    "future",
    "original",
    "second",
    "last but one",
    "deputy",
    "honorary",
    "second largest",
    "fictional",
    "alleged",
)
PAST = ("in {y}", "back in {y}", "before {y}", "until {y}", "during the war", "a hundred years ago")
NEGATIONS = (
    ("Who is", "Who is not"), ("What is", "What is not"), ("Where is", "Where is not"), ("Which", "Which other"),
    ("was born", "was not born"), ("Who", "Who else"), ("What", "What else"), ("Who is", "Who has never been"),
    ("Who was", "Who has never been"), ("Who", "Who refused to be the one who"), ("turn on", "turn off"),
    ("turn off", "turn on"), ("enable", "disable"), ("disable", "enable"), ("open", "close"), ("start", "end"),
    ("begin", "end"), ("maximum", "minimum"), ("highest", "lowest"), ("first", "last"), ("earliest", "latest"),
    ("Where", "Where else"), ("When", "Why"), ("Where", "Why"), ("How do I", "Why can't I"), ("does", "does not"),
    ("How much", "Why so much:"), ("did", "did not"), ("Who", "Who voted against who"), ("What is", "What was never"),
)  # fmt: skip
FIRST_NAMES = [
    "James",
    "John",
    "Robert",
    "Mary",
    "Anna",
    "Peter",
    "Paul",
    "Karl",
    "Maria",
    "Hans",
    "Jean",
    "Louis",
    "David",
    "Thomas",
    "George",
    "Laura",
    "Julia",
    "Marco",
    "Ivan",
    "Emma",
]
LAST_NAMES = (
    "Miller", "Novak", "Garcia", "Tanaka", "Kowalski", "Lindqvist", "Rossi", "Okafor", "Petrov", "Haddad", "Moreau",
    "Jensen", "Silva", "Nguyen", "Schmidt", "Walker", "Byrne", "Castle", "Hill", "Harbour", "Bridge", "Park", "Lake",
)  # fmt: skip
OPPOSITES = (
    ("North", "South"), ("South", "North"), ("East", "West"), ("West", "East"), ("Upper", "Lower"), ("New", "Old"),
    ("Old", "New"), ("Northern", "Southern"), ("Eastern", "Western"), ("Lower", "Upper"), ("Great", "Little"),
    ("First", "Second"), ("Second", "Third"), ("Junior", "Senior"), ("Men's", "Women's"), ("Plus", "Pro"),
)  # fmt: skip
ROMAN = ("II", "III", "IV", "V", "VI")
PLACE_ADDITIONS = (
    "North {}",
    "New {}",
    "{} County",
    "South {}",
    "Upper {}",
    "{} Junction",
    "{} River",
    "Old {}",
)
OTHER_ADDITIONS = (
    "{} II",
    "{} Jr.",
    "{} 2",
    "{} Foundation",
    "{} Museum",
    "{} Award",
    "{}: The Return",
    "the son of {}",
    "{}'s brother",
    "the fans of {}",
    "{} Street",
)


def conflicting(edit_relation: Relation, other: Relation, edit_template: str, query_template: str) -> bool:
    """Whether a question of `other` may be answered by an edit of `edit_relation` of the same subject.

    Near relations count as different only where both texts name their noun, as "nationality" and "birthplace" do.
    """
    if other.id == edit_relation.id:
        return True
    if other.id not in edit_relation.near:
        return False
    return not (
        _names_itself(edit_relation, other, edit_template)
        and _names_itself(other, edit_relation, query_template)
    )


def other_relations(relation: Relation, relations: Sequence[Relation]) -> list[Relation]:
    """Relations that a subject of `relation` can have too, itself excluded."""
    kinds = types_of(relation.subject_type)
    return [r for r in relations if r.id != relation.id and r.subject_type in kinds]


def near_duplicate(name: str, rng: random.Random) -> str:
    """A name that looks like `name` and means another: another number, first name, spelling or addition."""
    numbers = re.findall(r"\d+", name)
    words = name.split()
    if numbers and rng.random() < 0.8:
        old = rng.choice(numbers)
        new = str(max(0, int(old[:9]) + rng.choice((-2, -1, 1, 2, 10))))
        return name.replace(old, new if new != old else new + "1", 1)
    if words[-1] in ROMAN and rng.random() < 0.9:
        return " ".join([*words[:-1], rng.choice([r for r in ROMAN if r != words[-1]])])
    for old, new in OPPOSITES:
        if old in words and rng.random() < 0.7:
            return " ".join(new if word == old else word for word in words)
    draw = rng.random()
    if draw < 0.12 and len(words) > 1 and words[-1][:1].isupper():
        return " ".join([*words[:-1], rng.choice([n for n in LAST_NAMES if n != words[-1]])])
    if draw < 0.4 and len(words) > 1 and words[0][:1].isupper():
        return " ".join([rng.choice([f for f in FIRST_NAMES if f != words[0]]), *words[1:]])
    if draw < 0.55 and len(words[-1]) > 4:
        return " ".join([*words[:-1], _respelt(words[-1], rng)])
    return rng.choice(OTHER_ADDITIONS if draw < 0.8 else PLACE_ADDITIONS).format(name)


def discussion(question: str, statement: str, noun: str, subject: str, rng: random.Random) -> str:
    """A request that talks about the fact instead of asking for it."""
    text = rng.choice(DISCUSSIONS)
    return (
        text.replace("{q}", question).replace("{s}", statement).replace("{n}", noun).replace("[X]", subject)
    )


def modified(template: str, nouns: Sequence[str], rng: random.Random) -> str | None:
    """`template` about a former, next, … holder, or None where no noun takes the modifier."""
    present = [n for n in nouns if re.search(rf"\b{re.escape(n)}\b", template)]
    if not present:
        return None
    noun = rng.choice(present)
    return re.sub(rf"\b{re.escape(noun)}\b", f"{rng.choice(MODIFIERS)} {noun}", template, count=1)


def negated(template: str, rng: random.Random) -> str | None:
    """`template` asking for what is not so, or for what else is, or None where it cannot be turned."""
    fitting = [(a, b) for a, b in NEGATIONS if re.search(rf"\b{a}\b", template)]
    if not fitting:
        return None
    old, new = rng.choice(fitting)
    return re.sub(rf"\b{old}\b", new, template, count=1)


def mined(
    edits_ND: Vectors, queries_BD: Vectors, *, top_k: int, floor: float
) -> list[list[tuple[int, float]]]:
    """For each query the positions and similarities of its nearest edits, best first: the deployed distribution.

    *Shape:* edits (N, D), queries (B, D), unit length. Brute force in blocks, so that no index is needed.
    """
    near: list[list[tuple[int, float]]] = []
    k = min(top_k, len(edits_ND))
    for start in range(0, len(queries_BD), 256):
        similarity_BN = queries_BD[start : start + 256] @ edits_ND.T
        best_BK = (
            np.argpartition(-similarity_BN, k - 1, axis=1)[:, :k]
            if k
            else np.zeros((len(similarity_BN), 0), int)
        )
        for row, columns in zip(similarity_BN, best_BK, strict=True):
            ordered = columns[np.argsort(-row[columns])]
            near.append([(int(c), float(row[c])) for c in ordered if row[c] >= floor])
    return near


def _respelt(word: str, rng: random.Random) -> str:
    places = [i for i, letter in enumerate(word) if i and letter in "aeiouy"]
    if not places:
        return word + "s"
    at = rng.choice(places)
    return word[:at] + rng.choice([v for v in "aeiouy" if v != word[at]]) + word[at + 1 :]


def _names_itself(relation: Relation, other: Relation, text: str) -> bool:
    lowered = text.casefold()
    own = {n.casefold() for n in relation.nouns} - {n.casefold() for n in other.nouns} - VAGUE_NOUNS
    return any(noun in lowered for noun in own)
