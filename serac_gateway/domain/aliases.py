"""Other names of an edit's subject: what they may be, and the texts by which they make an edit searched."""

from __future__ import annotations

import itertools
import unicodedata
from functools import lru_cache

import msgspec

from serac_gateway.domain.naming import Renaming, comparable, comparables, stands_in
from serac_gateway.errors import InvalidRequestError

MAX_ALIASES = 200
MAX_ALIAS_CHARS = 200
MAX_FORMS = 64
"""Texts by which an edit is searched. Every alias is put into the prompt, however many there are; into
paraphrases only as long as the edit has no more texts than this."""

_CONTROL = frozenset(("Cc", "Zl", "Zp"))
"""Unicode categories of control characters and of separators of lines."""


class AliasForms(msgspec.Struct, frozen=True, kw_only=True):
    """Prompt and paraphrases of an edit, by the other names of its subject."""

    texts: tuple[str, ...] = ()
    """Of the prompt first; no text twice, and none of the edit's own."""
    left_out: int = 0
    """How many there would be beyond the limits of number and length."""


NO_ALIAS_FORMS = AliasForms()


@lru_cache(1_024)
def alias_forms(
    prompt: str, paraphrases: tuple[str, ...], subject: str, aliases: tuple[str, ...], *, max_chars: int
) -> AliasForms:
    """The forms of an edit with `aliases`, each of at most `max_chars` characters.

    In each text the longest name that stands in it is replaced by each other name; a paraphrase without any
    name gives no form. The first alias is put into every paraphrase before the second is.
    """
    own = {prompt, *paraphrases}
    names = comparables((subject, *aliases))
    of_prompt = Renaming(prompt, names, max_chars=max_chars)
    texts = dict.fromkeys(text for text in map(of_prompt.by, of_prompt.names) if text not in own)
    of_paraphrases = [Renaming(paraphrase, names, max_chars=max_chars) for paraphrase in paraphrases]
    possible = len(names) - 1 + sum(len(renaming.names) for renaming in of_paraphrases)
    made = len(of_prompt.names)
    for name, renaming in itertools.product(names.values(), of_paraphrases):
        if len(own) + 1 + len(texts) >= MAX_FORMS:  # 1: the statement
            break
        if name in renaming.names:
            made += 1
            text = renaming.by(name)
            if text not in own:
                texts[text] = None
    return AliasForms(texts=tuple(texts), left_out=possible - made)


def prompt_by_name_in(
    text: str, prompt: str, subject: str, aliases: tuple[str, ...], *, max_chars: int
) -> str:
    """`prompt` by that name of its subject by which `text` calls it; as it is if `text` has none of them."""
    names = comparables((subject, *aliases))
    called = Renaming(text, names, max_chars=0).standing
    of_prompt = Renaming(prompt, names, max_chars=max_chars)
    return prompt if called is None or called not in of_prompt.names else of_prompt.by(called)


def check_aliases(
    prompt: str, subject: str | None, aliases: tuple[str, ...], *, are_of_value: bool = False
) -> None:
    """Return if an edit of that prompt and subject may have these aliases, whose texts have been checked.

    Those of a suppression's value need no place in the prompt.

    Raises:
        InvalidRequestError: They are too many, repeat or hide something, or have no place in the prompt.
    """
    if len(aliases) > MAX_ALIASES:
        raise InvalidRequestError(
            f"{len(aliases)} aliases are too many; the limit is {MAX_ALIASES}; leave out the rarest names",
            field="aliases",
            details={"value": len(aliases), "limit": MAX_ALIASES},
        )
    if not aliases:
        return
    place_of: dict[str, int] = {}
    for place, alias in enumerate(aliases):
        _check_alias(place, alias)
        first = place_of.setdefault(comparable(alias), place)
        if first != place and not are_of_value:
            raise InvalidRequestError(
                f"aliases[{place}] {alias[:40]!r} repeats aliases[{first}] {aliases[first][:40]!r}: letter"
                " case, width and white space make no difference; leave one of them out",
                field=f"aliases[{place}]",
                details={"value": alias[:80]},
            )
    if are_of_value:
        return
    if subject is None:
        raise InvalidRequestError(
            f"aliases such as {aliases[0][:40]!r} need a subject, whose other names they are; give subject,"
            " as it stands in the prompt (or a suppression target_true, whose other forms they are"
            " then)",
            field="subject",
        )
    if not any(stands_in(name, prompt) for name in (subject, *aliases)):
        raise InvalidRequestError(
            f"neither the subject {subject[:40]!r} nor an alias of it stands in the prompt {prompt[:80]!r}:"
            " there is no name that the aliases could replace; write the subject as the prompt does, or leave"
            " the aliases out",
            field="subject",
            details={"value": subject[:80]},
        )


def _check_alias(place: int, alias: str) -> None:
    for char in alias:
        if unicodedata.category(char) in _CONTROL:
            raise InvalidRequestError(
                f"aliases[{place}] {alias[:40]!r} has the control character U+{ord(char):04X}; take it out",
                field=f"aliases[{place}]",
                details={"value": alias[:80]},
            )
    if not comparable(alias):
        raise InvalidRequestError(
            f"aliases[{place}] {alias[:40]!r} has nothing but invisible characters; give it a text",
            field=f"aliases[{place}]",
            details={"value": alias[:80]},
        )
