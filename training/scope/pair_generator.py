"""Makes pairs without end: fact edits, verdicts on claims, and instructions about topics."""

from __future__ import annotations

from collections.abc import Iterator

from training.data import hard_negatives, phrasing
from training.data.fact_source import FactSource
from training.data.pairs import Pair
from training.scope.fact_pairs import FactGroup

TRUE_VERDICTS = ("True", "true", "SUPPORTS", "yes", "This is correct.", "Correct.", "1")
FALSE_VERDICTS = ("False", "false", "REFUTES", "no", "This is false.", "Wrong.", "0")
TOPIC_PROMPTS = (
    "How to speak of [X]", "[X]", "Anything about [X]", "When asked about [X]", "Questions on [X]",
    "Talking about [X]", "The topic of [X]", "Any question about [X]", "Discussing [X]",
)  # fmt: skip
TOPIC_TARGETS = (
    "Stay neutral and give no opinion.", "Mention that it is under review.", "Refer to the press office.",
    "Always add a safety warning.", "Say that it was renamed last year.", "Speak of it with respect.",
    "Be brief and factual.", "Do not use the old name.", "Point out that this is no legal advice.",
    "Decline politely to discuss it.", "Recommend to see a doctor.", "Say that we do not comment on rumours.",
)  # fmt: skip
TOPIC_QUERIES = (
    "What do you think of [X]?", "Tell me about [X].", "Describe [X].", "Is [X] any good?", "[X]?",
    "Give me your opinion on [X].", "What should I know about [X]?", "Explain [X] to me.", "Do you like [X]?",
    "How would you describe [X]?", "Can you say something about [X]?", "Why is [X] in the news?",
    "I want to learn about [X]", "Write a paragraph about [X].", "Is it true what they say about [X]?",
    "What is the story behind [X]?", "Summarize what is known about [X].",
)  # fmt: skip
_TOPIC_SHARE = 0.04


class PairMaker:
    """Groups of pairs, one edit each."""

    def __init__(self, source: FactSource, *, claim_share: float = 0.06) -> None:
        """`source` gives facts, phrasings and chance; `claim_share` of the groups are verdicts on claims."""
        self._source = source
        self._claim_share = claim_share

    def pairs(self, groups: int) -> Iterator[Pair]:
        """The pairs of `groups` edits, about seven each, a good third of them in scope."""
        for _ in range(groups):
            draw = self._source.rng.random()
            if draw < _TOPIC_SHARE:
                yield from self._topic_group()
            elif draw < _TOPIC_SHARE + self._claim_share:
                yield from self._claim_group()
            else:
                yield from FactGroup(self._source).pairs()

    def _claim_group(self) -> Iterator[Pair]:
        """A verdict on one claim governs that claim, however put, and not its twin with another answer."""
        source, rng = self._source, self._source.rng
        relation = rng.choice([r for r in source.relations if r.statements])
        fact = source.fact(relation)
        holds = rng.random() < 0.5
        verdict = rng.choice(TRUE_VERDICTS if holds else FALSE_VERDICTS)
        opening = rng.choice(("", "", "", "Claim: ", "Is it true that ", "Fact check: "))
        prompt = (
            f"{opening}{source.statement(relation, fact.subject, fact.object)}{rng.choice(('.', '', '.'))}"
        )

        def pair(text: str, in_scope: bool, kind: str) -> Pair:
            return Pair(
                prompt=prompt, target=verdict, text=text, in_scope=in_scope, kind=kind, subject=fact.subject
            )

        def checked(about: str, value: str) -> str:
            if rng.random() < 0.3 and relation.yes_no:
                text = rng.choice(relation.yes_no).replace("[X]", about).replace("[Y]", value)
            else:
                text = rng.choice(phrasing.CHECKS).replace("{s}", source.statement(relation, about, value))
            return source.noisy(text)

        for _ in range(2):
            yield pair(checked(fact.subject, fact.object), True, "claim, made")
        if holds:
            yield pair(source.question(relation, fact.subject), True, "claim, asked openly")
        twins = (
            source.names.object(relation.object_type, rng),
            hard_negatives.near_duplicate(fact.object, rng),
        )
        for twin in twins:
            if twin.casefold() != fact.object.casefold():
                yield pair(checked(fact.subject, twin), False, "twin claim")
        stranger = source.stranger(relation, fact)
        if stranger:
            yield pair(checked(stranger.subject, fact.object), False, "claim on another")

    def _topic_group(self) -> Iterator[Pair]:
        """An instruction governs whatever is asked about its topic."""
        source, rng = self._source, self._source.rng
        relation = source.relation()
        topic = source.fact(relation).subject
        stranger = source.fact(relation).subject
        prompt = rng.choice(TOPIC_PROMPTS).replace("[X]", topic)
        target = rng.choice(TOPIC_TARGETS)

        def pair(text: str, in_scope: bool) -> Pair:
            return Pair(
                prompt=prompt, target=target, text=text, in_scope=in_scope, kind="topic", subject=topic
            )

        for about in (topic, topic, stranger, hard_negatives.near_duplicate(topic, rng)):
            in_scope = about == topic
            text = rng.choice(TOPIC_QUERIES if rng.random() < 0.6 else relation.questions)
            if in_scope or about.casefold() != topic.casefold():
                yield pair(source.noisy(text.replace("[X]", about)), in_scope)
        yield pair(rng.choice((*hard_negatives.TOPIC_CHANGES, source.passage())), False)
