"""The candidates of validation probes with their logits: read once, then calibrated and explained at will.

Candidates come from `serac_gateway.routing.retrieval.retrieve`, as the router's do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from serac_gateway.config.model import RoutingConfig
from serac_gateway.domain.edits import Edit, first_version, forms
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.models.classifiers.base import PairModel
from serac_gateway.models.classifiers.cross_encoder import Evidence, evidence, pair_texts
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.retrieval import WIDEST_MARGIN, retrieve
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import FormVectors, StoredEdit
from training.benchmarks.base import Benchmark, Probe
from training.data.conversations import chat_query
from training.data.pairs import depends_on_edit
from training.runs import load_records

OBSERVATIONS_FILE = "observations.jsonl"

NAMESPACE = "calibration"
MAX_CANDIDATES = RoutingConfig().candidates
"""As many as a router reads by default."""
_STORE_BATCH = 64


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate of a probe."""

    prompt: str
    target: str
    evidence: Evidence
    right: bool
    """Whether this is the edit in whose scope the probe is."""
    depends_logit: float | None = None
    """The second one; None of weights that have only one."""
    depends: bool | None = None
    """Whether a right answer depends on this edit; None: unclear."""

    @property
    def depends_evidence(self) -> Evidence:
        """The evidence with the second logit, which must not be None."""
        assert self.depends_logit is not None
        return msgspec.structs.replace(self.evidence, logit=self.depends_logit)


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One probe with its candidates, nearest first."""

    benchmark: str
    kind: str
    text: str
    context: tuple[str, ...]
    in_scope: bool
    readings: tuple[Reading, ...]

    @property
    def set_name(self) -> str:
        """Benchmark and kind of probe."""
        return f"{self.benchmark}/{self.kind}"


def observe(
    benchmarks: Sequence[Benchmark],
    *,
    encoder: Encoder,
    make_index: Callable[[], EditIndex],
    model: PairModel,
    floor: float,
    margin: float = WIDEST_MARGIN,
    unlikely: float = -1.0,
    cases: int | None = None,
    traffic: int | None = None,
    skip: frozenset[str] = frozenset(),
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[Observation]:
    """Put all edits of all benchmarks in force and read the candidates that the router has for their probes.

    `cases` and `traffic` limit the probes read of each benchmark, not the edits in force; kinds in `skip` and
    contested negatives are left out. `floor`, `margin` and `unlikely` are cosines, see `retrieve`. Runs an
    event loop of its own, so it cannot be called from a coroutine.

    Raises:
        ModelUnavailableError: The encoder or the model failed.
    """
    edits = asyncio.run(_in_force(benchmarks, encoder, make_index, on_progress))
    chosen = _chosen_probes(benchmarks, cases=cases, traffic=traffic, skip=skip, rng=random.Random(seed))
    observations = []
    for done, (name, probe, own_ids) in enumerate(chosen, 1):
        query = chat_query(probe.context, probe.text)
        if query is None:
            continue
        (candidates,) = retrieve(
            NAMESPACE,
            [query],
            encoder=encoder,
            edits=edits,
            floor=floor,
            limit=MAX_CANDIDATES,
            margin=margin,
            unlikely=unlikely,
        ).candidates_B
        logits_KO = model.logits([pair_texts(query, candidate) for candidate in candidates])
        depends = depends_on_edit(in_scope=probe.in_scope, kind=probe.kind)
        observations.append(
            Observation(
                benchmark=name, kind=probe.kind, text=query.text, context=query.context,
                in_scope=probe.in_scope,
                readings=tuple(
                    Reading(
                        prompt=candidate.edit.prompt, target=candidate.edit.target_new,
                        evidence=evidence(query, candidate, float(logits_O[0]), model),
                        right=probe.in_scope and candidate.edit.id in own_ids,
                        depends_logit=float(logits_O[1]) if len(logits_O) > 1 else None,
                        depends=depends if candidate.edit.id in own_ids else False,
                    )
                    for candidate, logits_O in zip(candidates, logits_KO, strict=True)
                ),
            )
        )  # fmt: skip
        on_progress("probes read", done, len(chosen))
    return observations


def load(run: Path) -> list[Observation]:
    """The observations kept in the folder of a run.

    Raises:
        FileNotFoundError: There are none.
    """
    kept = run / OBSERVATIONS_FILE
    if not kept.is_file():
        raise FileNotFoundError(f"{str(kept)!r} is missing; run serac-train calibrate without --reuse first")
    return load_records(kept, Observation)


async def _in_force(
    benchmarks: Sequence[Benchmark],
    encoder: Encoder,
    make_index: Callable[[], EditIndex],
    on_progress: Callable[[str, int, int], None],
) -> ActiveEdits:
    """The edits of all benchmarks, indexed as the gateway indexes stored ones."""
    edits = ActiveEdits(store=InMemoryEditStore(), encoder=encoder, make_index=make_index)
    drafts = list({case.id: case.edit for benchmark in benchmarks for case in benchmark.cases}.values())
    for start in range(0, len(drafts), _STORE_BATCH):
        batch = [first_version(draft, namespace=NAMESPACE) for draft in drafts[start : start + _STORE_BATCH]]
        await edits.apply(NAMESPACE, [_stored(edit, encoder) for edit in batch])
        on_progress("edits stored", start + len(batch), len(drafts))
    return edits


def _stored(edit: Edit, encoder: Encoder) -> StoredEdit:
    vectors = FormVectors(fingerprint=encoder.fingerprint, vectors_FD=encoder.encode(forms(edit)))
    return StoredEdit(edit=edit, vectors=vectors)


def _chosen_probes(
    benchmarks: Sequence[Benchmark],
    *,
    cases: int | None,
    traffic: int | None,
    skip: frozenset[str],
    rng: random.Random,
) -> list[tuple[str, Probe, frozenset[str]]]:
    """Name of the benchmark, probe, and the ids of the edits that may rightly answer it."""
    chosen = []
    for benchmark in benchmarks:
        drawn = list(benchmark.cases)
        if cases is not None and cases < len(drawn):
            drawn = rng.sample(drawn, cases)
        chosen += [
            (benchmark.name, probe, frozenset({case.id, *case.rivals}))
            for case in drawn
            for probe in case.probes
            if probe.kind not in skip and not probe.contested
        ]
        unrelated = list(benchmark.traffic)
        if traffic is not None and traffic < len(unrelated):
            unrelated = rng.sample(unrelated, traffic)
        chosen += [(benchmark.name, probe, frozenset()) for probe in unrelated]
    return chosen
