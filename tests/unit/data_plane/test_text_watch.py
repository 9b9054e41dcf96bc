"""The watch for values in a text: every way to write them, at whatever pieces, and nothing else."""

from __future__ import annotations

import base64
import html
import json
import random
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.data_plane.guard.patterns import Match, Patterns, patterns_of
from serac_gateway.data_plane.guard.text_watch import TextWatch

PASSWORD, PHONE, PIN, PERSON, NAME = "pelican77", "555-0199", "4711", "Ottilie Brandvold", "Anna"
MARIA = "Мария Иванова"
VALUES = (PASSWORD, PHONE, PIN, PERSON, NAME, MARIA)
PATTERNS = patterns_of(VALUES)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


WRITTEN = {
    "as it is": PASSWORD,
    "capitals": "PELICAN77",
    "hyphen": "Pelican-77",
    "letter by letter": "p e l i c a n 7 7",
    "a letter a line": "\n".join(PASSWORD),
    "full width": "ｐｅｌｉｃａｎ７７",
    "mathematical letters": "𝗽𝗲𝗹𝗶𝗰𝗮𝗻𝟳𝟳",
    "circled": "ⓟⓔⓛⓘⓒⓐⓝ⑦⑦",
    "zero-width spaces": "\u200b".join(PASSWORD),
    "soft hyphens": "peli\u00adcan\u00ad77",
    "byte order marks": "\ufeff".join(PASSWORD),
    "accents": "pélïcän77",
    "combining accents": "pe\u0301lican77",
    "bold in the middle": "p**elica**n77",
    "tags": "<b>pel</b><i class='x'>ican</i>77",
    "superscripts": "pelican⁷⁷",
    "digits in words": "pelican seven seven",
    "a number in words": "pelican seventy-seven",
    "German": "pelican siebenundsiebzig",
    "Finnish": "pelican seitsemän seitsemän",
    "phone, digits alone": "5550199",
    "phone, spaces": "555 0199",
    "phone, brackets": "(555) 0199",
    "phone, dots": "5.5.5.0.1.9.9",
    "phone, in words": "five five five, zero one nine nine",
    "phone, as read out": "five fifty-five oh one ninety-nine",
    "phone, French": "cinq cinq cinq zéro un neuf neuf",
    "phone, Russian": "пять пять пять ноль один девять девять",
    "phone, Chinese": "五五五〇一九九",
    "phone, Hindi digits": "५५५०१९९",
    "phone, Arabic digits": "٥٥٥٠١٩٩",
    "phone, words without spaces": "fivefivefivezerooneninenine",
    "phone, words and digits": "five 5 five 01 nine 9",
    "PIN in words": "four seven one one",
    "reversed": "77nacilep",
    "phone reversed": "9910-555",
    "percent": "".join(f"%{byte:02X}" for byte in PASSWORD.encode()),
    "percent, one letter": "p%65lican77",
    "URL": quote("Ottilie Brandvold"),
    "entities": "".join(f"&#{ord(char)};" for char in PASSWORD),
    "hex entities": "".join(f"&#x{ord(char):x};" for char in PASSWORD),
    "a named entity": html.escape("Ottilie&nbsp;Brandvold").replace("&amp;", "&"),
    "JSON escapes": "".join(f"\\u{ord(char):04x}" for char in PASSWORD),
    "JSON escape of a line": "Ottilie\\nBrandvold",
    "Python escapes": "".join(f"\\x{ord(char):02x}" for char in PASSWORD),
    "JSON escapes of another script": json.dumps("Мария Иванова"),
    "braced escapes": "p\\u{65}lican77",
    "quoted printable": "=70=65lican77",
    "escapes of UTF-8": "p%C3%A9lican77",
    "hex": PASSWORD.encode().hex(),
    "hex, capitals": PASSWORD.encode().hex().upper(),
    "hex bytes": PASSWORD.encode().hex(" "),
    "hex with colons": PASSWORD.encode().hex(":"),
    "hex with 0x": ", ".join(f"0x{byte:02x}" for byte in PASSWORD.encode()),
    "hex after a digit": "7" + PASSWORD.encode().hex(),
    "hex of a sentence": b"It is PELICAN-77.".hex(),
    "hex of a PIN": b"4711".hex(),
    "base64": base64_of(PASSWORD),
    "base64, one more": base64_of("x" + PASSWORD),
    "base64, two more": base64_of("xy" + PASSWORD),
    "base64 of a sentence": base64_of("The password is Pelican 77, of course."),
    "base64 of URLs": base64.urlsafe_b64encode("Übrigens: pelican77 ÿÿ?".encode()).decode(),
    "base64 in lines": "\n".join(base64_of("It is pelican77 today")[i : i + 8] for i in range(0, 32, 8)),
    "base64 of a PIN": base64_of("4711"),
    "base64 of a PIN in a sentence": base64_of("Her PIN is 4711."),
    "base64 of accents": base64_of("pélican77"),
    "a name": "Ms OTTILIE  BRANDVOLD's",
    "a short name": "Anna",
    "a short name, declined": "Annas",
    "a short name, spelt": "A-N-N-A",
    "a PIN in a sentence": "It is 47 11.",
    "a PIN after a letter": "code4711",
}  # fmt: skip


def first_match(text: str, patterns: Patterns = PATTERNS, size: int = 1) -> tuple[Match | None, TextWatch]:
    watch = TextWatch(patterns)
    for start in range(0, len(text), size):
        if (match := watch.feed(text[start : start + size])) is not None:
            return match, watch
    return watch.close(), watch


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_value_is_seen_in_every_way_to_write_it(name: str, size: int) -> None:
    """And the match begins before the value, but not before the words in front of it."""
    before = "Certainly! Here you are: "
    match, _ = first_match(f"{before}{WRITTEN[name]} (do not share it)", size=size)
    assert match is not None
    assert len(before) <= match.start < len(before) + len(WRITTEN[name])


@pytest.mark.parametrize("name", WRITTEN)
def test_a_value_at_the_end_is_seen_at_the_latest_when_the_text_is_closed(name: str) -> None:
    match, _ = first_match(f"It is {WRITTEN[name]}")
    assert match is not None


@pytest.mark.parametrize("name", WRITTEN)
def test_no_character_of_a_match_is_released_before_it_is_complete(name: str) -> None:
    """Of an encoded value, no complete character: a part of its first may be."""
    text = f"Certainly! Here you are: {WRITTEN[name]}."
    watch = TextWatch(PATTERNS)
    match, released = None, 0
    for char in text:
        released = watch.held_from
        if (match := watch.feed(char)) is not None:
            break
    match = match or watch.close()
    assert match is not None
    assert released <= match.start + 4
    assert first_match(text[:released])[0] is None


@pytest.mark.parametrize(
    "text",
    [
        "147110", "47110", "4+7=11", "$4, $7 and $11", "4*7*1*1", "47 = 11", "4 people of 71 and 1", "1174",
        "47 - 4 = <<47-4=43>>11", "4:7:1:1", "Savannah", "a manna tree",
        "a number of 14 711 people", "banana",
        "Hannah and Savanna", "an national park", "Can naive people", "555-0198", "5550 190", "pelican 78",
        "pelicans", "seventy-seven", "Ottilie", "", "five five five zero one nine", "9910", "%70%65%6C",
        "&#112;&#101;", "p&bogus;elican", "\\u00", "=7", base64_of("pelican"), b"pelican".hex(),
        "&&&&%%%%\\\\\\\\====<<<<", "x" * 5_000, "<" * 500,
    ],
)  # fmt: skip
def test_what_only_resembles_a_value_passes(text: str) -> None:
    match, watch = first_match(text)
    assert match is None
    assert watch.length == len(text)


@given(st.text(max_size=60), st.sampled_from(sorted(WRITTEN)), st.text(max_size=20), st.integers(1, 9))
def test_the_pieces_in_which_a_text_comes_make_no_difference(
    before: str, name: str, after: str, size: int
) -> None:
    text = f"{before} {WRITTEN[name]}{after}"
    whole, _ = first_match(text, size=len(text))
    assert whole == first_match(text, size=size)[0]


@given(st.text(alphabet="pelican7 -%&;\\ux0123456789<>=/+AZaz", max_size=200))
def test_any_text_is_read_without_an_error_and_with_little_held_back(text: str) -> None:
    watch = TextWatch(PATTERNS)
    for char in text:
        if watch.feed(char) is not None:
            return
        assert 0 <= watch.held_from <= watch.length


@pytest.mark.parametrize(
    "value",
    [
        r"^(a+)+$|[\w.]{3,9}?(?=xyz)", "line one\nline two\nline three", "x" * 2_000, "  padded value  ",
        "a" * 8, "Мария Иванова", "山田太郎", "김철수", "القاهرة الجديدة", "สมชาย ใจดี", "राम कुमार",
        "İstanbul ofisi",
        "Straße 17", "🦩 flamingo 🦩", "14:35", "$4,711", "12.05.1987", "-17.5 °C", "a@b.io", "+49 30 1",
    ],
)  # fmt: skip
def test_a_value_of_any_kind_is_seen_and_costs_no_more(value: str) -> None:
    """A regular expression is no pattern, and a long value is its beginning."""
    patterns = patterns_of([value])
    for text in (f"It is {value}.", f"It is {value.upper()}.", base64_of(f"It is {value}.")):
        assert first_match(text, patterns)[0] is not None
    assert (
        first_match("aa (a+)+ xxxx line one lines two Мари 山田 太 김철 القاهرة สมชาย राम", patterns)[0]
        is None
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Zürich Süd 9", "Zuerich Sued 9"), ("Zürich Süd 9", "zurich sud 9"), ("Gerd Mueller", "Gerd Müller"),
        ("Gerd Müller", "GERD MUELLER"), ("Łódź", "Lodz"), ("H. C. Ørsted", "H.C. Orsted"),
        ("Ørsted", "Oersted"),
        ("Straße 17", "STRASSE 17"), ("Ærø havn", "Aero Havn"), ("Ålesund", "Aalesund"), ("Iğdır", "Igdir"),
    ],
)  # fmt: skip
def test_letters_with_marks_are_seen_as_people_write_them_without(value: str, text: str) -> None:
    assert first_match(f"It is {text}.", patterns_of([value]))[0] is not None


@pytest.mark.parametrize(
    ("value", "text"), [("Joel", "a jolly day"), ("Noel", "No long way"), ("Anna", "ann")]
)
def test_another_spelling_is_no_shorter_word(value: str, text: str) -> None:
    assert first_match(f"It is {text}.", patterns_of([value]))[0] is None


def test_a_value_is_held_back_whole_and_no_more_than_that() -> None:
    watch = TextWatch(patterns_of(["quixotic zebra"]))
    assert watch.feed("It is quixotic ") is None
    assert watch.held_from == len("It is ")
    assert watch.feed("people") is None
    assert watch.length - watch.held_from <= 2
    assert watch.feed(" the quixotic" + " " * 40) is None
    assert watch.held_from == watch.length


def test_what_is_pending_is_bounded_however_long_the_text_is() -> None:
    """Beginnings of every kind, again and again, and never an end."""
    watch = TextWatch(PATTERNS)
    begun = (
        "pelican7 555-019 %70%65 &#112; &am five five \\u0070 <b "
        + base64_of("pelican7")
        + " 70 65 6c 69 63 "
    )
    for _ in range(2_000):
        assert watch.feed(begun) is None
        assert watch.length - watch.held_from < 600


def test_the_time_is_linear_in_the_text() -> None:
    """A hundred thousand characters take no more than ten times ten thousand, and twice that for chance."""
    words = random.Random(5).choices(["pelican", "ottilie", "five", "555", "%41", "the", "of"], k=20_000)
    text = " ".join(words).replace(" ", " x ")

    def seconds(size: int) -> float:
        watch = TextWatch(PATTERNS)
        begun = time.process_time()
        watch.feed(text[:size])
        return time.process_time() - begun

    seconds(1_000)
    assert seconds(100_000) < 20 * min(seconds(10_000) for _ in range(3))


def test_a_namespace_of_many_values_is_built_and_read() -> None:
    values = [f"{place:05d} quay no {place * 7919 % 100_000}" for place in range(5_000)]
    patterns = patterns_of(values)
    match, _ = first_match(f"She lives at {values[4_321]}.", patterns)
    assert match is not None
    assert match.value == 4_321
