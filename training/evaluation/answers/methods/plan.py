"""What a run of a method does: rounds of edits on an untouched model, and what is asked after each.

A round makes N edits one after another and asks the cases chosen for it; then everything is undone. With
fewer edits a round than cases to ask there are several rounds: the papers' single-edit protocol is N = 1.
The same cases are asked at every N, so that curves over N compare like with like. In a round they stand
among the other edits in random order: how well an edit holds depends on how many came after it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import msgspec

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.benchmarks.base import Benchmark, Case, Probe, chosen, prepared
from training.evaluation.answers.methods.outcomes import Group


class PlannedProbe(msgspec.Struct, frozen=True, kw_only=True):
    """One text to ask."""

    group: Group
    kind: str
    text: str
    answers: tuple[str, ...] = ()
    """What is right, or for what must not change what is published as true; the first is forced."""
    verdict: bool | None = None
    """It wants yes (True) or no instead."""
    is_ambiguous: bool = False
    """Another edit of the round may rightly answer it, or changes what its answer rests on: not counted."""


class PlannedCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case with its texts."""

    case: Case
    rival_answers: tuple[str, ...]
    """New answers of the round's other edits that ask the same."""
    probes: tuple[PlannedProbe, ...]


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """Edits on an untouched model."""

    number: int
    edits: tuple[EditDraft, ...]
    """In the order in which they are made."""
    cases: tuple[PlannedCase, ...]
    """Asked at the end."""


def rounds(
    benchmark: Benchmark, *, edits: int, ask: int, seed: int, per_kind: int = 2, open_texts: int | None = None
) -> tuple[list[Round], int]:
    """The rounds of a run, and how many of the benchmark's cases are unusable.

    Args:
        benchmark: All of it.
        edits: Cases edited in a round, N; those with companions have more edits.
        ask: Cases asked in all rounds together.
        seed: Draws cases, their order, and what is put around prompts.
        per_kind: At most so many probes of a kind and case.
        open_texts: Cases whose subject gets an open text to be continued, which takes longest; None: all.

    Raises:
        ConfigError: The benchmark has fewer cases than a round is to edit.
    """
    usable = chosen(benchmark, edits=None, seed=seed)
    if edits > len(usable.cases):
        raise ConfigError(
            f"{benchmark.name} has {len(usable.cases):,} cases to edit, not {edits:,}; give --edits "
            f"{len(usable.cases)} or less"
        )
    rng = random.Random(seed)
    drawn = rng.sample(usable.cases, len(usable.cases))
    measured, fillers = drawn[:ask], drawn[ask:]
    with_open_text = {case.id for case in measured[:open_texts]}
    made: list[Round] = []
    for begin in range(0, len(measured), edits):
        own = measured[begin : begin + edits]
        cases = [*own, *fillers[: max(0, edits - len(own))]]
        marked = prepared(msgspec.structs.replace(usable, cases=tuple(cases)))
        target_of = {case.id: case.edit.target_new for case in marked.cases}
        order = rng.sample(marked.cases, len(marked.cases))
        made.append(
            Round(
                number=len(made),
                edits=tuple(draft for case in order for draft in (case.edit, *case.companions)),
                cases=tuple(
                    PlannedCase(
                        case=case,
                        rival_answers=tuple(target_of[rival] for rival in case.rivals),
                        probes=tuple(planned_probes(case, seed=seed, per_kind=per_kind))
                        + (open_text(case) if case.id in with_open_text else ()),
                    )
                    for case in marked.cases[: len(own)]
                ),
            )
        )
    return made, usable.left_out


def planned_probes(case: Case, *, seed: int, per_kind: int) -> Iterator[PlannedProbe]:
    """The texts of a case; the same ones for the same seed."""
    rng = random.Random(f"{seed} {case.id}")
    target = (case.edit.target_new,)
    of_scope = [(probe, _group(probe)) for probe in case.probes]
    entailed = [(probe, Group.PORTABILITY) for probe in case.entailed]
    counts: Counter[tuple[Group, str]] = Counter()
    for probe, group in (*of_scope, *entailed):
        counts[group, probe.kind] += 1
        if probe.context or probe.kind == "generation" or counts[group, probe.kind] > per_kind:
            continue
        planned = PlannedProbe(
            group=group,
            kind=probe.kind,
            text=probe.text,
            answers=probe.answers or (target if probe.in_scope else ()),
            verdict=probe.verdict,
            is_ambiguous=probe.contested,
        )
        yield planned
        if probe.kind == "neighbour":
            # CounterFact+ (Hoelscher-Obermaier et al., arXiv 2305.17553): the edited fact before it.
            statement = f"{case.edit.prompt.strip()} {case.edit.target_new.strip()}."
            yield msgspec.structs.replace(
                planned, kind="neighbour after the edit", text=f"{statement} {probe.text}"
            )
    verdict = next((probe.verdict for probe in case.probes if probe.kind == "prompt"), None)
    for kind, text in disturbed(case.edit, rng):
        yield PlannedProbe(group=Group.ROBUSTNESS, kind=kind, text=text, answers=target, verdict=verdict)


def open_text(case: Case) -> tuple[PlannedProbe, ...]:
    """What shows fluency, where the edit has a subject."""
    if not case.edit.subject:
        return ()
    text = f"{case.edit.subject} is known for"
    return (PlannedProbe(group=Group.FLUENCY, kind="open text", text=text),)


def _group(probe: Probe) -> Group:
    if not probe.in_scope:
        return Group.LOCALITY
    return Group.RELIABILITY if probe.kind == "prompt" else Group.GENERALIZATION


_NOISE = (
    "The meeting was moved to Thursday because the room is being painted.",
    "My train was late again and the coffee machine is broken.",
    "Thanks for the photos, the garden looks lovely this year.",
    "I have read half of the book and like the second chapter best.",
)
_PARAGRAPH = (
    "The old harbour was quiet in the morning. A few boats, painted blue and white, moved slowly out to sea"
    " while the shopkeepers opened their doors and talked about the weather. In the afternoon the square"
    " filled with visitors, who bought postcards, bread and fruit, and sat on the steps of the fountain until"
    " it grew dark. Nobody noticed the small ferry that came in late with two passengers and a bicycle on"
    " board."
)


def disturbed(edit: EditDraft, rng: random.Random) -> Iterator[tuple[str, str]]:
    """The prompt with something around or in it that changes nothing about the answer: kind and text."""
    prompt = edit.prompt.strip()
    yield "noisy prefix", f"{rng.choice(_NOISE)} {prompt}"
    if edit.target_true:
        yield "doubt", f"Many people think it is {edit.target_true}. {prompt}"
    yield "long context", f"{_PARAGRAPH} {prompt}"
    if edit.subject and (misspelt := _misspelt(edit.subject, rng)) and edit.subject in prompt:
        yield "misspelling", prompt.replace(edit.subject, misspelt)


def _misspelt(subject: str, rng: random.Random) -> str | None:
    """With two neighbouring inner letters of its longest word exchanged; None: no word is long enough."""
    word = max(subject.split(), key=len)
    places = [
        at for at in range(1, len(word) - 2) if word[at] != word[at + 1] and word[at : at + 2].isalpha()
    ]
    if not places:
        return None
    at = rng.choice(places)
    return subject.replace(word, f"{word[:at]}{word[at + 1]}{word[at]}{word[at + 2 :]}", 1)
