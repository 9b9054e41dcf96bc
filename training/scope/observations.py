"""What the two stages say about validation probes: kept once, calibrated and explained at will."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from serac_gateway.domain.edits import Edit, first_version, forms
from serac_gateway.domain.queries import Query, extract_query
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.models.classifiers.base import Candidate, PairModel
from serac_gateway.models.classifiers.cross_encoder import Evidence, evidence, pair_texts
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.retrieval import merged, retrieval_texts
from training.benchmarks.base import Benchmark, Probe
from training.data.pairs import depends_on_edit
from training.runs import load_records

OBSERVATIONS_FILE = "observations.jsonl"

MAX_CANDIDATES = 8


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
        """With the second logit, which must be there."""
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
    index: EditIndex,
    model: PairModel,
    floor: float,
    cases: int | None = None,
    traffic: int | None = None,
    skip: frozenset[str] = frozenset(),
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda part, done, total: None,
) -> list[Observation]:
    """Store all edits of all benchmarks in `index` (given empty) and read the candidates of their probes.

    `cases` and `traffic` limit the probes asked of a benchmark, not the edits stored; kinds in `skip` and
    contested negatives are left out.
    """
    edits: dict[str, Edit] = {}
    for benchmark in benchmarks:
        for case in benchmark.cases:
            edits[case.id] = first_version(case.edit, namespace="calibration")
    form_texts = {edit_id: forms(edit) for edit_id, edit in edits.items()}
    for done, (edit_id, texts) in enumerate(form_texts.items(), 1):
        index.put([(edit_id, encoder.encode(texts))])
        on_progress("edits stored", done, len(edits))
    asked = _asked(benchmarks, cases=cases, traffic=traffic, skip=skip, rng=random.Random(seed))
    observations = []
    for done, (name, probe, own) in enumerate(asked, 1):
        query = _query(probe)
        if query is None:
            continue
        candidates = _candidates(query, encoder, index, edits, form_texts, floor)
        logits_KO = model.logits([pair_texts(query, one) for one in candidates])
        depends = depends_on_edit(in_scope=probe.in_scope, kind=probe.kind)
        observations.append(
            Observation(
                benchmark=name, kind=probe.kind, text=query.text, context=query.context,
                in_scope=probe.in_scope,
                readings=tuple(
                    Reading(
                        prompt=one.edit.prompt, target=one.edit.target_new,
                        evidence=evidence(query, one, float(logits_O[0])),
                        right=probe.in_scope and one.edit.id in own,
                        depends_logit=float(logits_O[1]) if len(logits_O) > 1 else None,
                        depends=depends if one.edit.id in own else False,
                    )
                    for one, logits_O in zip(candidates, logits_KO, strict=True)
                ),
            )
        )  # fmt: skip
        on_progress("probes read", done, len(asked))
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


def _asked(
    benchmarks: Sequence[Benchmark],
    *,
    cases: int | None,
    traffic: int | None,
    skip: frozenset[str],
    rng: random.Random,
) -> list[tuple[str, Probe, frozenset[str]]]:
    asked = []
    for benchmark in benchmarks:
        drawn = list(benchmark.cases)
        if cases is not None and cases < len(drawn):
            drawn = rng.sample(drawn, cases)
        asked += [
            (benchmark.name, probe, frozenset({case.id, *case.rivals}))
            for case in drawn
            for probe in case.probes
            if probe.kind not in skip and not probe.contested
        ]
        unrelated = list(benchmark.traffic)
        if traffic is not None and traffic < len(unrelated):
            unrelated = rng.sample(unrelated, traffic)
        asked += [(benchmark.name, probe, frozenset()) for probe in unrelated]
    return asked


def _query(probe: Probe) -> Query | None:
    messages = [{"role": turn.role, "content": turn.text} for turn in probe.context]
    messages.append({"role": "user", "content": probe.text})
    found = extract_query("/chat/completions", {"messages": messages})
    return found if isinstance(found, Query) else None


def _candidates(
    query: Query, encoder: Encoder, index: EditIndex, edits: dict[str, Edit],
    form_texts: dict[str, tuple[str, ...]], floor: float,
) -> list[Candidate]:  # fmt: skip
    """As routing.py retrieves them."""
    rows = [
        [
            Candidate(
                edit=edits[found.edit_id],
                form=form_texts[found.edit_id][found.form],
                similarity=found.similarity,
            )
            for found in row
        ]
        for row in index.search(encoder.encode(retrieval_texts(query)), MAX_CANDIDATES)
    ]
    return merged(rows, floor=floor, limit=MAX_CANDIDATES)
