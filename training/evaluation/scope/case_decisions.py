"""Decides single cases as a gateway would, each in its own namespace, and counts what is right by kind."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from serac_gateway.config.model import RoutingConfig
from serac_gateway.data_plane.protocols.all_text import all_text
from serac_gateway.domain.edits import first_version, forms
from serac_gateway.domain.queries import Query, query_of_messages
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.models.loading import open_form_reader
from serac_gateway.routing.router import EditRouter, RouteDecision
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import FormVectors, StoredEdit
from training.benchmarks.decision_cases import DecisionCase
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.terminal import OnProgress, silent


class CaseDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided for a case."""

    case: DecisionCase
    target: str | None
    """Of the edit that governs; None: none does."""
    prompt: str | None
    """Of that edit, else of the most probable one."""
    scope_probability: float | None

    @property
    def is_right(self) -> bool:
        """Whether that is what the case expects."""
        return self.case.is_right(self.target)


def decide_cases(
    models: GatewayModels,
    cases: Sequence[DecisionCase],
    *,
    routing: RoutingConfig | None = None,
    on_progress: OnProgress = silent,
) -> list[CaseDecision]:
    """One decision a case, in order. Runs an event loop of its own.

    Raises:
        ModelUnavailableError: Encoder or classifier failed.
    """
    edits = ActiveEdits(store=InMemoryEditStore(), encoder=models.encoder, make_index=models.make_index)
    edits.loaded = True
    router = EditRouter(
        encoder=models.encoder, active_edits=edits, classifier=models.classifier,
        config=routing or RoutingConfig(), reader=open_form_reader(models.encoder),
    )  # fmt: skip
    namespaces = asyncio.run(_stored(models, edits, cases))
    made = []
    for done, (case, namespace) in enumerate(zip(cases, namespaces, strict=True), 1):
        query = query_of_messages(list(case.messages))
        if isinstance(query, Query):
            decision = _decided(router, namespace, case, query)
            governing = decision.governing_edits
            best = decision.candidates[0] if decision.candidates else None
            made.append(
                CaseDecision(
                    case=case,
                    target=governing[0].target_new if governing else None,
                    prompt=governing[0].prompt if governing else best.edit.prompt if best else None,
                    scope_probability=decision.scope_probability,
                )
            )
        else:
            made.append(CaseDecision(case=case, target=None, prompt=None, scope_probability=None))
        on_progress("decided", done, len(cases))
    return made


def _decided(router: EditRouter, namespace: str, case: DecisionCase, query: Query) -> RouteDecision:
    """The decision on the query; suppressions see every text of the request, as in the data plane."""
    (decision,) = router.decide(namespace, [query])
    if not router.has_suppressions(namespace) or decision.refusal is not None:
        return decision
    texts = all_text({"messages": list(case.messages)})
    return router.decide_suppression(namespace, texts, decided=query) or decision


async def _stored(models: GatewayModels, edits: ActiveEdits, cases: Sequence[DecisionCase]) -> list[str]:
    """Store the edits of every case, equal ones once, and return each case's namespace."""
    known: dict[bytes, str] = {}
    namespaces = []
    for case in cases:
        key = msgspec.json.encode(case.edits)
        if key not in known:
            known[key] = namespace = f"case-{len(known)}"
            versions = [first_version(draft, namespace=namespace) for draft in case.edits]
            await edits.apply(
                namespace,
                [
                    StoredEdit(
                        edit=edit,
                        vectors=FormVectors(
                            fingerprint=models.encoder.fingerprint,
                            vectors_FD=models.encoder.encode(forms(edit)),
                        ),
                    )
                    for edit in versions
                ],
            )
        namespaces.append(known[key])
    return namespaces


def summary(decisions: Sequence[CaseDecision]) -> dict[str, Any]:
    """Shares of right decisions: over all cases, as a mean over kinds, by kind, and by language and side."""
    kinds: dict[str, list[bool]] = defaultdict(list)
    languages: dict[str, list[bool]] = defaultdict(list)
    for decision in decisions:
        side = "in" if decision.case.in_scope else "out"
        kinds[f"{decision.case.kind}, {side}"].append(decision.is_right)
        languages[f"{decision.case.language}, {side}"].append(decision.is_right)
    by_kind = {kind: _share(right) for kind, right in sorted(kinds.items())}
    return {
        "cases": len(decisions),
        "right": _share([decision.is_right for decision in decisions])["right"],
        "mean_over_kinds": round(sum(row["right"] for row in by_kind.values()) / max(1, len(by_kind)), 4),
        "by_kind": by_kind,
        "by_language": {name: _share(right) for name, right in sorted(languages.items())},
    }


def _share(right: Sequence[bool]) -> dict[str, Any]:
    return {"right": round(sum(right) / max(1, len(right)), 4), "cases": len(right)}


def rows(measured: dict[str, Any]) -> list[list[str]]:
    """A table of a summary, worst kinds first."""
    made = [["kind", "right", "cases"]]
    both = {**measured["by_kind"], **(measured["by_language"] if len(measured["by_language"]) > 2 else {})}
    for kind, share in sorted(both.items(), key=lambda item: item[1]["right"]):
        made.append([kind, f"{share['right']:.3f}", str(share["cases"])])
    made.append(["mean over kinds", f"{measured['mean_over_kinds']:.3f}", ""])
    made.append(["all", f"{measured['right']:.3f}", str(measured["cases"])])
    return made
