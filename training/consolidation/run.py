"""A consolidation from the edits to the report: each step leaves a file, and one that is there is not redone.

    plan.json → before.json → changed.safetensors → after.json → report.json, report.md, card.md

What is judged is what ships: the replies of after.json are those of the base model with the file's tensors in
it, not of the model that the method left in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from serac_gateway.domain.consolidation import (
    Absorption,
    ConsolidatedEdit,
    ConsolidationReport,
    Drift,
    LeftOut,
    decode_report,
    sealed,
)
from serac_gateway.domain.edits import Edit, EditDraft
from serac_gateway.errors import ConfigError, InvalidRequestError
from training.baselines.base import silent
from training.baselines.causal_model import CausalModel
from training.consolidation.changed_weights import (
    WEIGHTS_FILE,
    apply_tensors,
    changed_tensors,
    file_digest,
    parameters_of,
    write_tensors,
)
from training.consolidation.judging import judged
from training.consolidation.live_edits import choose
from training.consolidation.pages import card_page, report_page
from training.consolidation.probes import EditProbes, plan_probes, read_given_probes
from training.consolidation.recipes import Recipe
from training.consolidation.replies import (
    General,
    Replies,
    general_probes,
    kept_share,
    read_replies,
    right_share,
)
from training.progress import OnProgress
from training.runs import TrainingError, begin_run

PLAN, BEFORE, AFTER, REPORT = "plan.json", "before.json", "after.json", "report.json"

_T = TypeVar("_T")


class ConsolidationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made by; a folder belongs to one."""

    gateway: str
    namespace: str
    """As on the command line: "" for the API key's own."""
    method: str
    settings: dict[str, Any]
    """Of the method, as in its TOML file."""
    model: str
    base_digest: str
    edits: int | None = None
    probes: str | None = None
    unrelated: int = 60
    questions: int = 100
    max_tokens: int = 16
    max_perplexity_rise: float = 0.15
    """A model whose perplexity on unrelated text rises by a larger share has no edit absorbed."""
    seed: int = 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained and asked, frozen when the edits were read."""

    namespace: str
    probes: tuple[EditProbes, ...]
    conflicts: dict[str, str]
    refusals: dict[str, str]
    """Why the method does not take an edit, by id."""
    left_out: tuple[LeftOut, ...]
    beyond: int
    general: General


def consolidate(
    model: CausalModel,
    recipe: Recipe,
    config: ConsolidationConfig,
    out: Path,
    *,
    read_edits: Callable[[], Sequence[Edit]],
    settings_file: Path | None = None,
    on_progress: OnProgress = silent,
) -> ConsolidationReport:
    """Run what is not finished in `out`; the model is then the changed one.

    Args:
        model: The base model, unedited.
        recipe: The method.
        config: What the folder is a run of.
        out: The folder.
        read_edits: Called once, where there is no plan yet.
        settings_file: The method's settings; None: the default ones.
        on_progress: As everywhere.

    Raises:
        TrainingError: The folder is of another configuration, a file in it is damaged, no edit can be
            consolidated, or the method failed.
        ConfigError: The model lacks what the method changes, or data are missing.
    """
    begin_run(out, config)
    plan = _kept(out / PLAN, Plan, lambda: _plan(model, recipe, config, read_edits()))
    before = _kept(out / BEFORE, Replies, lambda: _replies(model, plan, config, "before", on_progress))
    weights = out / WEIGHTS_FILE
    if not weights.is_file():
        _edit(model, recipe, plan, weights, settings_file, on_progress)
    apply_tensors(model, weights)
    after = _kept(out / AFTER, Replies, lambda: _replies(model, plan, config, "after", on_progress))
    report = _report(config, plan, before, after, file_digest(weights))
    (out / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    (out / "report.md").write_text(report_page(report, plan.beyond), encoding="utf-8")
    (out / "card.md").write_text(card_page(report), encoding="utf-8")
    return report


def read_report(out: Path) -> ConsolidationReport:
    """The report of a finished run.

    Raises:
        TrainingError: There is none, or it is damaged.
    """
    try:
        return decode_report((out / REPORT).read_bytes())
    except (OSError, InvalidRequestError) as exc:
        raise TrainingError(f"cannot read {str(out / REPORT)!r}: {exc}") from exc


def _kept(path: Path, kind: type[_T], make: Callable[[], _T]) -> _T:
    """What the file holds, which is made and written first where it is not there."""
    if path.is_file():
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except ValueError as exc:  # msgspec's errors are ValueErrors
            raise TrainingError(
                f"{str(path)!r} is damaged: {exc}; delete it and all that was made after it"
            ) from exc
    made = make()
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(made))
    partial.replace(path)
    return made


def _plan(model: CausalModel, recipe: Recipe, config: ConsolidationConfig, edits: Sequence[Edit]) -> Plan:
    chosen = choose(edits, limit=config.edits)
    if not chosen.facts:
        raise TrainingError(
            f"of {len(edits):,} live edits none is a fact without a window: there is nothing to consolidate"
        )
    given = {} if config.probes is None else read_given_probes(Path(config.probes))
    known = {edit.id for edit in edits}
    if strangers := sorted(given.keys() - known):
        raise ConfigError(
            f"the probes {config.probes!r} name edit {strangers[0]!r}, which is not live in this namespace"
        )
    probes = plan_probes(chosen.facts, given, trains_wordings=recipe.trains_wordings, seed=config.seed)
    return Plan(
        namespace=chosen.facts[0].namespace,
        probes=tuple(probes),
        conflicts=chosen.conflicts,
        refusals={edit.id: why for edit in chosen.facts if (why := _refusal(model, recipe, edit))},
        left_out=chosen.left_out,
        beyond=chosen.beyond,
        general=general_probes(unrelated=config.unrelated, questions=config.questions, seed=config.seed),
    )


def _refusal(model: CausalModel, recipe: Recipe, edit: Edit) -> str | None:
    if not recipe.needs_subject:
        return None
    if not edit.subject:
        return "the method needs the edit's subject; set it (`serac edits change ID --subject …`)"
    try:
        model.subject_end(model.prompt_text(edit.prompt), edit.subject)
    except TrainingError as exc:
        return str(exc)
    return None


def _replies(
    model: CausalModel, plan: Plan, config: ConsolidationConfig, part: str, on_progress: OnProgress
) -> Replies:
    return read_replies(
        model, plan.probes, plan.general, max_tokens=config.max_tokens, part=part, on_progress=on_progress
    )


def _edit(
    model: CausalModel,
    recipe: Recipe,
    plan: Plan,
    weights: Path,
    settings_file: Path | None,
    on_progress: OnProgress,
) -> None:
    """Make the edits, write what changed, and take them back."""
    drafts = [
        EditDraft(
            prompt=text, target_new=probes.edit.target_new, subject=probes.edit.subject,
            target_true=probes.edit.target_true,
        )
        for probes in plan.probes
        if probes.edit.id not in plan.conflicts and probes.edit.id not in plan.refusals
        for text in (probes.edit.prompt, *probes.trained)
    ]  # fmt: skip
    if not drafts:
        raise TrainingError("the method takes none of the edits; the plan has the reasons")
    before, fingerprint = parameters_of(model), model.fingerprint()
    method = recipe.opens(model, settings_file)
    try:
        method.prepare(on_progress=on_progress)
        method.edit(drafts, on_progress=on_progress)
        write_tensors(weights, changed_tensors(before, method))
    finally:
        method.undo()
        method.close()
    if model.fingerprint() != fingerprint:
        raise TrainingError(
            f"after its undo {method.name!r} left {model.name!r} changed: this is an error of the method"
        )


def _report(
    config: ConsolidationConfig, plan: Plan, before: Replies, after: Replies, digest: str
) -> ConsolidationReport:
    refusal = _refused(config, before, after)
    edits = [
        judged(
            probes, before, after,
            conflict=plan.conflicts.get(probes.edit.id), refusal=plan.refusals.get(probes.edit.id),
        )
        for probes in plan.probes
    ]  # fmt: skip
    return sealed(
        ConsolidationReport(
            gateway=config.gateway, namespace=plan.namespace, model=config.model,
            base_digest=config.base_digest, method=config.method, settings=config.settings,
            artefact=WEIGHTS_FILE, artefact_digest=digest, made_at=datetime.now(UTC),
            edits=tuple(edit if refusal is None else _not_absorbed(edit, refusal) for edit in edits),
            left_out=plan.left_out, drift=_drift(plan.general, before, after), refusal=refusal,
        )
    )  # fmt: skip


def _refused(config: ConsolidationConfig, before: Replies, after: Replies) -> str | None:
    rise = after.perplexity / before.perplexity - 1
    if math.isfinite(rise) and rise <= config.max_perplexity_rise:
        return None
    allowed = f"{config.max_perplexity_rise:.0%}"
    return f"the model's perplexity on unrelated text rose by {rise:.0%} (allowed {allowed})"


def _not_absorbed(edit: ConsolidatedEdit, refusal: str) -> ConsolidatedEdit:
    if edit.state is not Absorption.ABSORBED:
        return edit
    return msgspec.structs.replace(
        edit, state=Absorption.PARTIAL, why=f"all wordings get its answer, but {refusal}"
    )


def _drift(general: General, before: Replies, after: Replies) -> Drift:
    return Drift(
        unrelated=len(general.unrelated),
        unrelated_kept=kept_share(general, before, after),
        questions=len(general.questions),
        right_before=right_share(general, before),
        right_after=right_share(general, after),
        perplexity_before=before.perplexity,
        perplexity_after=after.perplexity,
    )
