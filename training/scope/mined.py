"""Hard pairs: unrelated requests that the current weights take for an edit's, and what they know not yet.

Requests are put to a store of many edits as the gateway does it (`observations.observe`), and what a current
classifier finds likely is trained on as out of scope, in the spirit of Xiong et al. 2021 (ANCE, arXiv
2007.00808): negatives drawn at random are too easy to teach anything. Of the other pairs, few are trained on
that are decided rightly and clearly, as in Jiang et al. 2019 (Selective-Backprop, arXiv 1910.00762).
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from serac_gateway.domain.edits import EditDraft
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.models.classifiers.base import PairModel
from serac_gateway.models.classifiers.pair_text import edit_text, request_text
from serac_gateway.models.encoders.base import Encoder
from training.benchmarks.base import Benchmark, Case, Probe, Role
from training.data.files import read_rows
from training.data.pairs import Pair, shared_names
from training.data.public_sets import is_held_out, unrelated_texts
from training.progress import OnProgress
from training.scope.observations import observe

WRITTEN_PROMPTS = Path(__file__).parent.parent / "data" / "unrelated_prompts"
_ASSISTANTS = ("banking77/train", "clinc150/train", "hwu64/train", "xsid/valid", "xsemplr/mtop")
_CLEARLY_OUT, _CLEARLY_IN = -3.0, 2.5
"""Logits of pairs that are easy: the threshold lies at about -0.5."""
_KEPT_EASY_SHARE = 0.1
"""Of the mined pairs that are far from firing already."""
_QUESTION_CHARS = 200
"""A question longer than this is a message of its own, and is not put among passages."""


class MiningSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many edits and requests are put against each other; no edits: nothing is mined."""

    edits: int = 0
    written: int = 1_000
    """Prompts written by hand, of which there may be fewer."""
    questions: int = 1_500
    """Web questions of zsRE's training rows."""
    assistants: int = 1_500
    """Requests to assistants and to a bank."""
    statements: int = 500
    """Sentences of Tatoeba in many languages."""
    other_edits: int = 1_500
    """Requests that are in scope of another edit."""
    long: int = 600
    """Several sentences of passages and a request, somewhere among them, in one message."""
    easy_share: float = 1.0
    """Of all pairs that the weights decide rightly and clearly, this share is trained on."""


class Unrelated(msgspec.Struct, frozen=True, kw_only=True):
    """A request that no edit of the store answers."""

    text: str
    kind: str
    own: tuple[str, str] | None = None
    """Prompt and target of the edit that it asks for, if it does."""
    around: tuple[str, ...] = ()
    """Of a long message, what it says beside its request."""


def written_prompts(folder: Path = WRITTEN_PROMPTS, *, held_out: bool = False) -> list[str]:
    r"""The prompts of all files, a line each, line breaks as \n; none of them is about an edit.

    One in eight is `held_out`, for the choice of the threshold.
    """
    lines = (line for path in sorted(folder.glob("*.txt")) for line in path.read_text("utf-8").splitlines())
    prompts = [line.replace("\\n", "\n") for line in lines if line.strip() and not line.startswith("# ")]
    return [prompt for prompt in prompts if is_held_out(prompt, one_in=8) == held_out]


def unrelated_requests(
    data: Path, pairs: Sequence[Pair], passages: Sequence[str], settings: MiningSettings, rng: random.Random
) -> list[Unrelated]:
    """Of each source as many as `settings` want, at most all there are."""

    def drawn(kind: str, texts: Sequence[str], count: int) -> Iterator[Unrelated]:
        for text in rng.sample(list(texts), min(count, len(texts))):
            yield Unrelated(text=text, kind=kind)

    written = written_prompts()
    questions = unrelated_texts(data)
    assistants = [row["text"] for name in _ASSISTANTS for row in read_rows(data / f"{name}.jsonl.gz")]
    statements = [row["text"] for row in read_rows(data / "tatoeba/pairs.jsonl.gz")]
    made = [
        *drawn("written", written, settings.written),
        *drawn("question", questions, settings.questions),
        *drawn("assistant", assistants, settings.assistants),
        *drawn("statement", statements, settings.statements),
    ]
    asking = [pair for pair in pairs if pair.in_scope and pair.subject and not pair.context]
    for pair in rng.sample(asking, min(settings.other_edits, len(asking))):
        made.append(Unrelated(text=pair.text, kind="other edit", own=(pair.prompt, pair.target)))
    for _ in range(settings.long):
        around = tuple(rng.sample(list(passages), rng.randint(1, 5)))
        asks = rng.choice((rng.choice(questions), rng.choice(written or questions), rng.choice(assistants)))
        made.append(Unrelated(text=_among(around, asks, rng), kind="long", around=around))
    return made


def _among(around: Sequence[str], text: str, rng: random.Random) -> str:
    """`text` before, behind or between what stands around it."""
    place = rng.choice((0, rng.randint(0, len(around)), len(around)))
    return " ".join((*around[:place], text, *around[place:]))


def mined_pairs(
    pairs: Sequence[Pair],
    requests: Sequence[Unrelated],
    *,
    encoder: Encoder,
    make_index: Callable[[], EditIndex],
    model: PairModel,
    floor: float,
    margin: float,
    unlikely: float,
    edits: int,
    rng: random.Random,
    on_progress: OnProgress,
) -> list[Pair]:
    """Pairs out of scope of `requests` and those of `edits` edits of `pairs` that `model` finds likely.

    To each of a long message one more: the same edit, in scope, asked for among the same passages.
    `floor`, `margin` and `unlikely` are cosines, see `retrieve`. An edit without a subject meets written
    prompts alone, and no edit meets a request that names what it names: it might answer that.

    Raises:
        ModelUnavailableError: The encoder or the model failed.
    """
    of_edit = {
        (pair.prompt, pair.target): pair for pair in pairs if pair.prompt.strip() and pair.target.strip()
    }
    asking: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.in_scope and not pair.context and not pair.instructions and len(pair.text) <= _QUESTION_CHARS:
            asking[(pair.prompt, pair.target)].append(pair.text)
    kept = rng.sample(sorted(of_edit), min(edits, len(of_edit)))
    cases = tuple(
        Case(edit=EditDraft(id=f"mined-{n}", prompt=prompt, target_new=target), probes=())
        for n, (prompt, target) in enumerate(kept)
    )
    known = {request.text: request for request in requests}
    traffic = tuple(Probe(kind=r.kind, text=text, in_scope=False) for text, r in known.items())
    store = Benchmark(name="mined", role=Role.TRAIN, cases=cases, traffic=traffic)
    made = []
    for seen in observe(
        [store], encoder=encoder, make_index=make_index, model=model, floor=floor, margin=margin,
        unlikely=unlikely, on_progress=on_progress,
    ):  # fmt: skip
        request = known.get(seen.text)
        if request is None:  # its text is read in another form
            continue
        for reading in seen.readings:
            key = (reading.prompt, reading.target)
            edit = of_edit[key]
            is_easy = reading.evidence.logit < _CLEARLY_OUT
            if (is_easy and rng.random() >= _KEPT_EASY_SHARE) or _may_answer(edit, request):
                continue
            made.append(
                Pair(prompt=edit.prompt, target=edit.target, text=seen.text, in_scope=False,
                     kind=f"mined, {request.kind}", subject=edit.subject)
            )  # fmt: skip
            if request.around and key in asking:
                text = _among(request.around, rng.choice(asking[key]), rng)
                asks = msgspec.structs.replace(made[-1], text=text, in_scope=True)
                made.append(asks)
    return made


def without_easy(
    pairs: Sequence[Pair], model: PairModel, settings: MiningSettings, rng: random.Random, *,
    on_progress: OnProgress,
) -> list[Pair]:  # fmt: skip
    """`pairs`, but of those that `model` decides rightly and clearly only `settings.easy_share`.

    Raises:
        ModelUnavailableError: The model failed.
    """
    kept = []
    for done, pair in enumerate(pairs, 1):
        edit = edit_text(pair.prompt, pair.target)
        request = request_text(pair.text, pair.context, pair.instructions, edit)
        logit = float(model.logits([(edit, request)])[0][0])
        is_easy = logit > _CLEARLY_IN if pair.in_scope else logit < _CLEARLY_OUT
        if not is_easy or rng.random() < settings.easy_share:
            kept.append(pair)
        on_progress("pairs read", done, len(pairs))
    return kept


def _may_answer(edit: Pair, request: Unrelated) -> bool:
    if edit.subject is None and request.kind != "written":
        return True
    text = request.text.casefold()
    if edit.subject is not None and re.search(rf"\b{re.escape(edit.subject.casefold())}", text):
        return True
    of_own = request.own is not None and shared_names(request.own[0], edit.prompt)
    return of_own or shared_names(request.text, edit.prompt)
