"""The cross-encoder in the gateway: equal in ONNX Runtime and torch, safe on threads, never at a loss."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import Candidate
from serac_gateway.models.classifiers.cross_encoder import (
    CrossEncoderClassifier,
    Evidence,
    ScopeCalibration,
    Stack,
    evidence,
    pair_texts,
    read_calibration,
)
from serac_gateway.models.classifiers.features import (
    MAX_QUERY_CHARS,
    edit_text,
    focused,
    names_absent,
    numbers_differ,
    query_text,
)
from serac_gateway.models.classifiers.runtimes import OnnxPairModel, TorchPairModel
from tests.tiny_cross_encoders import tiny_bert
from training.scope.export import export

ENCODER = "tiny-encoder"
STACK = Stack(
    logit_weight=1.5, similarity_weight=4.0, absent_weight=-1.0, numbers_weight=-2.0,
    intercept=-3.0, logit_bound=2.0, similarity_cap=0.9,
)  # fmt: skip
SHIPPED = Path("serac_gateway/models/weights/scope-classifier")
QUERIES = (
    "Who runs Acme?", "", "   ", "🎉🎉", "def f(x):\n    return x\n" * 400, "a",
    "Wer leitet Acme? и кто? 誰ですか",
    "who " * 5_000, "\x00\x01", "?" * 300,
)  # fmt: skip


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
    return CrossEncoderClassifier(weights, encoder_fingerprint=ENCODER)


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


@pytest.mark.parametrize("text", QUERIES)
def test_any_query_is_decided(classifier: CrossEncoderClassifier, text: str) -> None:
    context = (text, "Tell me about Acme.")
    for query in (Query(text=text), Query(text=text, context=context)):
        (probability,) = probabilities_of(classifier, query, [candidate("x", "y")])
        assert 0 <= probability <= 1


def test_more_similarity_is_more_probable(classifier: CrossEncoderClassifier) -> None:
    near, far = (msgspec.structs.replace(candidate(), similarity=value) for value in (0.9, 0.4))
    high, low = probabilities_of(classifier, Query(text="Who runs Acme?"), [near, far])
    assert high > low


def test_threads_get_what_one_thread_gets(classifier: CrossEncoderClassifier) -> None:
    queries = [Query(text=f"Who runs company number {n}?") for n in range(40)]

    def decided(query: Query) -> list[float]:
        return probabilities_of(classifier, query, [candidate(), candidate("Who owns Acme?", "Ben")])

    alone = [decided(query) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(decided, queries)) == alone


def test_the_edit_is_shown_by_its_nearest_paraphrase() -> None:
    paraphrased = candidate(paraphrases=("Who runs Acme?",))
    assert pair_texts(Query(text="q"), paraphrased)[0] == "The CEO of Acme is Ada"
    by_paraphrase = msgspec.structs.replace(paraphrased, form="Who runs Acme?")
    assert pair_texts(Query(text="q"), by_paraphrase)[0] == "Who runs Acme? Ada"


def test_the_same_weights_in_torch_give_the_same_logits_within_tolerance(weights: Path) -> None:
    """Torch has the same int8 weights, but whole activations: within 0.05 for this tiny model."""
    pairs = [(edit_text("The CEO of Acme is", f"Ada {n}"), f"who runs acme since {n}?") for n in range(30)]
    here = OnnxPairModel(weights, max_tokens=48).logits(pairs)
    there = TorchPairModel(weights, max_tokens=48, device="cpu").logits(pairs)
    assert np.abs(np.array(here) - np.array(there)).max() < 0.05
    assert TorchPairModel(weights, max_tokens=48, device="cpu").logits([]).size == 0


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
    with pytest.raises(ConfigError, match=r"tokenizer\.json.*cannot be read"):
        CrossEncoderClassifier(tmp_path, encoder_fingerprint=ENCODER)
    (tmp_path / "tokenizer.json").write_bytes((weights / "tokenizer.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match=r"model\.onnx.*cannot be read"):
        CrossEncoderClassifier(tmp_path, encoder_fingerprint=ENCODER)
    with pytest.raises(ConfigError, match=r"model\.onnx.*cannot be read"):
        TorchPairModel(tmp_path, max_tokens=48, device="cpu")


def test_a_long_text_is_cut_to_what_bears_on_the_edit() -> None:
    noise = "The weather was fine and nobody had anything to do with it. " * 20
    text = f"Please help. {noise}Who runs Acme these days? {noise}Thanks in advance."
    excerpt = focused(text, "The CEO of Acme is Ada", MAX_QUERY_CHARS)
    assert len(excerpt) <= MAX_QUERY_CHARS + 2
    assert excerpt.startswith("Please help.")
    assert "Who runs Acme these days?" in excerpt
    assert excerpt.endswith("Thanks in advance.")


def test_one_long_sentence_is_cut_around_the_words_of_the_edit() -> None:
    text = "so " * 300 + "who runs Acme " + "and so on " * 100
    assert "who runs Acme" in focused(text, "The CEO of Acme is Ada", MAX_QUERY_CHARS)


def test_earlier_turns_stand_before_the_query() -> None:
    assert (
        query_text("And who runs it?", ("Tell me about Acme.", " "), "x")
        == "Tell me about Acme. >> And who runs it?"
    )


@pytest.mark.parametrize(
    ("prompt", "text", "share"),
    [
        ("Who is the mayor of Brannock?", "who runs brannock", 0.0),
        ("Who is the mayor of Brannock?", "Who is the mayor of Bramhall?", 1.0),
        ("Ada Stone was born in", "Where was Ada Marsh born?", 0.5),
        ("The capital of Kazakhstan is", "whats the capital of kazakstan", 0.0),
        ("The range of Orbit X2 is", "What is the range of Orbit X3?", 0.5),
        ("how long is the guest wifi password valid", "How long?", 0.0),
        ("Acme's CEO is", "ACME CEO", 0.0),
        ("Acme's head is", "the head of Acme", 0.0),
        ("Deployment day for the mobile app:", "when do we deploy the mobile app", 0.0),
        ("Opening hours of Café Lorient", "when is cafe lorient open", 0.0),
        ("Esselte was founded in", "Where was Acme founded?", 1.0),
        ("Who is the CEO of Acme?", "who runs acme", 0.0),
        ("New York is led by", "Who leads New Orleans?", 0.5),
        ("DNS runs on port", "which port has the wiki", 1.0),
    ],
)
def test_names_of_the_edit_that_a_query_lacks_are_counted(prompt: str, text: str, share: float) -> None:
    assert names_absent(prompt, text, ()) == share


def test_names_in_earlier_turns_are_present() -> None:
    assert names_absent("Where is Acme?", "And where is it?", ("Tell me about Acme.",)) == 0.0


def test_words_beyond_the_bound_on_compared_spellings_count_as_other_names() -> None:
    """A text of many words that are almost an edit's names costs no more than the bound."""
    anagrams = ["".join(letters) for letters in itertools.permutations("bcdefg")]
    names = " ".join(f"Xa{letters}" for letters in anagrams[:30])
    words = [f"xa{letters}" for letters in anagrams[300:600]]
    assert names_absent(names, " ".join(words), ()) > 0
    assert names_absent(names, " ".join([*words, *names.split()]), ()) == 0  # equal names need no comparison


@pytest.mark.parametrize(
    ("prompt", "text", "differ"),
    [
        ("Until when is Kestrel 2.4 supported?", "Until when is Kestrel 2.5 supported?", True),
        ("Until when is Kestrel 2.4 supported?", "support end of kestrel v2.4", False),
        ("Until when is Kestrel 2.4 supported?", "until when is kestrel supported", False),
        ("Who won the 2025 final?", "Who won the '25 final?", False),
        ("Who won the 2025 final?", "Who won the 2024 final?", True),
        ("What does error E-417 mean?", "my machine says E 417", False),
        ("The range of the Orbit X2 is", "range of the Orbit X20", True),
        ("What does the Team plan cost?", "Does the Team plan cost 12 euros?", False),
    ],
)
def test_a_query_with_other_numbers_is_noticed(prompt: str, text: str, differ: bool) -> None:
    assert numbers_differ(prompt, text, ()) is differ


def test_a_number_of_an_earlier_turn_is_known() -> None:
    assert not numbers_differ(
        "Who won the 2025 final?", "And who lost by 3 goals?", ("About the 2025 final",)
    )


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


def test_a_probability_has_its_bounds_and_its_cap() -> None:
    known = {"names_absent": 0.0, "numbers_differ": False}
    at_bound = STACK.probability(Evidence(logit=2.0, similarity=0.9, **known))
    assert STACK.probability(Evidence(logit=50.0, similarity=0.99, **known)) == at_bound
    assert (
        STACK.probability(Evidence(logit=2.0, similarity=0.9, **{**known, "numbers_differ": True})) < at_bound
    )
    assert STACK.probability(Evidence(logit=-2.0, similarity=0.9, **known)) == STACK.probability(
        Evidence(logit=-50.0, similarity=0.9, **known)
    )


def test_what_is_not_worth_reading_could_not_have_reached_the_threshold(
    classifier: CrossEncoderClassifier,
) -> None:
    near, far = candidate(), candidate("Who founded the Orchard Museum of Tavel?")
    query = Query(text="Who runs Acme?")
    assert classifier.can_reach_threshold(query, near, 0.6)
    assert not classifier.can_reach_threshold(query, far, 0.95)
    for read in (near, far):
        (probability,) = probabilities_of(classifier, query, [read])
        assert not classifier.can_reach_threshold(query, read, 1.0)
        assert classifier.can_reach_threshold(query, read, probability)


def test_a_candidate_is_read_that_could_just_reach_a_threshold(classifier: CrossEncoderClassifier) -> None:
    query, near = Query(text="Who runs Acme?"), candidate()
    highest = STACK.probability(evidence(query, near, math.inf))
    assert classifier.can_reach_threshold(query, near, highest)
    assert not classifier.can_reach_threshold(query, near, math.nextafter(highest, 1))


@pytest.fixture(scope="module")
def shipped() -> CrossEncoderClassifier:
    return CrossEncoderClassifier(
        SHIPPED, encoder_fingerprint=read_calibration(SHIPPED)[1].encoder_fingerprint
    )


def test_the_shipped_weights_do_not_reveal_where_they_were_made() -> None:
    assert b'.py"' not in (SHIPPED / "model.onnx").read_bytes()


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
        ("The standing desk Alto costs", "349 euros", "How much is the Alto standing desk?", True),
        ("The standing desk Alto costs", "349 euros", "How heavy is the Alto standing desk?", False),
        ("How do I turn on night light in Owl?", "Press F7", "How do I switch on night light in Owl?", True),
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
    ("prompt", "target", "query", "similarity", "in_scope"),
    [
        (
            "In which month is tunnel 2 of the Skarn pass road closed for repairs?", "May",
            "skarn pass road 2nd tunnel repairs - which month shut", 0.9412, True,
        ),
        (
            "In which month is tunnel 2 of the Skarn pass road closed for repairs?", "May",
            "Isn't May the month when they close the second tunnel of the Skarn pass road for repairs?",
            0.8713, True,
        ),
        (
            "When does support for Quillix 11 LTS end?", "March 2033",
            "End of life for Quillix v11 LTS?", 0.8128, True,
        ),
        (
            "When does Garrick's Garden Centre open on Sundays?", "11 am",
            "What time does Garrick's Garden Centre open on the last day of the weekend, i.e. Sun?",
            0.8921, True,
        ),
        (
            "Which terminal does Orchid Airways use at the airport of Malmar?", "Terminal 2",
            "At which counter does Orchid Airways check in bags in Malmar?", 0.7546, False,
        ),
        (
            "When does flight QX 417 arrive in Corvell?", "21:40",
            "qx 4170 landing time corvell", 0.7247, False,
        ),
        (
            "Who is the principal conductor of the Tilburn Philharmonic?", "Aurelia Vance",
            "Who manages the Tilburn Philharmonic?", 0.8907, False,
        ),
        (
            "What is the maximum file size for uploads to Dropyard?", "250 MB",
            "How much storage do I have on Dropyard in total?", 0.6284, False,
        ),
    ],
)  # fmt: skip
def test_the_shipped_threshold_lies_between_near_hits_and_near_misses(
    shipped: CrossEncoderClassifier, prompt: str, target: str, query: str, similarity: float, in_scope: bool
) -> None:
    """Queries of the contrast sets kept from training: those in scope have .92 to .96, the others .77 to .86.

    A threshold of .70 or .97, or half the logit's weight, decides some of them wrongly. The similarities are
    those of the embedded encoder. New weights or a new calibration need queries near their own threshold.
    """
    near = msgspec.structs.replace(candidate(prompt, target), similarity=similarity)
    (probability,) = probabilities_of(shipped, Query(text=query), [near])
    assert (probability >= shipped.scope_threshold) is in_scope
    assert (0.915 < probability < 0.965) if in_scope else (0.75 < probability < 0.88)


def test_the_shipped_weights_agree_in_onnx_runtime_and_torch() -> None:
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
            OnnxPairModel(SHIPPED, max_tokens=80),
            TorchPairModel(SHIPPED, max_tokens=80, device="cpu"),
        )
    )
    assert np.abs(here - there).max() < 0.15
    assert np.abs(here - there).mean() < 0.03
