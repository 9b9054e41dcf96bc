"""The models that the configuration names or that ship: files, digests, and whether they fit together."""

from __future__ import annotations

from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open

from serac_gateway.config.model import GatewayConfig
from serac_gateway.doctor.findings import Finding, failure, fine, warning
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.similarity import CALIBRATION_FILE
from serac_gateway.models.folder_digests import folder_fault
from serac_gateway.models.language_models.embedded_gemma import check_gemma_package, gemma_folder
from serac_gateway.models.loading import SHIPPED_ADAPTER, classifier_folder, encoder_fingerprint

_REINSTALL = "install serac_gateway again, or name another folder"


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the models are like."""

    findings: list[Finding]
    fingerprint: str | None
    """The encoder's; None: it cannot be used."""


class _Calibration(msgspec.Struct, frozen=True, kw_only=True):
    encoder_fingerprint: str


def model_report(config: GatewayConfig) -> ModelReport:
    """Read all files and compare digests; a second with the embedded models, on a worker thread."""
    findings, fingerprint = _encoder(config)
    folders = [("scope classifier", classifier_folder(config.models))]
    if config.models.scope_classifier_shadow is not None:
        folders.append(("scope classifier on trial", Path(config.models.scope_classifier_shadow)))
    for name, folder in folders:
        findings.append(_classifier(name, folder, fingerprint))
    return ModelReport(findings=findings + _language_models(config), fingerprint=fingerprint)


def _encoder(config: GatewayConfig) -> tuple[list[Finding], str | None]:
    name = config.models.encoder or "the embedded multilingual-e5-small"
    try:
        fingerprint = encoder_fingerprint(config)
    except ConfigError as error:
        return [failure("models", f"encoder: {error.message}", "do that, then run this again")], None
    return [fine("models", f"encoder: {name} is {fingerprint}")], fingerprint


def _classifier(name: str, folder: Path, fingerprint: str | None) -> Finding:
    try:
        calibration = msgspec.json.decode((folder / CALIBRATION_FILE).read_bytes(), type=_Calibration)
        _check_tensors(folder)
    except (OSError, msgspec.DecodeError, SafetensorError) as exc:
        return failure("models", f"{name}: {str(folder)!r} cannot be read: {exc}", _REINSTALL)
    if fingerprint is not None and calibration.encoder_fingerprint != fingerprint:
        return failure(
            "models",
            f"{name}: {str(folder)!r} was made for encoder {calibration.encoder_fingerprint}, not for"
            f" {fingerprint}",
            "run `serac-train calibrate`, or leave models.encoder out",
        )
    return fine("models", f"{name}: {folder.name} fits the encoder")


def _language_models(config: GatewayConfig) -> list[Finding]:
    models = config.models
    adapters: list[Path | None] = []
    if config.upstream.url is None:
        adapters.append(None)
    own = Path(models.counterfactual_adapter) if models.counterfactual_adapter else None
    if models.counterfactual is None and models.counterfactual_url is None:
        adapters.append(own or SHIPPED_ADAPTER)
    if not adapters:
        where = models.counterfactual_url or "this process"
        return [fine("models", f"counterfactual model: {models.counterfactual!r}, by {where}")]
    try:
        folders = [gemma_folder(config.data_path, adapter) for adapter in adapters]
        for adapter in adapters:
            if adapter is not None:
                _check_tensors(adapter)
        check_gemma_package()
    except ConfigError as error:
        return [failure("models", f"Gemma: {error.message}", "do that, then run this again")]
    except (OSError, SafetensorError) as exc:
        return [failure("models", f"adapter: its weights cannot be read: {exc}", _REINSTALL)]
    findings = [fine("models", "Gemma 3 270M: its files have the pinned digests")]
    for folder in folders:
        if folder.is_dir() and (fault := folder_fault(folder)) is not None:
            findings.append(
                warning(
                    "models",
                    f"the converted model in {str(folder)!r}: {fault}",
                    "start the gateway again: it is made anew; if it happens again, check the disk",
                )
            )
    return findings


def _check_tensors(folder: Path) -> None:
    """Open the weights in the folder, which shows whether a file is whole, and read none of them."""
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            tensors.keys()
