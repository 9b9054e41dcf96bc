"""The semantic case tables: what looks in scope and is not, and the other way round. Our own text.

`semantic_edits.jsonl` holds the edits, all stored together; `semantic_tables.txt` holds the queries and says
at its head and in each table what in scope means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.benchmarks.base import Benchmark, Case, Probe, Role
from training.data.conversations import Turn

EDITS_FILE = Path(__file__).with_name("semantic_edits.jsonl")
TABLES_FILE = Path(__file__).with_name("semantic_tables.txt")


def load() -> Benchmark:
    """All tables of this repository."""
    return read(TABLES_FILE)


def read(path: Path, *, edits_path: Path = EDITS_FILE) -> Benchmark:
    """The tables of one file; a probe's kind is the name of its table.

    Raises:
        ConfigError: A line is no query of a table, or names no edit.
    """
    drafts = {
        draft.id: draft
        for line in edits_path.read_text("utf-8").splitlines()
        if line and (draft := msgspec.json.decode(line, type=EditDraft)).id
    }
    probes: dict[str, list[Probe]] = defaultdict(list)
    for edit_id, probe in _probes(path):
        if edit_id not in drafts:
            raise ConfigError(
                f"{path.name}: query {probe.text!r} names the edit {edit_id!r}, which is not there"
            )
        probes[edit_id].append(probe)
    cases = (
        Case(
            edit=draft,
            relation=draft.id,  # the tables say what is right, so no query is contested
            probes=(Probe(kind="prompt", text=draft.prompt, in_scope=True), *probes[draft.id or ""]),
        )
        for draft in drafts.values()
    )
    return Benchmark(name="semantic", role=Role.VALIDATION, cases=tuple(cases))


def _probes(path: Path) -> Iterator[tuple[str, Probe]]:
    table = None
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        sign, rest = line[:2], line[2:].strip()
        if not line.strip() or sign in ("# ", "> "):
            continue
        if sign == "= ":
            table = rest
            continue
        edit_id, bar, text = (part.strip() for part in rest.partition("|"))
        if table is None or sign not in ("+ ", "- ") or not bar or not text:
            raise ConfigError(
                f"{path.name}, line {number}: {line[:60]!r} is no query; write '+ edit | query' or"
                " '- edit | query' below a '= table' line"
            )
        *turns, query = (part.strip() for part in text.split(">>"))
        yield (
            edit_id,
            Probe(
                kind=table,
                text=query,
                in_scope=sign == "+ ",
                context=tuple(map(_turn, turns)),
                relation=edit_id,
            ),
        )


def _turn(text: str) -> Turn:
    speaker, colon, said = text.partition(":")
    if not colon or speaker not in ("U", "A"):
        raise ConfigError(f"turn {text[:60]!r} does not begin with 'U:' or 'A:'")
    return Turn(role="user" if speaker == "U" else "assistant", text=said.strip())
