"""Splits texts into the pieces of multilingual-e5-small, from the vocabulary in its file alone.

The segmentation of a word is the most probable one under a unigram model (Kudo, arXiv 1804.10959). Ids are
those of Hugging Face's `tokenizers` for the same vocabulary, which needs 280 MB and a second to open its
250,000 pieces; a dictionary needs 40 MB and a quarter of the time. Texts that spell a special piece, as
``</s>``, get the pieces of its characters here: no text can end itself.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache
from typing import Final

from serac_gateway.models.e5.file import Vocabulary

_DROPPED: Final = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]")
_SPACES: Final = re.compile("[\t\n\x0c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]")
"""What the model's normaliser makes a space; NFKC does the others."""
_WORD_START: Final = "\u2581"
_UNKNOWN_PENALTY: Final = 10.0
"""An unknown character is this much less probable than the rarest piece, as SentencePiece has it."""
_MASK: Final = "<mask>"
_CACHED_WORDS: Final = 16_384
_LONGEST_CACHED: Final = 48
"""Characters of a word whose pieces are remembered."""


class E5Tokenizer:
    """One instance serves all threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._first, self._last = vocabulary.first_id, vocabulary.last_id
        self._unknown = vocabulary.unknown_id
        self._log_probabilities = vocabulary.log_probabilities
        self._ids = {piece: number for number, piece in enumerate(vocabulary.pieces)}
        special = [vocabulary.first_id, vocabulary.last_id, vocabulary.pad_id, vocabulary.unknown_id]
        for piece in [*(vocabulary.pieces[number] for number in special), _MASK]:
            self._ids.pop(piece, None)
        self._longest = max(map(len, self._ids), default=1)
        self._letters = frozenset().union(*self._ids)
        self._unknown_log_probability = min(vocabulary.log_probabilities) - _UNKNOWN_PENALTY
        self._remembered = lru_cache(_CACHED_WORDS)(self._segmented)

    def single(self, text: str, max_tokens: int) -> list[int]:
        """``<s> text </s>``: the ids of at most `max_tokens` tokens, more than 2."""
        return [self._first, *self._pieces(text, max_tokens - 2), self._last]

    def pair(self, first: str, second: str, max_tokens: int) -> tuple[list[int], list[int]]:
        """``<s> first </s> </s> second </s>``: ids and token types of at most `max_tokens` tokens, over 4.

        The longer text is cut until both are of the same length, then both by half. *Shapes:* (L,), (L,).
        """
        room = max_tokens - 4
        first_ids, second_ids = self._pieces(first, room), self._pieces(second, room)
        if len(first_ids) + len(second_ids) > room:
            shorter = min(len(first_ids), len(second_ids), room // 2)
            longer = room - shorter
            is_first_longer = len(first_ids) > len(second_ids)
            first_ids = first_ids[: longer if is_first_longer else shorter]
            second_ids = second_ids[: shorter if is_first_longer else longer]
        ids = [self._first, *first_ids, self._last, self._last, *second_ids, self._last]
        return ids, [0] * (len(first_ids) + 2) + [1] * (len(second_ids) + 2)

    def unreadable(self, text: str) -> frozenset[str]:
        """The characters of `text` that no piece has: each of them is the unknown piece.

        Whole scripts (Cherokee, Tifinagh, Gothic), rare ideographs, recent emoji, white space.
        """
        return frozenset(unicodedata.normalize("NFKC", text)) - self._letters

    def word_probability(self, word: str) -> float:
        """The share of all pieces that are `word`, in whatever case; 0.0 if no piece is the whole word."""
        spellings = {word, word.lower(), word.upper(), word.capitalize()}
        ids = [self._ids.get(_WORD_START + spelling) for spelling in spellings]
        return sum(math.exp(self._log_probabilities[piece]) for piece in ids if piece is not None)

    def _pieces(self, text: str, limit: int) -> list[int]:
        """The ids of the first `limit` pieces of `text`; the time is bounded whatever its length is."""
        spaced = _SPACES.sub(" ", _DROPPED.sub("", text))
        longest_word = self._longest * (limit + 4)  # no more characters can be in so many pieces
        ids: list[int] = []
        for word in unicodedata.normalize("NFKC", spaced).split():
            started = _WORD_START + word[:longest_word]
            ids += self._remembered(started) if len(started) <= _LONGEST_CACHED else self._segmented(started)
            if len(ids) >= limit:
                break
        return ids[:limit]

    def _segmented(self, word: str) -> tuple[int, ...]:
        """The most probable pieces; of equally probable ones that with the longest first."""
        size = len(word)
        best = [0.0, *[-float("inf")] * size]  # of the pieces up to each place
        begins = [0] * (size + 1)
        ids = [self._unknown] * (size + 1)
        known, log_probabilities, longest = self._ids.get, self._log_probabilities, self._longest
        for begin in range(size):
            here = best[begin]
            for end in range(begin + 1, min(begin + longest, size) + 1):
                piece = known(word[begin:end])
                if piece is not None and here + log_probabilities[piece] > best[end]:
                    best[end], begins[end], ids[end] = here + log_probabilities[piece], begin, piece
            if word[begin] not in self._ids and here + self._unknown_log_probability > best[begin + 1]:
                best[begin + 1] = here + self._unknown_log_probability
                begins[begin + 1], ids[begin + 1] = begin, self._unknown
        backwards: list[int] = []
        end = size
        while end > 0:
            is_same_gap = ids[end] == self._unknown and backwards[-1:] == [self._unknown]
            if not is_same_gap:  # unknown characters in a row are one unknown piece
                backwards.append(ids[end])
            end = begins[end]
        return tuple(reversed(backwards))
