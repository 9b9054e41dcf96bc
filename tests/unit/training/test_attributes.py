"""Pairs about attributes: what asks for the edited one is in scope, what asks for a related one is not."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from training.data.attribute_forms import FORMS
from training.data.attributes import (
    Attribute,
    AttributePairs,
    Entity,
    load_attributes,
    load_entities,
    load_values,
    own_names,
)

PHONE = Attribute(
    id="phone", names={"en": ("phone", "telephone"), "de": ("Telefonnummer",)}, related=("fax",)
)
FAX = Attribute(id="fax", names={"en": ("fax",), "de": ("Faxnummer",)}, related=("phone",))
HALL = Entity(names={"en": "Larch Hall", "ru": "Ларч-Холл"})
INN = Entity(names={"en": "Heron Inn"})


def rows(path: Path, *records: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode(), mtime=0))


def made_of(seed: int = 3) -> AttributePairs:
    values = {"phone": ["0123"], "fax": ["0456"]}
    return AttributePairs([PHONE, FAX], [HALL, INN], values, random.Random(seed))


@pytest.mark.parametrize("foreign", [0.0, 1.0])
def test_scope_follows_the_attribute_and_the_subject(foreign: float) -> None:
    pairs = list(made_of().pairs(300, foreign=foreign))
    names = {
        attribute.id: {name.casefold() for row in attribute.names.values() for name in row}
        for attribute in (PHONE, FAX)
    }

    def of(text: str) -> set[str]:
        return {id_ for id_, known in names.items() if any(name in text.casefold() for name in known)}

    direct = [pair for pair in pairs if "asked" in pair.kind]
    related = [pair for pair in pairs if "related" in pair.kind]
    strangers = [pair for pair in pairs if "another subject" in pair.kind]
    assert direct
    assert related
    assert strangers
    assert all(pair.in_scope and of(pair.text) == of(pair.prompt) for pair in direct)
    assert all(not pair.in_scope and of(pair.text) != of(pair.prompt) for pair in related)
    for pair in strangers:
        assert not pair.in_scope
        assert ("Heron" in pair.prompt or "HERON" in pair.prompt.upper()) != ("heron" in pair.text.casefold())


def test_no_slot_is_left_open() -> None:
    pairs = [*made_of(1).pairs(200, foreign=0.0), *made_of(2).pairs(200, foreign=1.0)]
    for pair in pairs:
        for slot in ("{a}", "{A}", "[X]", "[T]", "[Y]", "[Z]"):
            assert slot not in f"{pair.text} {pair.prompt}"


def test_every_form_asks_for_an_attribute_of_a_subject() -> None:
    assert all("{a}" in form and "[X]" in form for forms in FORMS.values() for form in forms)


def test_the_four_sources_are_read(tmp_path: Path) -> None:
    wikidata = tmp_path / "wikidata_properties"
    rows(
        wikidata / "properties_en.jsonl.gz",
        {
            "pid": "P1",
            "label": "mayor",
            "aliases": ["head of town"],
            "see_also": ["P2"],
            "subproperty_of": ["P3"],
        },
        {"pid": "P2", "label": "fire chief", "aliases": []},
        {"pid": "P3", "label": "head", "aliases": [], "see_also": ["P1"]},
        {"pid": "P4", "label": "Wikidata item ID", "aliases": []},
    )
    rows(
        wikidata / "labels_multilingual.jsonl.gz",
        {"pid": "P1", "lang": "de", "label": "Bürgermeister", "aliases": []},
    )
    rows(wikidata / "labels_inventaire.jsonl.gz", {"pid": "P1", "lang": "fr", "label": "maire"})
    rows(
        tmp_path / "dbpedia_ontology/properties.jsonl.gz",
        {"prop": "workPhone", "labels": {"en": ["work phone"]}, "domain": ["Person"]},
        {"prop": "workFax", "labels": {"en": ["work fax"]}, "domain": ["Person"]},
    )
    rows(
        tmp_path / "schema_org/properties.jsonl.gz",
        {"prop": "price", "label": "price", "domain": ["Offer"], "superseded_by": []},
        {"prop": "cost", "label": "cost", "domain": ["Offer"], "superseded_by": ["price"]},
    )
    rows(
        tmp_path / "osm_fields/fields.jsonl.gz",
        {"field": "fee", "lang": "en", "label": "Fee"},
        {"field": "fee", "lang": "zh-CN", "label": "费用"},
    )
    known = {attribute.id: attribute for attribute in load_attributes(tmp_path)}
    assert set(known) == {"P1", "P2", "P3", "dbpedia:workPhone", "dbpedia:workFax", "schema:price", "osm:fee"}
    assert known["P1"].names == {"en": ("mayor", "head of town"), "de": ("Bürgermeister",), "fr": ("maire",)}
    assert known["P1"].related == ("P2",)
    assert known["P3"].related == ()  # a mayor is a head: neither out of scope of the other for sure
    assert known["dbpedia:workPhone"].related == ("dbpedia:workFax",)
    assert known["osm:fee"].names["zh"] == ("费用",)


def test_entities_and_values_are_read(tmp_path: Path) -> None:
    rows(tmp_path / "wila_popqa/entities.jsonl.gz", {"labels": {"en": "Ada", "ru": "Ада", "zh": None}})
    rows(
        tmp_path / "kamel/subjects_with_several_relations.jsonl.gz", {"sub": "Larch Hall"}, {"sub": "x" * 90}
    )
    rows(
        tmp_path / "kamel/facts_sample.jsonl.gz",
        {"pid": "P1", "sub": "Larch", "obj": [{"rdf": "Ada", "chosen": "Ada L."}]},
        {"pid": "P1", "sub": "Larch", "obj": ["1989"]},
    )
    assert [entity.names for entity in load_entities(tmp_path)] == [
        {"en": "Ada", "ru": "Ада"},
        {"en": "Larch Hall"},
    ]
    assert load_values(tmp_path) == {"P1": ["Ada L.", "1989"]}


def test_own_names_are_whole_and_distinct() -> None:
    pools = {kind: ["Larch", "{n} Larch"] for kind in (
        "plan", "shop", "project", "service", "room", "road", "software", "product", "ship", "museum",
        "airport", "event", "office", "team", "venue", "station", "game", "tool", "drug")}  # fmt: skip
    assert own_names(pools, ["Heron", "Larch"]) == ["Larch", "Heron"]
