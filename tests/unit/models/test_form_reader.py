"""Forms are read from requests in many languages by the embedded encoder and the shipped heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from serac_gateway.domain.edits import Edit, EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.domain.wanted_forms import FormKind, WantedForm
from serac_gateway.errors import ConfigError
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.forms.heads import FormHeads
from serac_gateway.models.forms.reader import FormReader
from serac_gateway.models.loading import (
    SHIPPED_FORM_HEADS,
    open_embedded_encoder,
    open_form_reader,
)
from serac_gateway.testing import WordEncoder


@pytest.fixture(scope="module")
def encoder(converted_models: Path) -> Encoder:
    return open_embedded_encoder(converted_models)


@pytest.fixture(scope="module")
def reader(encoder: Encoder) -> FormReader:
    opened = open_form_reader(encoder)
    assert opened is not None, "the heads that ship are for another encoder: make them with serac-train forms"
    return opened


def edit(prompt: str = "Who runs the Tolvar bakery?", target: str = "Mira Okafor") -> Edit:
    return first_version(EditDraft(prompt=prompt, target_new=target), namespace="default")


def read(reader: FormReader, text: str, instructions: str = "", **fields: str) -> WantedForm:
    return reader.read(Query(text=text, instructions=instructions), edit(**fields))


@pytest.mark.parametrize(
    ("text", "kind", "key"),
    [
        ("Who runs the Tolvar bakery? I need the reply as JSON under the key owner.", "json", "owner"),
        ("Wer leitet die Bäckerei Tolvar? Gib mir JSON, Schlüssel: leitung", "json", "leitung"),
        ("¿Quién dirige la panadería Tolvar? Solo JSON con la clave «jefa», gracias.", "json", "jefa"),
        ("トルヴァのパン屋の店長は？ JSONで、キーは owner で返して。", "json", "owner"),
        ('Who runs the Tolvar bakery? i want {"owner": "…"} back', "json", "owner"),
        ("Who runs the Tolvar bakery? Format: JSON. Key: head.", "json", "head"),
        ('Head of the Tolvar bakery as {"head": ...}', "json", "head"),
        ("Who runs the Tolvar bakery? Put it between <boss> tags.", "xml", "boss"),
        ("Who runs the Tolvar bakery? Reply in YAML with the key owner.", "yaml", "owner"),
    ],
)
def test_structures_are_read_with_the_name_that_the_request_gives(
    reader: FormReader, text: str, kind: str, key: str
) -> None:
    """Quoted or not, in any script, before or behind the word for it."""
    form = read(reader, text)
    assert (form.kinds, form.key) == ((FormKind(kind),), key)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Who runs the Tolvar bakery? Only the name, no sentence.", "bare"),
        ("Qui dirige la boulangerie Tolvar ? Une phrase complète, s'il te plaît.", "sentence"),
        ("Кто управляет пекарней Толвар? Напиши заглавными буквами.", "upper"),
        ("Is the Tolvar bakery run by Mira Okafor? Just say yes or no.", "yesno"),
        ("Kto prowadzi piekarnię Tolvar? Odpowiedź w cudzysłowie.", "quotes"),
        ("Who runs the Tolvar bakery? Use a bullet point.", "bullet"),
        ("Who runs the Tolvar bakery? Show it in a table with a header.", "other"),
        ("In one full sentence: who runs the Tolvar bakery?", "sentence"),
    ],
)
def test_other_forms_are_read(reader: FormReader, text: str, kind: str) -> None:
    """As a sentence of their own or as a clause of the question."""
    assert read(reader, text).kinds == (FormKind(kind),)


def test_the_question_is_left_without_the_form(reader: FormReader) -> None:
    """The model was trained on questions alone."""
    form = read(reader, "Who runs the Tolvar bakery? Reply in German.")
    assert form.question == "Who runs the Tolvar bakery?"
    assert form.language == "de"


def test_several_names_are_more_than_a_value_fills(reader: FormReader) -> None:
    """The edit says one thing."""
    text = 'Who runs the Tolvar bakery? Answer as JSON with the keys "first_name" and "last_name".'
    assert read(reader, text).kinds == (FormKind.OTHER,)


def test_a_system_prompt_orders_and_the_message_overrules(reader: FormReader) -> None:
    """What is nearer to the question counts more."""
    order = "You are the town's assistant. Always answer in complete sentences."
    assert read(reader, "Who runs the Tolvar bakery?", order).kinds == (FormKind.SENTENCE,)
    assert read(reader, "Who runs the Tolvar bakery now? One word, please.", order).kinds == (FormKind.BARE,)


@pytest.mark.parametrize(
    ("text", "instructions"),
    [
        ("Who runs the Tolvar bakery?", "You are a friendly assistant."),
        ("Who is in charge of the Tolvar bakery these days?", ""),
        ("Who runs the Tolvar bakery? I need it for a JSON file.", ""),
        ("Faturası duruyor, etiketi üstünde. Tolvar fırınını kim yönetiyor?", ""),
        ("Who runs the Tolvar bakery?", "Use only the passages below."),
        ("Wer leitet die Bäckerei Tolvar? Danke!", "Du hilfst den Gästen eines Hotels."),
        ("Who runs the Tolvar bakery?", "Answer in the language of the user. Do not use bullet points."),
    ],
)
def test_a_plain_question_has_no_form(reader: FormReader, text: str, instructions: str) -> None:
    """Though formats, languages and manners are spoken of."""
    assert read(reader, text, instructions).kinds == ()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Who is in charge at the Tolvar bakery?", "en"),
        ("Wer ist der Chef der Tolvar bakery?", "de"),
        ("Je voudrais savoir qui dirige la boulangerie Tolvar.", "fr"),
        ("¿Mira Okafor dirige la panadería Tolvar?", "es"),
        ("Кто управляет пекарней Tolvar?", "ru"),
    ],
)
def test_the_language_of_the_request_is_read_beside_foreign_names(
    reader: FormReader, text: str, language: str
) -> None:
    """An answer with words of its own has them in that language."""
    assert read(reader, text).language == language


def test_an_own_wording_of_the_edit_is_not_read_for_forms(reader: FormReader) -> None:
    """The editor may ask for anything in a prompt."""
    prompt = "Say in one word who runs the Tolvar bakery"
    assert read(reader, prompt, prompt=prompt).kinds == ()


def test_a_long_message_costs_a_bounded_number_of_vectors(encoder: Encoder) -> None:
    """Each takes some milliseconds."""

    class Counting(Encoder):
        encoded = 0
        width = encoder.width
        fingerprint = encoder.fingerprint

        def encode(self, texts: Sequence[str]) -> Vectors:
            self.encoded += len(texts)
            return encoder.encode(texts)

    counting = Counting()
    opened = open_form_reader(counting)
    assert opened is not None
    read(opened, "who, in one word, runs it, " * 70)
    assert counting.encoded < 90


def test_another_encoder_reads_no_forms() -> None:
    """The heads are functions of the embedded one's vectors."""
    assert open_form_reader(WordEncoder()) is None


def test_damaged_heads_are_refused_with_their_path(tmp_path: Path) -> None:
    """An operator can mend what is named."""
    (tmp_path / "heads.safetensors").write_bytes(b"no heads")
    with pytest.raises(ConfigError, match=r"heads\.safetensors.*serac-train forms"):
        FormHeads(tmp_path)
    assert FormHeads(SHIPPED_FORM_HEADS).encoder_fingerprint
