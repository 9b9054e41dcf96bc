"""Hand-written contrast sets: one edit with queries that are in its scope and queries that only look so.

`contrast_sets/*.txt`, in the spirit of Gardner et al. 2020 (arXiv 2004.02709). A set begins with "= name";
`p:` holds edit prompts, `t:` new answers, `o:` other answers that users may believe, `x:` interchangeable
subjects, `z:` a lookalike of each subject, by position, separated by " ;; "; `l:` is the language of the
queries, `v:` another way to write each subject. Then one query a line, "+ kind | query" in scope or "- kind |
query" out of scope, with the slots [X] [Z] [V] [T] [O]; earlier turns stand before it, "S: … >> U: … >> A: …
>> query".
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from serac_gateway.domain.queries import Query
from training.data.conversations import Turn, chat_query, turns_of
from training.data.files import written_sets
from training.data.pairs import Pair
from training.data.phrasing import decorated

SETS = Path(__file__).parent / "contrast_sets"
HELD_OUT_ONE_IN = 8
"""Of this many sets one is kept from training, for the choice of the threshold."""
_VERDICTS = frozenset({"true", "false", "supports", "refutes", "yes", "no", "correct", "wrong"})
_PARTS = {
    "l": "language", "p": "prompts", "t": "targets", "o": "others", "x": "subjects", "z": "lookalikes",
    "v": "variants",
}  # fmt: skip
_OPTIONAL = {"language", "variants"}
_NOISE_SHARE = 0.12
_SWAP_SHARE = 0.3


class ContrastLine(msgspec.Struct, frozen=True, kw_only=True):
    """One query with slots."""

    in_scope: bool
    kind: str
    turns: tuple[Turn, ...]
    text: str


class ContrastSet(msgspec.Struct, frozen=True, kw_only=True):
    """One edit with slots and its queries."""

    name: str
    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    others: tuple[str, ...]
    subjects: tuple[str, ...]
    lookalikes: tuple[str, ...]
    lines: tuple[ContrastLine, ...]
    language: str = "en"
    """Of the queries, as a code such as de."""
    variants: tuple[str, ...] = ()
    """Another way to write each subject: an alias, or its name in the script of the language."""

    @property
    def is_held_out(self) -> bool:
        """Whether training leaves it out; settled by the name alone."""
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0

    @property
    def is_open_question(self) -> bool:
        """Whether its paraphrases may serve as its prompt: not so for verdicts and for instructions."""
        asks = any(prompt.endswith("?") for prompt in self.prompts)
        return asks and not any(target.casefold().strip(".") in _VERDICTS for target in self.targets)


class Filling(msgspec.Struct, frozen=True, kw_only=True):
    """What stands for the slots, and the prompt, of one edit made of a set."""

    prompt: str
    target: str
    other: str
    subject: str
    lookalike: str
    variant: str

    def fill(self, text: str) -> str:
        """`text` with its slots filled."""
        for slot, value in (("[X]", self.subject), ("[Z]", self.lookalike), ("[V]", self.variant),
                            ("[T]", self.target.rstrip(".")), ("[O]", self.other)):  # fmt: skip
            text = text.replace(slot, value)
        return text


def load_contrast_sets(folder: Path = SETS) -> list[ContrastSet]:
    """The sets of all files.

    Raises:
        ValueError: A line is malformed or a set lacks a part; the message names file and line.
    """
    return [_parsed(lines, f"{file} line {first}") for lines, file, first in written_sets(folder)]


def contrast_pairs(
    sets: Sequence[ContrastSet], rng: random.Random, passages: list[str], *, rounds: int
) -> Iterator[Pair]:
    """All queries of the sets that are not held out, `rounds` times, each time with another subject."""
    kept = [contrast for contrast in sets if not contrast.is_held_out]
    first = [rng.randrange(len(contrast.subjects)) for contrast in kept]
    for number in range(rounds):
        for contrast, place in zip(kept, first, strict=True):
            filling = filled_in(contrast, rng, (place + number) % len(contrast.subjects))
            for line in contrast.lines:
                query = query_of(filling, line)
                if query is None:
                    continue
                plain = contrast.language == "en" and not query.instructions
                noisy = plain and rng.random() < _NOISE_SHARE
                text = decorated(query.text, rng, passages) if noisy else query.text
                yield Pair(
                    prompt=filling.prompt, target=filling.target, text=text, context=query.context,
                    instructions=query.instructions,
                    in_scope=line.in_scope, kind=f"contrast, {line.kind}", subject=filling.subject,
                )  # fmt: skip


def filled_in(contrast: ContrastSet, rng: random.Random, place: int, *, own_prompts: bool = False) -> Filling:
    """An edit of the set about its subject number `place`, at times with a paraphrase as its prompt.

    With `own_prompts` never with a paraphrase.
    """
    prompts = contrast.prompts
    if not own_prompts and contrast.is_open_question and rng.random() < _SWAP_SHARE:
        plain = [
            line.text
            for line in contrast.lines
            if line.in_scope and line.kind == "paraphrase" and not line.turns
            and "[X]" in line.text and not re.search(r"\[[ZTO]\]", line.text)
        ]  # fmt: skip
        prompts = tuple(plain) or prompts
    draft = Filling(
        prompt=rng.choice(prompts), target=rng.choice(contrast.targets), other=rng.choice(contrast.others),
        subject=contrast.subjects[place], lookalike=contrast.lookalikes[place],
        variant=(contrast.variants or contrast.subjects)[place],
    )  # fmt: skip
    return msgspec.structs.replace(draft, prompt=draft.fill(draft.prompt), target=draft.fill(draft.target))


def query_of(filling: Filling, line: ContrastLine) -> Query | None:
    """The query of a line with its slots filled; None if the gateway decides on none."""
    turns = [Turn(role=turn.role, text=filling.fill(turn.text)) for turn in line.turns]
    return chat_query(turns, filling.fill(line.text))


def _parsed(lines: Sequence[str], where: str) -> ContrastSet:
    parts: dict[str, tuple[str, ...]] = {}
    queries = []
    for line in lines[1:]:
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] in _PARTS and line[1:3] == ": ":
            parts[_PARTS[line[0]]] = tuple(piece.strip() for piece in line[3:].split(";;"))
        elif match := re.match(r"([+-]) ([a-z -]+) \| (.+)", line):
            queries.append(_line(match[1] == "+", match[2], match[3], where))
        else:
            raise ValueError(
                f"{where}: {line!r} is neither a part nor a query; see training/data/contrasts.py"
            )
    missing = sorted(_PARTS.values() - parts.keys() - _OPTIONAL)
    subjects = len(parts.get("subjects", ()))
    if missing or not queries or len(parts["lookalikes"]) != subjects:
        raise ValueError(f"{where}: the set lacks {missing or 'queries, or a lookalike for every subject'!r}")
    if len(parts.get("variants", parts["subjects"])) != subjects:
        raise ValueError(f"{where}: the set has {len(parts['variants'])} variants of {subjects} subjects")
    (language,) = parts.pop("language", ("en",))
    return ContrastSet(name=lines[0][2:].strip(), lines=tuple(queries), language=language, **parts)


def _line(in_scope: bool, kind: str, text: str, where: str) -> ContrastLine:
    turns, query = turns_of(text.replace("\\n", "\n"), where)
    return ContrastLine(in_scope=in_scope, kind=kind, turns=turns, text=query)
