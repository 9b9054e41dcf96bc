"""Attributes of things with their names in many languages, and pairs that ask for one of them.

Wikidata, DBpedia, schema.org and OpenStreetMap name some 6,000 attributes ("record label", "fax"); far more
kinds of relation than any table of ours. An edit sets one attribute of a subject. A query for it by another
name, in another form or language is in scope; one for a related attribute of the same subject is not.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from training.data.attribute_forms import ASIDES, EDIT_ONLY_FORMS, FORMS, OPEN, YES_NO
from training.data.files import Row, read_rows
from training.data.pairs import Pair

ENGLISH = "en"
_MOST_ALIASES = 6
_LONGEST_NAME = 48
_CODE_LIKE = re.compile(r"\b(?:ID|id|URL|URI|Commons|Wikidata|Wikimedia|Wikipedia|property|item)\b|[_:/]")


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """One attribute of things: a Wikidata property, a field of a place and the like."""

    id: str
    names: dict[str, tuple[str, ...]]
    """Names by language code, the usual one first; English is always there."""
    related: tuple[str, ...] = ()
    """Ids of attributes that are easily confused with it."""
    subject_kind: str = "thing"
    """What has it: thing (Wikidata, DBpedia), product, place."""


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """A subject with its name in each language in which it is known."""

    names: dict[str, str]

    def name(self, language: str) -> str:
        """Its name in `language`, else in English."""
        return self.names.get(language) or self.names[ENGLISH]


def load_attributes(data: Path) -> list[Attribute]:
    """All attributes of the four sources, with names in all languages that have `FORMS`."""
    return [*_wikidata(data), *_dbpedia(data), *_schema_org(data), *_openstreetmap(data)]


def load_entities(data: Path) -> list[Entity]:
    """Persons with names in nine languages and scripts, and other things with an English one."""
    persons = [
        Entity(names={code: name for code, name in row["labels"].items() if name})
        for row in read_rows(data / "wila_popqa/entities.jsonl.gz")
        if row["labels"].get(ENGLISH)
    ]
    rows = read_rows(data / "kamel/subjects_with_several_relations.jsonl.gz")
    return [*persons, *(Entity(names={ENGLISH: row["sub"]}) for row in rows if len(row["sub"]) < 60)]


def load_values(data: Path) -> dict[str, list[str]]:
    """Plausible values by Wikidata property."""
    values: dict[str, list[str]] = defaultdict(list)
    for row in read_rows(data / "kamel/facts_sample.jsonl.gz"):
        for value in row["obj"][:1]:
            text = value if isinstance(value, str) else value.get("chosen") or value.get("rdf")
            if text:
                values[row["pid"]].append(text)
    return dict(values)


class AttributePairs:
    """Draws pairs about attributes."""

    def __init__(
        self,
        attributes: Sequence[Attribute],
        entities: Sequence[Entity],
        values: dict[str, list[str]],
        rng: random.Random,
        *,
        own_names: Sequence[str] = (),
    ) -> None:
        """`own_names` are made-up companies, places and products, for the subjects that no source names."""
        self._attributes = list(attributes)
        self._by_id = {attribute.id: attribute for attribute in attributes}
        self._entities = list(entities)
        self._many_named = [entity for entity in entities if len(entity.names) > 3] or self._entities
        self._values = values
        self._all_values = [value for row in values.values() for value in row[:40]]
        self._own_names = list(own_names)
        self._rng = rng

    def pairs(self, edits: int, *, foreign: float) -> Iterator[Pair]:
        """About six pairs an edit; of the edits, the share `foreign` has queries in other languages."""
        for _ in range(edits):
            yield from self._pairs_of_edit(self._rng.random() < foreign)

    def _pairs_of_edit(self, foreign: bool) -> Iterator[Pair]:
        rng = self._rng
        attribute = rng.choice(self._attributes)
        languages = [code for code in attribute.names if code in FORMS]
        edit_language = ENGLISH if not foreign or rng.random() < 0.6 else rng.choice(languages)
        query_languages = languages if foreign else [ENGLISH]
        entity = self._entity(attribute, foreign)
        target = self._value(attribute)
        other = self._value(attribute)

        def text(forms: Sequence[str], about: Attribute, of: Entity, language: str, value: str = "") -> str:
            name = rng.choice(about.names.get(language) or about.names[ENGLISH])
            form = rng.choice(forms)
            made = form.replace("{a}", name).replace("{A}", name.title()).replace("[X]", of.name(language))
            return (
                made.replace("[T]", target)
                .replace("[Y]", value)
                .replace("[Z]", rng.choice(self._entities).name(language))
            )

        edit_forms = [*FORMS[edit_language], *EDIT_ONLY_FORMS.get(edit_language, ()) * 2]
        prompt = text(edit_forms, attribute, entity, edit_language)

        def pair(query: str, in_scope: bool, kind: str) -> Pair:
            where = "" if not foreign else ", other language"
            return Pair(
                prompt=prompt, target=target, text=_as_typed(query, rng), in_scope=in_scope,
                kind=f"attribute {kind}{where}", subject=entity.name(edit_language),
            )  # fmt: skip

        def query_for(about: Attribute, of: Entity) -> str:
            language = rng.choice(query_languages)
            if language == ENGLISH and rng.random() < 0.15:
                return text(YES_NO, about, of, language, rng.choice((target, other)))
            return text(FORMS[language], about, of, language)

        yield pair(query_for(attribute, entity), True, "asked")
        if rng.random() < 0.7:
            yield pair(query_for(attribute, entity), True, "asked")
        near = [self._by_id[i] for i in attribute.related if i in self._by_id]
        if foreign:
            near = [other for other in near if len(other.names) > 1] or near
        for sibling in rng.sample(near, min(2, len(near))):
            yield pair(query_for(sibling, entity), False, "related")
        far = rng.choice(self._attributes)
        if far.id != attribute.id and not _shares_name(far, attribute):
            yield pair(query_for(far, entity), False, "of the same subject")
        stranger = self._entity(attribute, foreign)
        if stranger.names[ENGLISH] != entity.names[ENGLISH]:
            yield pair(query_for(attribute, stranger), False, "of another subject")
        draw = rng.random()
        if draw < 0.25:
            yield pair(text(OPEN, attribute, entity, rng.choice(query_languages)), False, "open question")
        elif draw < 0.5:
            yield pair(text(ASIDES, attribute, entity, ENGLISH, other), False, "aside")

    def _entity(self, attribute: Attribute, foreign: bool) -> Entity:
        rng = self._rng
        if self._own_names and (attribute.subject_kind != "thing" or rng.random() < 0.2):
            return Entity(names={ENGLISH: rng.choice(self._own_names)})
        return rng.choice(self._many_named if foreign and rng.random() < 0.7 else self._entities)

    def _value(self, attribute: Attribute) -> str:
        known = self._values.get(attribute.id)
        return self._rng.choice(known if known and self._rng.random() < 0.8 else self._all_values)


def _as_typed(text: str, rng: random.Random) -> str:
    """At times without capitals or the mark at the end, or in capitals, as people type."""
    draw = rng.random()
    if draw < 0.2:
        return text.lower().rstrip("?？.؟")
    return text.upper() if draw < 0.22 else text


def _shares_name(left: Attribute, right: Attribute) -> bool:
    def names(attribute: Attribute) -> set[str]:
        return {name.casefold() for row in attribute.names.values() for name in row}

    return bool(names(left) & names(right))


def _kept_names(names: Iterable[str]) -> tuple[str, ...]:
    fit = (name.strip() for name in names if name)
    kept = [name for name in fit if 1 < len(name) <= _LONGEST_NAME and not _CODE_LIKE.search(name)]
    return tuple(dict.fromkeys(kept))[:_MOST_ALIASES]


def _wikidata(data: Path) -> Iterator[Attribute]:
    folder = data / "wikidata_properties"
    rows = {row["pid"]: row for row in read_rows(folder / "properties_en.jsonl.gz")}
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(folder / "labels_multilingual.jsonl.gz"):
        names[row["pid"]][row["lang"]] += [row["label"], *row["aliases"]]
    for row in read_rows(folder / "labels_inventaire.jsonl.gz"):
        names[row["pid"]][row["lang"]].append(row["label"])
    of_class: dict[str, list[str]] = defaultdict(list)
    for pid, row in rows.items():
        for property_class in row.get("property_class", ()):
            of_class[property_class].append(pid)
    for pid, row in rows.items():
        english = _kept_names((row["label"], *row["aliases"]))
        if not english:
            continue
        made = {ENGLISH: english}
        for code, labels in names[pid].items():
            kept = _kept_names(labels)
            if kept and code != ENGLISH:
                made[code] = kept
        yield Attribute(id=pid, names=made, related=_related_properties(pid, row, rows, of_class))


def _related_properties(
    pid: str, row: Row, rows: dict[str, Row], of_class: dict[str, list[str]]
) -> tuple[str, ...]:
    """See-also, sibling and inverse properties, then some of the same class; none that is more general."""
    more_general = {pid, *row.get("subproperty_of", ())}
    near = [*row.get("see_also", ()), *row.get("inverse", ())]
    siblings = [
        p
        for parent in row.get("subproperty_of", ())
        for p, r in rows.items()
        if parent in r.get("subproperty_of", ())
    ]
    classmates = [p for c in row.get("property_class", ()) if len(of_class[c]) < 60 for p in of_class[c]]
    ordered = dict.fromkeys([*near, *siblings[:6], *classmates[:8]])
    return tuple(
        p
        for p in ordered
        if p not in more_general and p in rows and pid not in rows[p].get("subproperty_of", ())
    )


def _dbpedia(data: Path) -> Iterator[Attribute]:
    rows = read_rows(data / "dbpedia_ontology/properties.jsonl.gz")
    by_domain: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_domain[(row.get("domain") or ["Thing"])[0]].append(row["prop"])
    for row in rows:
        names = {code: _kept_names(labels) for code, labels in row["labels"].items()}
        names = {code: kept for code, kept in names.items() if kept}
        if ENGLISH not in names or row.get("wikidata"):
            continue
        mates = by_domain[(row.get("domain") or ["Thing"])[0]]
        yield Attribute(
            id=f"dbpedia:{row['prop']}", names=names, related=_nearest(row["prop"], mates, "dbpedia:")
        )


def _schema_org(data: Path) -> Iterator[Attribute]:
    rows = [row for row in read_rows(data / "schema_org/properties.jsonl.gz") if not row["superseded_by"]]
    by_domain: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for domain in row["domain"]:
            by_domain[domain].append(row["prop"])
    for row in rows:
        names = _kept_names([row["label"]])
        if names:
            mates = [prop for domain in row["domain"] for prop in by_domain[domain]]
            yield Attribute(
                id=f"schema:{row['prop']}", names={ENGLISH: names},
                related=_nearest(row["prop"], mates, "schema:"), subject_kind="product",
            )  # fmt: skip


def _openstreetmap(data: Path) -> Iterator[Attribute]:
    names: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for row in read_rows(data / "osm_fields/fields.jsonl.gz"):
        kept = _kept_names([row["label"]])
        if kept:
            names[row["field"]].setdefault(row["lang"].split("-")[0], kept)
    fields = [field for field, of in names.items() if ENGLISH in of]
    for field in fields:
        yield Attribute(
            id=f"osm:{field}",
            names=names[field],
            related=_nearest(field, fields, "osm:"),
            subject_kind="place",
        )


def _nearest(name: str, mates: Sequence[str], prefix: str) -> tuple[str, ...]:
    """Those of `mates` that share a word with `name`, else the next ones: "workPhone", "workFax"."""
    words = _words(name)
    others = [mate for mate in dict.fromkeys(mates) if mate != name]
    others.sort(key=lambda mate: -len(words & _words(mate)))
    return tuple(prefix + mate for mate in others[:8])


def _words(name: str) -> set[str]:
    return {word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


_OWN_KINDS = (
    "plan", "shop", "project", "service", "room", "road", "software", "product", "ship", "museum", "airport",
    "event", "office", "team", "venue", "station", "game", "tool", "drug",
)  # fmt: skip


def own_names(pools: Mapping[str, Sequence[str]], more: Iterable[str] = ()) -> list[str]:
    """Subjects out of our own pools, and `more`, such as those of the contrast sets."""
    return list(
        dict.fromkeys([*(name for kind in _OWN_KINDS for name in pools[kind] if "{" not in name), *more])
    )
