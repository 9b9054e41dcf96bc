"""Relations and the ways people ask about them: our own tables in `relation_tables/`, read into records.

A table is plain text. A relation begins with ``= ID name | subject type -> object type``; the lines below it
hold phrasings apart by ``;``: ``n`` nouns, ``q`` questions, ``s`` statements, ``y`` yes/no questions, and
``fr``, ``de``, ``es`` questions in other languages. ``[X]`` is the subject, ``[Y]`` the answer. ``~`` names
relations so near that a phrasing of one may answer the other.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

TABLES = Path(__file__).parent / "relation_tables"
LANGUAGES = ("fr", "de", "es")

SUPERTYPES: dict[str, tuple[str, ...]] = {
    "country": ("place",),
    "city": ("place",),
    "worker": ("person",),
    "software": ("product",),
    "game": ("work", "product"),
    "team": ("company",),
    "station": ("company",),
    "airline": ("company",),
    "shop": ("company",),
    "airport": ("building",),
    "party": ("company",),
}
"""What may also be asked about a subject of the type on the left."""

VAGUE_NOUNS = frozenset({"location", "place", "name", "origin", "type", "kind", "role", "title", "language"})
"""Nouns that fit two near relations."""


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """One relation and its phrasings."""

    id: str
    name: str
    subject_type: str
    object_type: str
    nouns: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    yes_no: tuple[str, ...] = ()
    foreign: tuple[tuple[str, str], ...] = ()
    """(language, question)."""
    near: frozenset[str] = frozenset()

    @property
    def clozes(self) -> tuple[str, ...]:
        """Statements cut before a final answer, "[X] was born in"."""
        return tuple(s[: s.index("[Y]")].rstrip() for s in self.statements if s.endswith("[Y]"))


def load_relations(folder: Path = TABLES) -> dict[str, Relation]:
    """Every relation of the tables in `folder`, by id.

    Raises:
        ValueError: A line that is no phrasing, an id given twice, a phrasing without its subject.
    """
    relations: dict[str, Relation] = {}
    for path in sorted(folder.glob("*.txt")):
        if path.name == "pools.txt":
            continue
        for block in path.read_text(encoding="utf-8").split("\n= "):
            relation = _relation(block.removeprefix("= "), path.name)
            if relation.id in relations:
                raise ValueError(f"relation {relation.id!r} of {path.name} stands in two places; rename one")
            relations[relation.id] = relation
    near: dict[str, set[str]] = {rid: set(r.near) for rid, r in relations.items()}
    for rid, others in list(near.items()):
        for other in others & near.keys():
            near[other].add(rid)
    return {rid: msgspec.structs.replace(r, near=frozenset(near[rid])) for rid, r in relations.items()}


def load_pools(folder: Path = TABLES) -> dict[str, tuple[str, ...]]:
    """Values by type from `pools.txt`; values may hold ``{…}`` to be filled at random."""
    pools: dict[str, tuple[str, ...]] = {}
    for line in (folder / "pools.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, values = line.partition(":")
            pools[name.strip()] = _split(values)
    return pools


def types_of(subject_type: str) -> frozenset[str]:
    """The type itself and what else a subject of it may be asked about."""
    return frozenset({subject_type, *SUPERTYPES.get(subject_type, ())})


def _relation(block: str, file_name: str) -> Relation:
    head, *lines = block.strip().splitlines()
    label, _, types = head.partition("|")
    subject_type, _, object_type = types.partition("->")
    relation_id, _, name = label.strip().partition(" ")
    parts: dict[str, tuple[str, ...]] = {}
    for line in lines:
        key, colon, rest = line.partition(":")
        if not colon or key not in {"n", "q", "s", "y", "~", *LANGUAGES}:
            raise ValueError(f"{file_name}: line {line!r} of relation {relation_id!r} is no phrasing")
        parts[key] = tuple(rest.split()) if key == "~" else _split(rest)
    for key in ("q", "s", "y", *LANGUAGES):
        for phrasing in parts.get(key, ()):
            if "[X]" not in phrasing:
                raise ValueError(
                    f"{file_name}: {phrasing!r} of relation {relation_id!r} lacks its subject [X]"
                )
    return Relation(
        id=relation_id,
        name=name.strip(),
        subject_type=subject_type.strip(),
        object_type=object_type.strip(),
        nouns=parts.get("n", ()),
        questions=parts.get("q", ()),
        statements=parts.get("s", ()),
        yes_no=parts.get("y", ()),
        foreign=tuple((lang, text) for lang in LANGUAGES for text in parts.get(lang, ())),
        near=frozenset(parts.get("~", ())),
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for raw in text.split(";") if (part := raw.strip()))
