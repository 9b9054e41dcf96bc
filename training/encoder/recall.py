"""What an encoder retrieves: whether the right edit is among the nearest, and how much else has to be read.

Shape suffixes: F forms of all edits, E edits, T texts of a query, N queries, D embedding width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.domain.edits import first_version, forms
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.retrieval import retrieval_texts
from training.benchmarks import catalogue
from training.benchmarks.base import Case, Probe
from training.benchmarks.decision_cases import WRITTEN_SETS
from training.data.contrasts import filled_in, load_contrast_sets
from training.data.conversations import chat_query
from training.scope.observations import MAX_CANDIDATES, NAMESPACE
from training.scope.validation_sets import attribute_benchmark, contrast_case, names_its_subject

OTHERS = ("wikifactdiff", "zsre", "counterfact-validation")
"""Benchmarks whose edits are stored too and whose rephrased prompts are asked."""
UNRELATED = "unrelated"
_OWN_WORDS = "prompt"
"""The kind of probe that asks an edit's own prompt."""
_BATCH = 32


class HeldOutQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query and the edit that it is in the scope of; None: unrelated."""

    group: str
    query: Query
    own: str | None = None
    """The prompt of the edit; another edit of the same prompt is as right."""


class Retrieval(msgspec.Struct, frozen=True, kw_only=True):
    """What the index gives for a query."""

    group: str
    rank: int | None
    """Of the right edit, from 1; None: unrelated."""
    own: float | None
    """Cosine with the right edit."""
    nearest: tuple[float, ...]
    """Cosines with the nearest edits, at most `MAX_CANDIDATES`."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Floor and margin of cosines, chosen as calibration chooses them."""

    floor: float
    margin: float


class GroupRecall(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    group: str
    count: int
    among_candidates: float
    """Share of the queries whose right edit is among `MAX_CANDIDATES`, and within the limits."""
    first: float
    own_median: float
    read: float
    """Candidates within the limits, on average."""
    unread: float
    """Share of the queries with none."""


def retrieval_material(data: Path, *, per_group: int, seed: int) -> tuple[list[Case], list[HeldOutQuery]]:
    """All edits to store, and the queries: nothing of it was trained on, see the modules it comes from.

    Of each group, a source with its language, at most `per_group` queries.
    """
    rng = random.Random(seed)
    cases: list[Case] = []
    queries: list[HeldOutQuery] = []
    for source, sets in (
        ("contrasts", [contrast for contrast in load_contrast_sets() if contrast.is_held_out]),
        ("written", load_contrast_sets(WRITTEN_SETS)),
    ):
        for number, contrast in enumerate(sets):
            if not names_its_subject(contrast):
                continue
            case = contrast_case(
                f"{source}-{number}", contrast, filled_in(contrast, rng, 0, own_prompts=True)
            )
            cases.append(case)
            queries += _queries(f"{source} {contrast.language}", case, case.probes)
    attributes = attribute_benchmark(data, seed=seed)
    cases += attributes.cases
    for case in attributes.cases:
        for is_foreign in (False, True):
            probes = [p for p in case.probes if p.kind.endswith("other language") == is_foreign]
            queries += _queries("attributes, other language" if is_foreign else "attributes", case, probes)
    for name in OTHERS:
        benchmark = catalogue.open_benchmark(name)
        cases += benchmark.cases
        for case in benchmark.cases:
            queries += _queries(name, case, [p for p in case.probes if p.kind == "rephrase"])
    traffic = [p for p in catalogue.open_benchmark(UNRELATED).traffic if not p.context]
    for probe in rng.sample(traffic, min(4 * per_group, len(traffic))):
        if (read := chat_query(probe.context, probe.text)) is not None:
            queries.append(HeldOutQuery(group=UNRELATED, query=read))
    rng.shuffle(queries)
    kept: dict[str, list[HeldOutQuery]] = {}
    for query in queries:
        group = kept.setdefault(query.group, [])
        if len(group) < per_group * (4 if query.group == UNRELATED else 1):
            group.append(query)
    return cases, [query for group in sorted(kept) for query in kept[group]]


def _queries(group: str, case: Case, probes: Iterable[Probe]) -> list[HeldOutQuery]:
    made = []
    for probe in probes:
        query = chat_query(probe.context, probe.text)
        if probe.in_scope and probe.kind != _OWN_WORDS and query is not None:
            made.append(HeldOutQuery(group=group, query=query, own=case.edit.prompt))
    return made


def retrieved(
    encoder: Encoder,
    cases: Sequence[Case],
    queries: Sequence[HeldOutQuery],
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[Retrieval]:
    """Search all edits of `cases` for each query, as the gateway's index does.

    Raises:
        ModelUnavailableError: The encoder failed.
    """
    owners: list[int] = []
    texts: list[str] = []
    prompts: dict[str, int] = {}  # edits of one prompt count as one
    for case in cases:
        for text in forms(first_version(case.edit, namespace=NAMESPACE)):
            owners.append(prompts.setdefault(case.edit.prompt, len(prompts)))
            texts.append(text)
    order = np.argsort(np.asarray(owners), kind="stable")
    forms_FD = _encoded(encoder, [texts[place] for place in order], "edits encoded", on_progress)
    starts_E = np.searchsorted(np.asarray(owners)[order], np.arange(len(prompts)))
    searched = [retrieval_texts(query.query) for query in queries]
    vectors = iter(
        _encoded(encoder, [text for row in searched for text in row], "queries encoded", on_progress)
    )
    made = []
    for query, row in zip(queries, searched, strict=True):
        vectors_TD = np.stack([next(vectors) for _ in row])
        cosines_E = np.maximum.reduceat((vectors_TD @ forms_FD.T).max(axis=0), starts_E)
        own = None if query.own is None else float(cosines_E[prompts[query.own]])
        nearest = np.sort(cosines_E)[::-1][:MAX_CANDIDATES]
        made.append(
            Retrieval(
                group=query.group,
                rank=None if own is None else 1 + int((cosines_E > own).sum()),
                own=own,
                nearest=tuple(float(cosine) for cosine in nearest),
            )
        )
    return made


def _encoded(
    encoder: Encoder, texts: Sequence[str], stage: str, on_progress: Callable[[str, int, int], None]
) -> Vectors:
    parts = []
    for start in range(0, len(texts), _BATCH):
        parts.append(encoder.encode(texts[start : start + _BATCH]))
        on_progress(stage, min(start + _BATCH, len(texts)), len(texts))
    return np.concatenate(parts)


def chosen_limits(
    results: Sequence[Retrieval], *, below: float = 0.001, floor_slack: float = 0.02,
    behind: float = 0.995, margin_slack: float = 0.01,
) -> Limits:  # fmt: skip
    """By the quantiles that calibration takes, of the queries whose right edit is among the candidates."""
    right = [(r.own, r.nearest[0]) for r in results if r.own is not None and _is_candidate(r)]
    own_N = np.array([own for own, _ in right])
    behind_N = np.array([first - own for own, first in right])
    return Limits(
        floor=round(float(np.quantile(own_N, below)) - floor_slack, 3),
        margin=round(float(np.quantile(behind_N, behind)) + margin_slack, 3),
    )


def report(results: Sequence[Retrieval], limits: Limits) -> list[GroupRecall]:
    """A line a group, groups in order."""
    groups: Mapping[str, list[Retrieval]] = {
        name: [r for r in results if r.group == name] for name in sorted({r.group for r in results})
    }
    lines = []
    for name, rows in groups.items():
        read_N = np.array([_read(row, limits) for row in rows])
        own = [row.own for row in rows if row.own is not None]
        lines.append(
            GroupRecall(
                group=name, count=len(rows),
                among_candidates=_share(_is_candidate(r) and _within(r, limits) for r in rows),
                first=_share(r.rank == 1 for r in rows),
                own_median=float(np.median(own)) if own else float(np.median([r.nearest[0] for r in rows])),
                read=float(read_N.mean()), unread=float((read_N == 0).mean()),
            )
        )  # fmt: skip
    return lines


def _is_candidate(row: Retrieval) -> bool:
    return row.rank is not None and row.rank <= MAX_CANDIDATES


def _within(row: Retrieval, limits: Limits) -> bool:
    return row.own is not None and row.own >= max(limits.floor, row.nearest[0] - limits.margin)


def _read(row: Retrieval, limits: Limits) -> int:
    least = max(limits.floor, row.nearest[0] - limits.margin)
    return sum(cosine >= least for cosine in row.nearest)


def _share(values: Iterable[bool]) -> float:
    known: NDArray[np.float64] = np.array([float(value) for value in values])
    return float(known.mean())
