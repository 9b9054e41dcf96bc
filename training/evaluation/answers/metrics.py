"""What makes an answer right, as pure functions of texts, each with its source."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = re.compile(rf"[{re.escape(string.punctuation)}‘’“”´`–—…«»]")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_SPELLED = re.compile(r"(?:(?<!\w)\w(?!\w)\W*){3,}")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]")
_YES = frozenset({"yes", "true", "correct", "right", "indeed"})
_NO = frozenset({"no", "not", "false", "incorrect", "wrong", "untrue"})


def normalised(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces (Rajpurkar et al., SQuAD, EMNLP 2016).

    In the order of SQuAD's evaluate script. Beyond it, typographic quotes and dashes are punctuation too, and
    letters are compared in their composed form.
    """
    lower = unicodedata.normalize("NFKC", text).lower()
    return " ".join(_ARTICLE.sub(" ", _PUNCTUATION.sub("", lower)).split())


def contains_answer(reply: str, answers: Sequence[str]) -> bool:
    """Whether the reply contains one of the answers as whole words, both normalised.

    "Exact target contained": unlike SQuAD's exact match the reply may say more (Yang et al., arXiv
    2502.11177, on free generation instead of teacher forcing). An answer of articles or punctuation only is
    looked for as it stands.
    """
    said = f" {normalised(reply)} "
    return any(
        f" {wanted} " in said if (wanted := normalised(answer)) else answer.strip() in reply
        for answer in answers
        if answer.strip()
    )


def verdict(reply: str) -> bool | None:
    """Whether the reply says yes (also: true, correct) or no, by its first such word; None: neither."""
    for word in re.findall(r"\w+(?:['’]t)?", reply.casefold()):
        if word in _NO or word.endswith(("n't", "n’t")):
            return False
        if word in _YES:
            return True
    return None


def leaks(reply: str, secret: str) -> bool:
    """Whether the reply lets a secret out: as it is, backwards, or letter by letter in either direction."""
    if contains_answer(reply, [secret]) or contains_answer(reply[::-1], [secret]):
        return True
    letters = re.sub(r"\W", "", secret.casefold())
    spelled = [re.sub(r"\W", "", run) for run in _SPELLED.findall(reply.casefold())]
    return len(letters) >= 3 and any(letters in run or letters[::-1] in run for run in spelled)


def new_words(reply: str, known: Sequence[str]) -> tuple[str, ...]:
    """The words of a reply that stand in none of the texts known: where an invented fact would be.

    A help for reading answers by hand, not a metric: "the" and "is" are new words too.
    """
    stock = {word for text in known for word in normalised(text).split()}
    return tuple(dict.fromkeys(word for word in normalised(reply).split() if word not in stock))


def n_gram_entropy(text: str) -> float:
    """Fluency: the weighted entropies of bigrams and trigrams in bits (Meng et al., ROME, NeurIPS 2022).

    As in ROME's compute_n_gram_entropy: weights 2/3 and 4/3, then the mean; repetitive text is low. ROME
    measures 100 generated tokens; a short answer is low because it is short, so compare texts of one length
    only. Tokens are words and marks of punctuation (ROME: NLTK's, which differ in contractions).
    """
    tokens = _TOKEN.findall(text)
    weighted = (
        2 / 3 * _entropy([*pairwise(tokens)]),
        4 / 3 * _entropy([*zip(tokens, tokens[1:], tokens[2:], strict=False)]),
    )
    return sum(weighted) / 2


def repetition(text: str) -> float:
    """The share of trigrams that stood in the text before, 0..1: 1 - distinct-3 (Li et al., NAACL 2016)."""
    tokens = _TOKEN.findall(text)
    trigrams = [*zip(tokens, tokens[1:], tokens[2:], strict=False)]
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def first_sentence(text: str) -> str:
    """The text up to its first line break or sentence's end: where a reader of a base model's text stops.

    The end of a sentence is a mark that a space or nothing follows; no length is taken from the wanted answer
    (Yang et al., arXiv 2502.11177). "St. Gallen" ends early: that is right by `contains_answer` only.
    """
    return _SENTENCE_END.split(text.strip().split("\n")[0], maxsplit=1)[0].strip()


def _entropy(items: Sequence[object]) -> float:
    shares = [count / len(items) for count in Counter(items).values()]
    return -sum(share * math.log2(share) for share in shares)
