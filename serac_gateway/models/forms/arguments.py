"""The names and words that a request gives for the form of its answer: as it writes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

MAX_LITERAL_CHARS = 200
_CLOSING = {
    '"': '"', "'": "'", "`": "`", "“": "”“", "„": "“”\"", "”": "”", "«": "»", "»": "«", "‘": "’", "‚": "‘’",
    "「": "」", "『": "』", "‹": "›", "＂": "＂",
}  # fmt: skip
"""What may close each opening quotation mark."""
_MEMBER = re.compile(r"[{,]\s{0,4}[\"'“”`]?([^\s\"'“”`{}\[\]:,]{1,60})[\"'“”`]?\s{0,4}[:：]")
"""A member in a written-out object: {"answer": …}."""
_TAG = re.compile(r"<\s{0,2}/?\s{0,2}([^\W\d][\w.-]{0,60})\s{0,2}/?>")
_BULLET = re.compile(r"(?:^|[\s(\"'`«“„「])([*•‣–—-]|1[.)])(?=$|[\s.)\"'`»”“」])")
_BEFORE, _BEHIND = 4, 2
"""Words around one that may be a name, by which it is judged."""
_JOINED = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z][A-Za-z0-9]{0,40}_[A-Za-z0-9_]{1,40}")
_CLAUSE = re.compile(r"[^,;:.!?–—、，；：。！？]*")
_LAST = re.compile(r"[:：]\s{0,4}([^\W\d][\w-]{0,60})[\s.。!]{0,4}$")
_LATIN = r"A-Za-z0-9_\u00c0-\u024f"
_NAME = re.compile(rf"[{_LATIN}]+(?:[.-][{_LATIN}]+)*|[^\W{_LATIN}]+")
"""A word; letters of the Latin alphabet end at those of another, as before a Korean or Japanese particle."""
_LEAST_FOREIGN = 3
"""Letters of another script in a text that is not Latin itself."""
_LATIN_WORD = re.compile(rf"[{_LATIN}]+(?:[.-][{_LATIN}]+)*")


def written_keys(text: str) -> tuple[str, ...]:
    """The names of members, elements or columns that signs of `text` mark as such, each once.

    Those of a written-out object, else of tags, else what stands in quotation marks, else words joined by a
    low line.
    """
    members = _MEMBER.findall(text[text.index("{") :]) if "{" in text else []
    names = members or _TAG.findall(text) or [each for each in quoted(text) if _is_name(each)]
    return tuple(dict.fromkeys(names or _JOINED.findall(text)))


def last_name(text: str) -> str | None:
    """The word behind a colon with which `text` ends; None: it ends otherwise."""
    match = _LAST.search(text)
    return None if match is None else match[1]


def gapped(text: str, gap: str) -> list[tuple[str, str]]:
    """Each word of `text` that may be a name, with the words around it and `gap` in its place."""
    spans = [match.span() for match in _NAME.finditer(text)]
    around: list[tuple[str, str]] = []
    for place, (begin, end) in enumerate(spans):
        first = spans[max(0, place - _BEFORE)][0]
        last = spans[min(len(spans) - 1, place + _BEHIND)][1]
        behind = _CLAUSE.match(text[end:last])
        around.append((text[begin:end], f"{text[first:begin]}{gap}{behind[0] if behind else ''}"))
    return around


def written_object(text: str) -> str | None:
    """The object with named members that `text` leaves to be filled, as {"answer": …}; None: it has none."""
    begin, end = text.find("{"), text.rfind("}")
    written = text[begin : end + 1] if 0 <= begin < end else ""
    is_open = _MEMBER.match(written) is not None and all(len(each.split()) < 3 for each in quoted(written))
    return written if is_open else None


def written_beginning(text: str) -> str | None:
    """The words with which `text` says that the answer begins: in quotation marks, or behind a colon."""
    if literals := quoted(text):
        return literals[0]
    _, colon, behind = text.partition(":")
    return behind.strip()[:MAX_LITERAL_CHARS] or None if colon else None


def written_marks(text: str) -> tuple[str, str] | None:
    """The quotation marks that `text` shows with nothing between them."""
    for begin, sign in enumerate(text):
        rest = text[begin + 1 :].lstrip()
        if sign in _CLOSING and rest[:1] and rest[0] in _CLOSING[sign]:
            return sign, rest[0]
    return None


def written_bullet(text: str) -> str | None:
    """The sign of a list, or the first number, that `text` shows by itself."""
    match = _BULLET.search(text)
    return None if match is None else match[1]


def foreign_name(text: str, *, besides: Collection[str] = ()) -> str | None:
    """The only Latin word of a text in another script, `besides` some; None: there are several, or none."""
    words = [match[0] for match in _NAME.finditer(text)]
    latin = [word for word in words if _LATIN_WORD.fullmatch(word)]
    names = [word for word in latin if word.casefold() not in besides]
    others = sum(map(len, words)) - sum(map(len, latin))
    return names[0] if len(names) == 1 and others >= _LEAST_FOREIGN else None


def quoted(text: str) -> list[str]:
    """What stands in quotation marks of any language, in order. An apostrophe within a word is none."""
    inner = (text[begin + 1 : end].strip() for begin, end in _quotations(text))
    return [each for each in inner if each]


def without_quoted(text: str) -> str:
    """`text` with a sign in the place of what stands in quotation marks: it says nothing of the form."""
    kept, place = "", 0
    for begin, end in _quotations(text):
        kept += f"{text[place : begin + 1]}…"
        place = end
    return kept + text[place:]


def _quotations(text: str) -> Iterator[tuple[int, int]]:
    """Where the quotation marks of each quotation stand."""
    place = 0
    while place < len(text):
        end = _end_of_quote(text, place)
        if end is not None:
            yield place, end
        place = place + 1 if end is None else end + 1


def _end_of_quote(text: str, begin: int) -> int | None:
    """Where the quotation that begins there is closed; None: none begins there."""
    sign = text[begin]
    closing = _CLOSING.get(sign)
    if closing is None or (sign in "'\"" and begin and text[begin - 1].isalnum()):
        return None
    window = text[begin + 1 : begin + 1 + MAX_LITERAL_CHARS]
    for offset, letter in enumerate(window):
        end = begin + 1 + offset
        after = text[end + 1 : end + 2]
        if letter in closing and not (letter in "'’" and after.isalnum()):
            return end
    return None


def _is_name(text: str) -> bool:
    return len(text.split()) <= 3 and not text.endswith((".", "…", "?", "!"))
