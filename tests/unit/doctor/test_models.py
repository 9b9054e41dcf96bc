"""The files of models, and whether they fit together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from serac_gateway.config.model import GatewayConfig, ModelsConfig, UpstreamConfig
from serac_gateway.doctor.findings import Level, exit_code
from serac_gateway.doctor.models import model_report
from serac_gateway.models.language_models.embedded_gemma import gemma_folder
from serac_gateway.models.loading import SHIPPED_ADAPTER, SHIPPED_CLASSIFIER

ELSEWHERE = {"counterfactual": "m", "counterfactual_url": "http://localhost/v1"}


def config(tmp_path: Path, **models: str) -> GatewayConfig:
    return GatewayConfig(
        data_dir=str(tmp_path),
        upstream=UpstreamConfig(url="http://localhost/v1"),
        models=ModelsConfig(**models),
    )


def test_what_ships_fits_together_and_has_the_pinned_digests(tmp_path: Path) -> None:
    report = model_report(config(tmp_path))
    assert exit_code(report.findings) == 0
    assert report.fingerprint is not None
    assert report.fingerprint.startswith("e5-int8-v1-")
    assert any("pinned digests" in finding.detail for finding in report.findings)


def test_a_converted_model_that_is_not_what_was_made_is_a_warning(tmp_path: Path) -> None:
    folder = gemma_folder(tmp_path, SHIPPED_ADAPTER)
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"half")
    (folder / "digests.json").write_text(json.dumps({"model.bin": "0" * 64}))
    (bad,) = [finding for finding in model_report(config(tmp_path)).findings if finding.level is Level.WARN]
    assert "'model.bin' is damaged" in bad.detail


@pytest.mark.parametrize("damage", ["absent", "cut", "foreign", "nonsense"])
def test_a_classifier_that_is_absent_cut_or_for_another_encoder_fails(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "classifier"
    if damage != "absent":
        shutil.copytree(SHIPPED_CLASSIFIER, folder)
    if damage == "cut":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100_000])
    if damage == "foreign":
        calibration = json.loads((folder / "calibration.json").read_text())
        (folder / "calibration.json").write_text(json.dumps(calibration | {"encoder_fingerprint": "other"}))
    if damage == "nonsense":
        (folder / "calibration.json").write_text("[]")
    findings = model_report(config(tmp_path, scope_classifier=str(folder), **ELSEWHERE)).findings
    (bad,) = [finding for finding in findings if finding.level is Level.FAIL]
    assert "scope classifier" in bad.detail
    assert bad.remedy


def test_an_adapter_that_cannot_be_read_fails(tmp_path: Path) -> None:
    findings = model_report(config(tmp_path, counterfactual_adapter=str(tmp_path / "none"))).findings
    assert exit_code(findings) == 2
