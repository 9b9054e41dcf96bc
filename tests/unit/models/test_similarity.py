import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import Candidate
from serac_gateway.models.classifiers.similarity import SimilarityCalibration, SimilarityClassifier, logistic
from serac_gateway.testing import WordEncoder
from training.benchmarks.base import Benchmark, Probe, Role, fact, probes
from training.evaluation.scope import similarity_calibration
from training.evaluation.scope.similarity_calibration import (
    Outcomes,
    calibrate,
    fitted,
    measured,
    operating_point,
)

SHIPPED = Path(__file__).parents[3] / "serac_gateway" / "models" / "weights" / "similarity-minilm"
EMBEDDED_FINGERPRINT = "onnx-int8-v1-53aa51172d142c89"


def candidate(similarity: float) -> Candidate:
    edit = first_version(
        EditDraft(prompt="Who leads Oru?", target_new="Ana"),
        namespace="n",
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Candidate(edit=edit, form=edit.prompt, similarity=similarity)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    calibration = SimilarityCalibration(
        encoder_fingerprint="words", slope=20.0, intercept=-15.0, scope_threshold=0.5
    )
    similarity_calibration.write(calibration, tmp_path)
    return tmp_path


def test_the_probability_follows_the_logistic_curve_and_keeps_the_candidates_order(folder: Path) -> None:
    classifier = SimilarityClassifier(folder, encoder_fingerprint="words")
    classified = classifier.classify(Query(text="q"), [candidate(0.75), candidate(1.0), candidate(-1.0)])
    probabilities = [classification.scope_probability for classification in classified]
    assert probabilities == pytest.approx([0.5, 1 / (1 + np.exp(-5)), 1 / (1 + np.exp(35))])
    assert classifier.classify(Query(text="q"), []) == []


def test_the_logistic_curve_does_not_overflow() -> None:
    assert logistic(-1e6) == 0.0
    assert logistic(1e6) == 1.0


def test_a_calibration_of_another_encoder_is_refused_with_the_remedy(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"'words'.*'other'.*serac-train calibrate-similarity"):
        SimilarityClassifier(folder, encoder_fingerprint="other")


def test_a_missing_calibration_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read.*serac-train calibrate-similarity"):
        SimilarityClassifier(tmp_path, encoder_fingerprint="words")


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "{",
        lambda record: json.dumps({**record, "slope": -3}),
        lambda record: json.dumps({**record, "scope_threshold": 1.5}),
        lambda record: json.dumps({**record, "unknown": 1}),
    ],
)
def test_a_damaged_calibration_is_refused(folder: Path, damage: Callable[[dict[str, object]], str]) -> None:
    path = folder / "calibration.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(ConfigError, match="damaged"):
        SimilarityClassifier(folder, encoder_fingerprint="words")


def test_the_fingerprint_changes_with_the_calibration(folder: Path) -> None:
    before = SimilarityClassifier(folder, encoder_fingerprint="words").fingerprint
    path = folder / "calibration.json"
    path.write_text(path.read_text().replace("20.0", "21.0"))
    assert SimilarityClassifier(folder, encoder_fingerprint="words").fingerprint != before


def test_the_shipped_calibration_loads_for_the_embedded_encoder_and_names_its_origin() -> None:
    classifier = SimilarityClassifier(SHIPPED, encoder_fingerprint=EMBEDDED_FINGERPRINT)
    assert 0 < classifier.scope_threshold < 1
    shipped = msgspec.json.decode((SHIPPED / "calibration.json").read_bytes(), type=SimilarityCalibration)
    assert {"command", "date", "data_sha256", "probes", "at_threshold"} <= shipped.provenance.keys()
    assert not any(
        "counterfact_500" in file or "mend_eval" in file for file in shipped.provenance["data_sha256"]
    )


# -- calibration


def benchmark() -> Benchmark:
    places = ["Oru", "Ketti", "Moss", "Vala", "Brin", "Dorn"]
    return Benchmark(
        name="places",
        role=Role.VALIDATION,
        cases=tuple(
            fact(
                f"place-{number}",
                prompt=f"Who is mayor of {place}?",
                target_new=f"Person {number}",
                subject=place,
                probes=(
                    *probes("rephrase", [f"Who is the mayor of {place}?"], in_scope=True),
                    *probes("same_subject", [f"How many people live near {place} river?"], in_scope=False),
                ),
            )
            for number, place in enumerate(places)
        ),
        traffic=(Probe(kind="unrelated", text="Bake bread without yeast", in_scope=False),),
    )


def test_calibration_separates_rephrased_questions_from_others_about_the_subject() -> None:
    encoder = WordEncoder(width=256)
    calibration = calibrate(
        encoder=encoder,
        make_index=lambda: FaissFlatIndex(256),
        benchmarks=[benchmark()],
        provenance={"command": "test"},
    )
    assert calibration.encoder_fingerprint == encoder.fingerprint
    at_threshold = calibration.provenance["at_threshold"]
    assert at_threshold["hit"] == 1.0
    assert at_threshold["no_fire"] == 1.0
    assert calibration.provenance["edits"] == 6
    assert calibration.provenance["probes"] == {
        "places/rephrase": 6, "places/same_subject": 6, "places/unrelated": 1,
    }  # fmt: skip


def test_a_query_whose_nearest_edit_is_another_one_is_no_hit_at_any_threshold() -> None:
    cases = (
        fact(
            "a",
            prompt="capital of Oru",
            target_new="x",
            subject="Oru",
            probes=probes("rephrase", ["mayor of Ketti"], in_scope=True),
        ),
        fact("b", prompt="mayor of Ketti", target_new="y", subject="Ketti", probes=()),
    )
    stored = Benchmark(name="s", role=Role.VALIDATION, cases=cases)
    (outcome,) = measured([stored], WordEncoder(), FaissFlatIndex(64))
    assert not outcome.right_B.any()
    assert operating_point([outcome, negatives()], -1.0).hit == 0.0


def negatives() -> Outcomes:
    return Outcomes(
        name="n", in_scope=False, similarity_B=np.array([0.2, 0.6]), right_B=np.array([False, False])
    )


def test_rates_are_means_over_sets_whatever_their_sizes() -> None:
    large = Outcomes(
        name="large", in_scope=True, similarity_B=np.full(8, 0.9), right_B=np.ones(8, dtype=np.bool_)
    )
    small = Outcomes(
        name="small", in_scope=True, similarity_B=np.array([0.4]), right_B=np.ones(1, dtype=np.bool_)
    )
    point = operating_point([large, small, negatives()], 0.5)
    assert (point.hit, point.no_fire, point.harmonic) == (0.5, 0.5, 0.5)
    assert point.by_set == {"large": 1.0, "small": 0.0, "n": 0.5}


def test_one_sided_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="no positive probes"):
        fitted([negatives()])
