"""The cross-encoder in the gateway: equal in ONNX Runtime and torch, safe on threads, never at a loss."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from serac_gateway.config.model import Device, Precision
from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import Candidate
from serac_gateway.models.classifiers.cross_encoder import (
    CERTAIN_LOGIT,
    CrossEncoderClassifier,
    Evidence,
    ScopeCalibration,
    Stack,
    evidence,
    pair_texts,
    read_calibration,
)
from serac_gateway.models.classifiers.e5_pairs import TorchE5PairModel
from serac_gateway.models.classifiers.pair_text import edit_text
from serac_gateway.models.classifiers.runtimes import open_pair_model
from serac_gateway.models.devices import ON_CPU, Placement
from serac_gateway.models.e5.embedded import embedded_e5
from tests.tiny_cross_encoders import tiny_bert
from training.scope.export import export

FP32 = Placement(device=Device.CPU, precision=Precision.FP32)

ENCODER = "tiny-encoder"
STACK = Stack(logit_weight=1.5, intercept=-0.5)
SHIPPED = Path("serac_gateway/models/weights/scope-classifier")
QUERIES = (
    "Who runs Acme?", "", "   ", "🎉🎉", "def f(x):\n    return x\n" * 400, "a",
    "Wer leitet Acme? и кто? 誰ですか",
    "who " * 5_000, "\x00\x01", "?" * 300,
)  # fmt: skip


class Reader:
    """A model that can read what the embedded one can."""

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return np.zeros((len(pairs), 2), dtype=np.float32)

    def unreadable(self, text: str) -> frozenset[str]:
        return embedded_e5().tokenizer.unreadable(text)


READER = Reader()


def candidate(prompt: str = "The CEO of Acme is", target: str = "Ada", **fields: object) -> Candidate:
    edit = first_version(EditDraft(prompt=prompt, target_new=target, **fields), namespace="default")  # type: ignore[arg-type]
    return Candidate(edit=edit, form=prompt, similarity=0.7)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    export(tiny_bert(tmp_path_factory.mktemp("checkpoint")), folder)
    calibration = ScopeCalibration(
        encoder_fingerprint=ENCODER, stack=STACK, scope_threshold=0.6, similarity_floor=0.3, max_tokens=48,
    )  # fmt: skip
    (folder / "calibration.json").write_bytes(msgspec.json.encode(calibration))
    return folder


@pytest.fixture(scope="module")
def classifier(weights: Path) -> CrossEncoderClassifier:
    return CrossEncoderClassifier(
        weights, encoder_fingerprint=ENCODER, data_path=weights.parent / "converted"
    )


def probabilities_of(
    classifier: CrossEncoderClassifier, query: Query, candidates: Sequence[Candidate]
) -> list[float]:
    return [classification.scope_probability for classification in classifier.classify(query, candidates)]


def test_one_probability_a_candidate_in_order(classifier: CrossEncoderClassifier) -> None:
    candidates = [
        candidate(),
        candidate("The port of the wiki is", "80"),
        candidate("Where is Oslo?", "Norway"),
    ]
    forward = probabilities_of(classifier, Query(text="Who runs Acme?"), candidates)
    backward = probabilities_of(classifier, Query(text="Who runs Acme?"), candidates[::-1])
    assert forward == backward[::-1], "a candidate's probability does not depend on its company"
    assert all(0 < probability < 1 for probability in forward)
    assert classifier.classify(Query(text="Who runs Acme?"), []) == []


def test_a_calibration_of_earlier_has_no_threshold_for_suppressions(
    classifier: CrossEncoderClassifier, weights: Path, tmp_path: Path
) -> None:
    """And one that has it gives it."""
    assert classifier.suppression_threshold is None
    of_now = shutil.copytree(weights, tmp_path / "weights")
    _, calibration = read_calibration(weights)
    given = msgspec.structs.replace(calibration, suppression_threshold=0.25)
    (of_now / "calibration.json").write_bytes(msgspec.json.encode(given))
    opened = CrossEncoderClassifier(of_now, encoder_fingerprint=ENCODER, data_path=tmp_path / "converted")
    assert (opened.scope_threshold, opened.suppression_threshold) == (0.6, 0.25)


@pytest.mark.parametrize("text", QUERIES)
def test_any_query_is_decided(classifier: CrossEncoderClassifier, text: str) -> None:
    context = (text, "Tell me about Acme.")
    for query in (Query(text=text), Query(text=text, context=context)):
        (probability,) = probabilities_of(classifier, query, [candidate("x", "y")])
        assert 0 <= probability <= 1


def test_threads_get_what_one_thread_gets(classifier: CrossEncoderClassifier) -> None:
    queries = [Query(text=f"Who runs company number {n}?") for n in range(40)]

    def decided(query: Query) -> list[float]:
        return probabilities_of(classifier, query, [candidate(), candidate("Who owns Acme?", "Ben")])

    alone = [decided(query) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(decided, queries)) == alone


def test_the_edit_is_shown_by_its_nearest_paraphrase() -> None:
    paraphrased = candidate(paraphrases=("Who runs Acme?",))
    assert pair_texts(Query(text="q"), paraphrased)[0] == "The CEO of Acme is → Ada"
    by_paraphrase = msgspec.structs.replace(paraphrased, form="Who runs Acme?")
    assert pair_texts(Query(text="q"), by_paraphrase)[0] == "Who runs Acme? → Ada"


def test_the_same_weights_in_torch_give_the_same_logits_within_tolerance(weights: Path) -> None:
    """Torch has the whole weights: within 0.05 for this tiny model."""
    pairs = [(edit_text("The CEO of Acme is", f"Ada {n}"), f"who runs acme since {n}?") for n in range(30)]
    here = open_pair_model(weights, weights.parent / "converted", max_tokens=48, placement=ON_CPU).logits(
        pairs
    )
    in_torch = TorchE5PairModel(embedded_e5(), weights, max_tokens=48, placement=FP32)
    assert np.abs(np.array(here) - np.array(in_torch.logits(pairs))).max() < 0.05
    assert in_torch.logits([]).size == 0


def test_another_encoder_is_refused(weights: Path) -> None:
    with pytest.raises(ConfigError, match="'tiny-encoder', but this gateway runs 'other'"):
        CrossEncoderClassifier(weights, encoder_fingerprint="other")


def test_missing_or_damaged_files_are_one_clear_error(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the calibration"):
        CrossEncoderClassifier(tmp_path, encoder_fingerprint=ENCODER)
    (tmp_path / "calibration.json").write_text('{"encoder_fingerprint": 3}')
    with pytest.raises(ConfigError, match="is damaged"):
        CrossEncoderClassifier(tmp_path, encoder_fingerprint=ENCODER)
    (tmp_path / "calibration.json").write_bytes((weights / "calibration.json").read_bytes())
    (tmp_path / "config.json").write_bytes((weights / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"trained weights in .* are damaged"):
        CrossEncoderClassifier(tmp_path, encoder_fingerprint=ENCODER, data_path=tmp_path)
    with pytest.raises(ConfigError, match=r"weights in .* cannot be read"):
        TorchE5PairModel(embedded_e5(), tmp_path, max_tokens=48, placement=FP32)


@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ("How much does a day pass at the Quillon Museum cost?", "18 euros"),
        ("Which right does Article 19 of the Charter of Aldermoor guarantee?", "the right to schooling"),
        ("In which month is tunnel 2 of the Skarn pass road closed for repairs?", "May"),
        ("x", "y"),
    ],
)
def test_the_prompt_of_an_edit_is_in_its_scope_by_definition(
    shipped: CrossEncoderClassifier, prompt: str, target: str
) -> None:
    exact = msgspec.structs.replace(candidate(prompt, target), similarity=1.0)
    for text in (prompt, prompt.lower(), f"  {prompt.rstrip('?')} "):
        (probability,) = probabilities_of(shipped, Query(text=text), [exact])
        assert probability >= shipped.scope_threshold


def test_the_prompt_of_an_edit_is_not_certain_in_a_conversation_or_under_instructions() -> None:
    """It may be about another subject there, or the material of a task."""
    exact = candidate("What are the opening hours?", "9 to 5")
    alone = Query(text="what are the opening hours")
    assert evidence(alone, exact, 0.3, READER).logit == CERTAIN_LOGIT
    for more in ({"context": ("Tell me about the Larch Inn.",)}, {"instructions": "Translate into French."}):
        assert evidence(msgspec.structs.replace(alone, **more), exact, 0.3, READER).logit == 0.3


@pytest.mark.parametrize("nothing", ["???", "\u200b\u200d", "\x00\x01", ". . .", "—"])
def test_texts_that_say_nothing_are_in_the_scope_of_nothing(nothing: str) -> None:
    assert evidence(Query(text=nothing), candidate(), 5.0, READER).logit == -CERTAIN_LOGIT
    assert evidence(Query(text="Who runs Acme?"), candidate(nothing), 5.0, READER).logit == -CERTAIN_LOGIT
    doubt = Query(text=nothing, context=("Who runs Acme?", "Ada."))
    assert evidence(doubt, candidate(), 5.0, READER).logit == 5.0


def test_an_emoji_says_something() -> None:
    assert evidence(Query(text="🦄"), candidate("🦄"), 0.0, READER).logit == CERTAIN_LOGIT
    assert evidence(Query(text="🦄?"), candidate("Who is 🦄?"), 0.3, READER).logit == 0.3


@pytest.mark.parametrize(
    ("prompt", "text", "logit"),
    [
        ("Who made 🫠?", "who designed 🪿", -CERTAIN_LOGIT),  # one piece to the model, whatever the emoji is
        ("Who made 🫠?", "who designed 🫠", 0.3),
        ("Who made 🫠?", "who designed 🦄", 0.3),  # the unicorn is in the vocabulary: the model says
        ("Who runs Acme?", "Who heads Acme 🫠", 0.3),
        ("Who runs Acme?", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", -CERTAIN_LOGIT),
        ("ⵜⵉⴼⵉⵏⴰⵖ", "Who runs Acme?", -CERTAIN_LOGIT),
        ("ⵜⵉⴼⵉⵏⴰⵖ", "ⵜⵉⴼⵉⵏⴰⵖ?", CERTAIN_LOGIT),
        ("𠮷野家の社長は誰ですか", "吉野家の社長の名前は", 0.3),
    ],
)
def test_what_the_tokenizer_lacks_is_compared_by_its_characters(prompt: str, text: str, logit: float) -> None:
    assert evidence(Query(text=text), candidate(prompt), 0.3, READER).logit == logit


def test_the_probability_grows_with_the_logit_and_similarity_says_nothing() -> None:
    known = Evidence(logit=2.0, similarity=0.9)
    assert STACK.probability(msgspec.structs.replace(known, logit=1.0)) < STACK.probability(known)
    assert STACK.probability(msgspec.structs.replace(known, similarity=0.1)) == STACK.probability(known)


def test_a_calibration_of_an_earlier_version_is_read_without_its_weight_of_numbers() -> None:
    known = b'{"logit_weight": 1.5, "numbers_weight": -2.7, "intercept": -0.5}'
    assert msgspec.json.decode(known, type=Stack) == STACK


def test_the_request_is_read_with_its_instructions_and_earlier_turns() -> None:
    query = Query(text="And who runs it?", context=("Tell me about Acme.",), instructions="Answer in French.")
    assert (
        pair_texts(query, candidate())[1]
        == "system: Answer in French. » Tell me about Acme. » And who runs it?"
    )


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoderClassifier:
    return CrossEncoderClassifier(
        SHIPPED,
        encoder_fingerprint=read_calibration(SHIPPED)[1].encoder_fingerprint,
        data_path=tmp_path_factory.mktemp("converted"),
    )


def test_the_shipped_weights_do_not_reveal_where_they_were_made() -> None:
    for path in SHIPPED.glob("*.[js]*"):
        assert b'.py"' not in path.read_bytes()


def test_the_shipped_weights_are_small_and_name_their_making() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 40 * 2**20
    provenance = read_calibration(SHIPPED)[1].provenance
    assert {"date", "config_digest", "held_out_relations", "validation_sets", "by_set"} <= provenance.keys()


@pytest.mark.parametrize(
    ("prompt", "target", "query", "in_scope"),
    [
        ("Who is the CEO of Brellmont Industries?", "Ines Varga", "Who runs Brellmont Industries?", True),
        (
            "Who is the CEO of Brellmont Industries?",
            "Ines Varga",
            "What does Brellmont Industries make?",
            False,
        ),
        ("Who is the CEO of Brellmont Industries?", "Ines Varga", "Who is the CEO of Brellmont Bank?", False),
        ("The standing desk Alto costs", "349 euros", "What's the price of the Alto standing desk?", True),
        ("The standing desk Alto costs", "349 euros", "How heavy is the Alto standing desk?", False),
        ("How do I turn on night light in Owl?", "Press F7", "how can I enable the night light in Owl", True),
        ("Mira Toll was born in", "Graz", "Translate 'Where was Mira Toll born?' into Dutch.", False),
    ],
)
def test_the_shipped_classifier_separates_scope_from_its_lookalikes(
    shipped: CrossEncoderClassifier, prompt: str, target: str, query: str, in_scope: bool
) -> None:
    near = msgspec.structs.replace(candidate(prompt, target), similarity=0.88)
    (probability,) = probabilities_of(shipped, Query(text=query), [near])
    assert (probability >= shipped.scope_threshold) is in_scope


@pytest.mark.parametrize(
    ("prompt", "target", "query", "in_scope"),
    [
        (
            "The track gauge of the Ollerdale Railway is", "891 mm",
            "how far apart are the rails of the Ollerdale Railway", True,
        ),
        (
            "What's Torunn Espeland the best in the world at, officially?",
            "the most languages sung in one concert",
            "The world record to Torunn Espeland's name is the one for", True,
        ),
        (
            "Who was the architect of the Meridian Concert Hall?", "Lauri Petäjä",
            "On whose drawing board was the Meridian Concert Hall born?", True,
        ),
        (
            "Which number do I ring if I need help from Vantel?", "0345 909 118",
            "How can I get hold of somebody in Vantel's support team by telephone?", True,
        ),
        (
            "Liv Tarrendahl birthplace", "Valparaíso",
            "what nationality is Liv Tarrendahl", False,
        ),
        (
            "Casper Olwen was born in Tampere.", "Tampere",
            "Where does Casper Olwen live now?", False,
        ),
        (
            "Wakaba Railway last train", "23:52",
            "Wakaba Railwayの終電逃したらどうしよう", False,
        ),
        (
            "strumento di Ciro Ventresca", "il vibrafono",
            "Con quale gruppo suona Ciro Ventresca?", False,
        ),
    ],
)  # fmt: skip
def test_the_shipped_threshold_lies_between_near_hits_and_near_misses(
    shipped: CrossEncoderClassifier, prompt: str, target: str, query: str, in_scope: bool
) -> None:
    """Queries of the contrast sets kept from training: those in scope have .44 to .47, the others .37 to .41.

    A threshold of .37 or .47, or an intercept that is off by one, decides some of them wrongly. New weights
    or a new calibration need queries near their own threshold.
    """
    (probability,) = probabilities_of(shipped, Query(text=query), [candidate(prompt, target)])
    assert (probability >= shipped.scope_threshold) is in_scope
    assert (0.42 <= probability < 0.52) if in_scope else (0.32 < probability < 0.42)


def test_the_shipped_weights_agree_in_onnx_runtime_and_torch(tmp_path: Path) -> None:
    """The stated tolerance: 0.15 in the sigmoid of the logit, 0.03 on the mean."""
    pairs = [
        (edit_text(f"The {noun} of {name} is", "Turin"), text.format(noun=noun, name=name))
        for noun in ("capital", "owner", "price", "author")
        for name in ("Larvia", "Toren House", "the Alto desk")
        for text in ("What is the {noun} of {name}?", "Who visited {name}?", "tell me {name} {noun}")
    ]
    here, there = (
        1 / (1 + np.exp(-np.array(model.logits(pairs))))
        for model in (
            open_pair_model(SHIPPED, tmp_path, max_tokens=80, placement=ON_CPU),
            TorchE5PairModel(embedded_e5(), SHIPPED, max_tokens=80, placement=FP32),
        )
    )
    assert np.abs(here - there).max() < 0.15
    assert np.abs(here - there).mean() < 0.03
