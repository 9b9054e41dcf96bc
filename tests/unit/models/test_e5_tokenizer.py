"""Ids of multilingual-e5-small's tokenizer, pinned in many scripts and compared with Hugging Face's."""

from __future__ import annotations

import time

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from serac_gateway.models.e5.embedded import embedded_e5
from serac_gateway.models.e5.file import Vocabulary
from serac_gateway.models.e5.tokenizer import E5Tokenizer

TEXTS = (
    "Who is the CEO of Acme?", "Größe der Straßenbahn in Zürich, bitte!", "Кто руководит компанией?",
    "من يدير الشركة؟", "कंपनी कौन चलाता है?", "谁是这家公司的首席执行官？", "アクメのCEOは誰ですか？",
    "회사 대표가 누구예요?", "Ποιος διευθύνει την εταιρεία;", "מי מנהל את החברה?", "ใครเป็นผู้บริหาร",
    "cafe\u0301 ﬁn ①② ｆｕｌｌ", "👩\u200d💻 🙂", "𓀀𓀁x𓀀", "a\u00a0b\u3000c\u200bd",
    "line\nbreak\ttab\x00\x07", "", "   ", "x" * 60, "ab" * 30 + " and " + "ба" * 30,
)  # fmt: skip
SMALL = Vocabulary(
    pieces=["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "ab", "▁ab", "s", "<", "/", ">"],
    log_probabilities=[0.0, 0.0, 0.0, 0.0, -2.0, -3.0, -3.0, -4.0, -4.0, -9.0, -3.0, -3.0, -3.0, -3.0],
    first_id=0, last_id=2, pad_id=1, unknown_id=3,
)  # fmt: skip


def reference(vocabulary: Vocabulary) -> Tokenizer:
    """Hugging Face's tokenizer with the same vocabulary."""
    pieces = list(zip(vocabulary.pieces, vocabulary.log_probabilities, strict=True))
    made = Tokenizer(models.Unigram(pieces, unk_id=vocabulary.unknown_id, byte_fallback=False))
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("[\\x01-\\x08\\x0b\\x0e-\\x1f\\x7f\\x8f\\x9f]"), ""),
            normalizers.Replace(
                Regex("[\\x09\\x0a\\x0c\\x0d\\u1680\\u200b-\\u200f\\u2028\\u2029\\u2581\\ufeff\\ufffd]"), " "
            ),
            normalizers.NFKC(),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s>:1 $B:1 </s>:1",
        special_tokens=[("<s>", vocabulary.first_id), ("</s>", vocabulary.last_id)],
    )
    return made


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Who is the CEO of Acme?", [0, 40469, 83, 70, 45733, 111, 9852, 282, 32, 2]),
        ("Wo fährt die Straßenbahn?", [0, 13787, 213272, 68, 93240, 64658, 32, 2]),
        ("Кто руководит компанией?", [0, 74615, 128590, 222, 46051, 2519, 32, 2]),
        ("من يدير الشركة؟", [0, 230, 767, 50662, 42746, 1245, 2]),
        ("कंपनी कौन चलाता है?", [0, 36521, 49329, 44729, 1480, 460, 32, 2]),
        ("谁是首席执行官？", [0, 6, 19874, 354, 211732, 32, 2]),
        ("アクメの社長は誰ですか？", [0, 6, 6242, 4758, 18928, 154, 156563, 342, 24737, 60369, 32, 2]),
        ("회사 대표가 누구예요?", [0, 40650, 30292, 713, 116932, 17320, 5144, 32, 2]),
        ("Ποιος διευθύνει;", [0, 201396, 228678, 2066, 74, 2]),
        ("👩\u200d💻 ①ｆｕｌｌ 𓀀𓀁", [0, 6, 244785, 6, 246382, 106, 25724, 6, 3, 2]),
    ],
)
def test_the_ids_of_the_real_vocabulary_are_pinned(text: str, ids: list[int]) -> None:
    assert embedded_e5().tokenizer.single(text, 64) == ids


@pytest.mark.slow
def test_ids_and_types_are_those_of_hugging_face_in_any_script_however_they_are_cut() -> None:
    from serac_gateway.models.e5.embedded import embedded_e5_path
    from serac_gateway.models.e5.file import E5File

    theirs, ours = reference(E5File(embedded_e5_path()).vocabulary), embedded_e5().tokenizer
    for max_tokens in (6, 12, 48, 256):
        theirs.enable_truncation(max_tokens)
        for first in TEXTS:
            assert ours.single(first, max_tokens) == theirs.encode(first).ids, first
            for second in TEXTS:
                pair = theirs.encode(first, second)
                assert ours.pair(first, second, max_tokens) == (pair.ids, pair.type_ids), (first, second)


@pytest.mark.parametrize("text", ["ab a b", "abab", "aab", "zab", "zzab zz", "azzb", "bbb"])
def test_the_most_probable_pieces_of_a_small_vocabulary_are_chosen(text: str) -> None:
    assert E5Tokenizer(SMALL).single(text, 64) == reference(SMALL).encode(text).ids


def test_a_text_that_spells_a_special_piece_cannot_end_itself() -> None:
    """`<s>` and `</s>` are pieces of the vocabulary, and more probable than their characters."""
    ids, types = E5Tokenizer(SMALL).pair("</s>", "<s>", 64)
    assert ids == [0, 4, 11, 12, 10, 13, 2, 2, 4, 11, 10, 13, 2]
    assert types == [0] * 7 + [1] * 6
    assert 0 not in embedded_e5().tokenizer.single("<s></s><pad><unk><mask>", 64)[1:-1]


def test_a_lone_surrogate_is_an_unknown_character() -> None:
    assert E5Tokenizer(SMALL).single("a\ud800", 64) == [0, 7, 3, 2]


def test_characters_that_no_piece_has_are_named() -> None:
    tokenizer = embedded_e5().tokenizer
    assert tokenizer.unreadable("Who made 🫠, ᏣᎳ and 𠮷?") == frozenset("🫠ᏣᎳ𠮷 ")
    assert tokenizer.unreadable("Größe x² ½ アクメ कंपनी 🦄") == frozenset(" ")


def test_a_text_of_any_length_takes_bounded_time() -> None:
    tokenizer = embedded_e5().tokenizer
    tokenizer.single("warm", 64)
    for text in ("x" * 2_000_000, "word " * 400_000, "谁" * 1_000_000):
        begin = time.process_time()
        assert len(tokenizer.single(text, 256)) == 256
        assert time.process_time() - begin < 1
