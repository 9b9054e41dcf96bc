"""The editing methods by name, as the command knows them; a method is imported when it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serac_gateway.errors import ConfigError
from training.runs import read_config

if TYPE_CHECKING:  # torch takes seconds
    from training.baselines.base import EditingMethod
    from training.baselines.causal_model import CausalModel

CONFIGS = Path("configs/baselines")
OpensMethod = Callable[["CausalModel", Path | None], "EditingMethod"]
"""Makes the method on a model, by the settings in a TOML file; None: configs/baselines/<name>.toml."""


def _unedited(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.context import Unedited

    return Unedited(model)


def _in_context(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.context import InContext

    return InContext(model)


def _rag(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.context import open_retrieved_edits

    return open_retrieved_edits(model, config)


def _ike(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.ike import open_ike

    return open_ike(model, config)


def _serac(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.serac import open_serac

    return open_serac(model, config)


def _gateway(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.evaluation.answers.methods.gateway import open_in_process

    return open_in_process(model)


def _gateway_http(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.evaluation.answers.methods.gateway import open_over_http

    return open_over_http(model)


def _grace(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.grace import Grace, GraceSettings

    return Grace(model, read_config(config or CONFIGS / "grace.toml", GraceSettings))


def _fine_tuning(name: str) -> OpensMethod:
    def opened(model: CausalModel, config: Path | None) -> EditingMethod:
        from training.baselines import finetune

        kinds = (
            finetune.FullFineTuning,
            finetune.LastLayersFineTuning,
            finetune.PromptEndFineTuning,
            finetune.ConstrainedFineTuning,
            finetune.TargetFineTuning,
        )
        (kind,) = (kind for kind in kinds if kind.name == name)
        return kind(model, read_config(config or CONFIGS / f"{name}.toml", finetune.FineTuningSettings))

    return opened


def _rome(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.rome import open_rome

    return open_rome(model, config)


def _memit(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.memit import open_memit

    return open_memit(model, config)


def _alphaedit(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.alphaedit import open_alphaedit

    return open_alphaedit(model, config)


def _lora(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.lora import LoraEditing, LoraSettings

    return LoraEditing(model, read_config(config or CONFIGS / "lora.toml", LoraSettings))


def _contrastive(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.contrastive import ContrastiveGradient, ContrastiveSettings

    return ContrastiveGradient(
        model, read_config(config or CONFIGS / "contrastive.toml", ContrastiveSettings)
    )


def _task_vectors(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.task_vectors import TaskVectors, TaskVectorSettings

    return TaskVectors(model, read_config(config or CONFIGS / "task-vectors.toml", TaskVectorSettings))


def _steering(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.steering import Steering, SteeringSettings

    return Steering(model, read_config(config or CONFIGS / "steering.toml", SteeringSettings))


def _representation(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.steering import RepresentationEngineering, SteeringSettings

    return RepresentationEngineering(
        model, read_config(config or CONFIGS / "representation.toml", SteeringSettings)
    )


def _t_patcher(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.t_patcher import TPatcher, TPatcherSettings

    return TPatcher(model, read_config(config or CONFIGS / "t-patcher.toml", TPatcherSettings))


def _wise(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.wise import Wise, WiseSettings

    return Wise(model, read_config(config or CONFIGS / "wise.toml", WiseSettings))


def _mend(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.mend import Mend, MendSettings

    return Mend(model, read_config(config or CONFIGS / "mend.toml", MendSettings))


def _ke(model: CausalModel, config: Path | None) -> EditingMethod:
    from training.baselines.knowledge_editor import KnowledgeEditor, KnowledgeEditorSettings

    return KnowledgeEditor(model, read_config(config or CONFIGS / "ke.toml", KnowledgeEditorSettings))


METHODS: Mapping[str, OpensMethod] = {
    "unedited": _unedited,
    "in-context": _in_context,
    "ike": _ike,
    "rag": _rag,
    "serac": _serac,
    "gateway": _gateway,
    "gateway-http": _gateway_http,
    "grace": _grace,
    "ft-all": _fine_tuning("ft-all"),
    "ft-last": _fine_tuning("ft-last"),
    "ft-l": _fine_tuning("ft-l"),
    "ft-c": _fine_tuning("ft-c"),
    "ft-m": _fine_tuning("ft-m"),
    "rome": _rome,
    "memit": _memit,
    "alphaedit": _alphaedit,
    "lora": _lora,
    "contrastive": _contrastive,
    "task-vectors": _task_vectors,
    "steering": _steering,
    "representation": _representation,
    "t-patcher": _t_patcher,
    "wise": _wise,
    "mend": _mend,
    "ke": _ke,
}


def method_opener(name: str) -> OpensMethod:
    """What opens the method of that name.

    Raises:
        ConfigError: There is none.
    """
    if name not in METHODS:
        raise ConfigError(f"no editing method is named {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
