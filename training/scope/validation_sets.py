"""The sets a threshold is chosen on: none of them marked test; a user's own rows on request."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.benchmarks import catalogue
from training.benchmarks.base import Benchmark, Case, Probe, Role, chosen, prepared
from training.benchmarks.decision_cases import WRITTEN_SETS
from training.data.attributes import AttributePairs, load_attributes, load_entities, load_values
from training.data.contrasts import ContrastSet, Filling, filled_in, load_contrast_sets
from training.data.conversations import Turn
from training.data.fact_source import FactSource
from training.data.facts import counterfact_relation, template_of
from training.data.files import data_folder
from training.data.own_data import Traffic
from training.data.pairs import Pair
from training.data.public_sets import unrelated_texts
from training.data.world import load_world
from training.scope.mined import written_prompts
from training.scope.mixture import is_held_out_attribute
from training.scope.pair_generator import PairMaker

GENERATED_GROUPS = 600


def validation_benchmarks(names: Sequence[str], *, held_out: Sequence[str], seed: int) -> list[Benchmark]:
    """The benchmarks of those names.

    Made here: "generated", "contrasts", "attributes", "unrelated".

    Raises:
        ConfigError: A name is unknown, or names a test set.
    """
    made = []
    for name in names:
        if name == "contrasts":
            made.append(contrast_benchmark(load_contrast_sets(), seed=seed))
        elif name == "attributes":
            made.append(attribute_benchmark(data_folder(), seed=seed))
        elif name == "generated":
            made.append(generated(held_out, seed=seed))
        elif name == "unrelated":
            texts = [*unrelated_texts(data_folder(), held_out=True), *written_prompts(held_out=True)]
            made.append(unrelated_benchmark(name, texts))
        else:
            benchmark = catalogue.open_benchmark(name)
            if benchmark.role is Role.TEST:
                raise ConfigError(f"{name!r} is marked test; no threshold may be chosen on it")
            made.append(chosen(_true_paraphrases(benchmark), edits=None, seed=seed))
    return _contested_marked(_distinct_subjects(made))


def unrelated_benchmark(name: str, texts: Sequence[str]) -> Benchmark:
    """Traffic that no edit answers, and no edits."""
    traffic = tuple(Probe(kind="unrelated", text=text, in_scope=False) for text in sorted(set(texts)))
    return Benchmark(name=name, role=Role.VALIDATION, cases=(), traffic=traffic)


def contrast_benchmark(sets: Sequence[ContrastSet], *, seed: int) -> Benchmark:
    """The held-out sets as cases, two edits of each set, all their queries as probes.

    Left out are edits that name no subject ("What are the opening hours?"): in one store with all others they
    rightly answer what is out of scope of those.
    """
    rng = random.Random(seed)
    cases = []
    for number, contrast in enumerate(sets):
        if not contrast.is_held_out or not names_its_subject(contrast):
            continue
        for place in range(min(2, len(contrast.subjects))):
            filling = filled_in(contrast, rng, place)
            cases.append(contrast_case(f"contrast-{number}-{place}", contrast, filling))
    return Benchmark(name="contrasts", role=Role.VALIDATION, cases=tuple(cases))


def attribute_benchmark(data: Path, *, seed: int, edits: int = 300) -> Benchmark:
    """Edits of attributes that training leaves out, asked for by other names and in other languages."""
    held_out = [attribute for attribute in load_attributes(data) if is_held_out_attribute(attribute)]
    maker = AttributePairs(held_out, load_entities(data), load_values(data), random.Random(seed))
    groups: dict[tuple[str, str], list[Pair]] = {}
    for foreign in (0.0, 0.9):
        for pair in maker.pairs(edits // 2, foreign=foreign):
            groups.setdefault((pair.prompt, pair.target), []).append(pair)
    cases = tuple(
        Case(
            edit=EditDraft(
                id=f"attribute-{number}", prompt=prompt, target_new=target, subject=pairs[0].subject
            ),
            probes=tuple(_probe(pair) for pair in pairs),
        )
        for number, ((prompt, target), pairs) in enumerate(groups.items())
    )
    return Benchmark(name="attributes", role=Role.VALIDATION, cases=cases)


def general_benchmark(name: str, *, sets: int, seed: int) -> Benchmark:
    """Of the written sets, which nobody trains on, half in English and half in the other languages.

    One edit of each that names a subject, all their queries as probes.
    """
    rng = random.Random(seed)
    every = [contrast for contrast in load_contrast_sets(WRITTEN_SETS) if names_its_subject(contrast)]
    english = [contrast for contrast in every if contrast.language == "en"]
    others = [contrast for contrast in every if contrast.language != "en"]
    drawn = rng.sample(others, min(sets // 2, len(others)))
    drawn += rng.sample(english, min(sets - len(drawn), len(english)))
    return Benchmark(
        name=name,
        role=Role.VALIDATION,
        cases=tuple(
            contrast_case(f"written-{number}", contrast, filled_in(contrast, rng, 0, own_prompts=True))
            for number, contrast in enumerate(drawn)
        ),
    )


def names_its_subject(contrast: ContrastSet) -> bool:
    """Whether its edit can be told apart from those of all other sets, in one store with them."""
    return all("[X]" in prompt or "[V]" in prompt for prompt in contrast.prompts)


def contrast_case(case_id: str, contrast: ContrastSet, filling: Filling) -> Case:
    """An edit of the set with all its queries as probes."""
    probes = tuple(
        Probe(
            kind=line.kind, text=filling.fill(line.text), in_scope=line.in_scope,
            context=tuple(Turn(role=t.role, text=filling.fill(t.text)) for t in line.turns),
        )
        for line in contrast.lines
    )  # fmt: skip
    edit = EditDraft(id=case_id, prompt=filling.prompt, target_new=filling.target, subject=filling.subject)
    return Case(edit=edit, probes=probes)


def own_benchmark(edits: Sequence[EditDraft], traffic: Sequence[Traffic]) -> Benchmark:
    """All of a user's edits in force, and rows that were not trained on as probes."""
    probes: dict[str | None, list[Probe]] = {}
    for logged in traffic:
        kind = "own" if logged.edit_id is not None else "own unrelated"
        probes.setdefault(logged.edit_id, []).append(
            Probe(kind=kind, text=logged.query, in_scope=logged.edit_id is not None, context=_turns(logged))
        )
    cases = tuple(Case(edit=edit, probes=tuple(probes.get(edit.id, ()))) for edit in edits)
    return Benchmark(name="own", role=Role.VALIDATION, cases=cases, traffic=tuple(probes.get(None, ())))


def _turns(logged: Traffic) -> tuple[Turn, ...]:
    system = (Turn(role="system", text=logged.instructions),) if logged.instructions else ()
    return (*system, *(Turn(role="user", text=turn) for turn in logged.context))


def _true_paraphrases(benchmark: Benchmark) -> Benchmark:
    """CounterFact without the generation prompts ("…'s surroundings include") among its validation rephrases.

    Those ask for what follows from an edit, not for it; kept are rephrases in a phrasing of the relation.
    """
    if benchmark.name != "counterfact-validation":
        return benchmark
    clozes = load_world(data_folder()).clozes

    def is_kept(case: Case, probe: Probe) -> bool:
        if probe.kind != "rephrase" or case.edit.subject is None:
            return True
        tail = template_of(probe.text, case.edit.subject)
        own = counterfact_relation(case.edit.prompt, case.edit.subject, clozes)
        return any(tail.endswith(cloze) for rid in own for cloze in clozes[rid])

    return msgspec.structs.replace(
        benchmark,
        cases=tuple(
            msgspec.structs.replace(case, probes=tuple(p for p in case.probes if is_kept(case, p)))
            for case in benchmark.cases
        ),
    )


def _distinct_subjects(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """The benchmarks without cases whose subject an earlier benchmark edits: two would answer one query."""
    taken: set[str] = set()
    kept = []
    for benchmark in benchmarks:
        cases = tuple(
            case for case in benchmark.cases if (case.edit.subject or case.id).casefold() not in taken
        )
        taken |= {(case.edit.subject or case.id).casefold() for case in benchmark.cases}
        kept.append(msgspec.structs.replace(benchmark, cases=cases))
    return kept


def _contested_marked(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """The benchmarks with negatives marked that an edit of any of them may rightly answer."""
    everything = prepared(
        Benchmark(
            name="all",
            role=Role.VALIDATION,
            cases=tuple(case for benchmark in benchmarks for case in benchmark.cases),
        )
    )
    marked = iter(everything.cases)
    return [
        msgspec.structs.replace(benchmark, cases=tuple(next(marked) for _ in benchmark.cases))
        for benchmark in benchmarks
    ]


def generated(held_out: Sequence[str], *, seed: int) -> Benchmark:
    """Edits of held-out relations with every kind of query that training makes: noise, doubt, lures."""
    world = load_world(data_folder())
    relations = [world.relations[rid] for rid in held_out if rid in world.relations]
    maker = PairMaker(FactSource(relations, world.facts, world.names, world.passages, seed + 1_000))
    groups: dict[str, list[Pair]] = {}
    for pair in maker.pairs(GENERATED_GROUPS):
        if pair.subject is not None:
            groups.setdefault(pair.subject.casefold(), []).append(pair)
    subjects = frozenset(groups)
    cases = []
    for number, (subject, pairs) in enumerate(groups.items()):
        first = pairs[0]
        edit = EditDraft(
            id=f"generated-{number}", prompt=first.prompt, target_new=first.target, subject=first.subject
        )
        own = [
            p
            for p in pairs
            if (p.prompt, p.target) == (first.prompt, first.target)
            and not (p.context and not p.in_scope and _names_one(p, subjects - {subject}))
        ]
        cases.append(Case(edit=edit, probes=tuple(_probe(pair) for pair in own)))
    return Benchmark(name="generated", role=Role.VALIDATION, cases=tuple(cases))


def _names_one(pair: Pair, subjects: frozenset[str]) -> bool:
    """Whether a query or its turns name another case's subject, whose edit may then rightly answer."""
    said = " ".join((*pair.context, pair.text)).casefold()
    return any(subject in said for subject in subjects)


def _probe(pair: Pair) -> Probe:
    context = tuple(
        Turn(role="assistant" if i % 2 else "user", text=text) for i, text in enumerate(pair.context)
    )
    return Probe(kind=pair.kind, text=pair.text, in_scope=pair.in_scope, context=context)
