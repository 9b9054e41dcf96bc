"""Reports of consolidations that none made, for the tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from serac_gateway.domain.consolidation import (
    Absorption,
    ConsolidatedEdit,
    ConsolidationReport,
    Drift,
    Rates,
    sealed,
)

NO_DRIFT = Drift(
    unrelated=0, unrelated_kept=None, questions=0, right_before=None, right_after=None,
    perplexity_before=None, perplexity_after=None,
)  # fmt: skip


def report_of(
    edits: Iterable[Mapping[str, Any]], states: Mapping[str, Absorption], *, namespace: str = "default"
) -> ConsolidationReport:
    """The report on edits as the API shows them; those that `states` does not name are absorbed."""
    rates = Rates(prompt=1.0, trained=1.0, held_back=1.0, neighbours=1.0)
    consolidated = tuple(
        ConsolidatedEdit(
            id=edit["id"], version=edit["version"],
            created_at=msgspec.convert(edit["created_at"], datetime),
            prompt=edit["prompt"], target_new=edit["target_new"],
            state=states.get(edit["id"], Absorption.ABSORBED), why="measured",
            before=Rates(prompt=0.0), after=rates, answer_before="x", answer_after=edit["target_new"],
        )
        for edit in edits
    )  # fmt: skip
    return sealed(
        ConsolidationReport(
            gateway="http://127.0.0.1:1", namespace=namespace, model="gemma", base_digest="0" * 64,
            method="lora", settings={"rank": 8}, artefact="adapter.safetensors", artefact_digest="1" * 64,
            made_at=datetime(2026, 12, 1, tzinfo=UTC), edits=consolidated, left_out=(), drift=NO_DRIFT,
        )
    )  # fmt: skip
