"""Nothing is committed to a namespace in which others must agree unless somebody answers for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date

import msgspec
import pytest

from serac_gateway.auth.principals import ANYONE, Principal, Role
from serac_gateway.config.model import GovernanceConfig, NamespaceGovernance, RequiredField
from serac_gateway.control_plane.approval import Person, check_required
from serac_gateway.control_plane.retirement import VersionMade, retire_versions
from serac_gateway.control_plane.rollback import roll_back
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import NO_ATTRIBUTION, EditDraft, EditPatch
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import ApprovalNeededError, InvalidRequestError, PermissionDeniedError
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import WordEncoder
from tests.contracts.edit_store_calls import NS, add, new


def person(name: str) -> Person:
    return Person.of(Principal(key_id="k", name=name, role=Role.APPROVE, namespaces=(NS,)))


async def test_whatever_brings_no_approval_is_refused() -> None:
    """Every way to commit goes through the writer, which refuses, so a call that nobody thought of fails."""
    store, encoder = InMemoryEditStore(), WordEncoder()
    live = ActiveEdits(store=store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width))
    edit = new("a")
    await add(store, edit)
    governance = GovernanceConfig(namespaces={NS: NamespaceGovernance(approvals=1)})
    with ThreadPoolExecutor(1) as pool:
        writer = EditWriter(store=store, encoder=encoder, active_edits=live, pool=pool, governance=governance)
        version = NextVersion.added(NS, EditDraft(prompt="Who?", target_new="Ann"))
        made = VersionMade(id="a", version=1, created_at=edit.created_at)
        for call in (
            writer.write(NS, version),
            writer.commit(NS, [version]),
            roll_back(writer, store, NS, "0-0", NO_ATTRIBUTION),
            retire_versions(writer, store, NS, [made], NO_ATTRIBUTION),
        ):
            with pytest.raises(ApprovalNeededError, match=r"approvals by others \(1\)"):
                await call
        assert len(await store.log(NS)) == 1
        await writer.write(NS, version, approval=writer.expedited(NS, "Root (key r)"))
        await writer.write("free", NextVersion.added("free", EditDraft(prompt="Who?", target_new="Ann")))
    assert [entry.approval for entry in await store.log(NS)] == [None, "expedited by Root (key r)"]
    assert writer.expedited("free", "Root (key r)") is None


@pytest.mark.parametrize(
    "name", ["ann lee", "ANN LEE", "Ann  Lee", "Ann-Lee", "Änn Lée", "Ａｎｎ Lee", "Ann\u200bLee"]
)
def test_one_person_is_known_by_every_spelling_of_a_name(name: str) -> None:
    """Case, width, accents, spaces and punctuation make no other person."""
    assert person(name).owner == person("Ann Lee").owner


def test_other_names_are_other_people_and_no_key_is_nobody() -> None:
    """Also where a name has no letters at all."""
    names = ["Ann Lee", "Anna Lee", "Bo", "🙂", "🙃", "李", "ליאה"]
    assert len({person(name).owner for name in names}) == len(names)
    with pytest.raises(PermissionDeniedError):
        Person.of(ANYONE)


@pytest.mark.parametrize("field", list(RequiredField))
def test_every_field_can_be_demanded_and_its_lack_is_named(field: RequiredField) -> None:
    """With the namespace. What is handed on satisfies the demand; who and why must be said each time."""
    given = {
        "author": "Ann",
        "reason": "Elected",
        "ticket": "T 1",
        "institution": "Acme",
        "source": "Minutes",
        "source_url": "https://a.example",
        "source_sha256": "0" * 64,
        "legal_basis": "§ 5",
        "review_by": date(2027, 12, 1),
    }
    governance = GovernanceConfig(namespaces={"legal": NamespaceGovernance(required=(field,))})
    draft = EditDraft(prompt="Who?", target_new="Ann", **given)
    version = NextVersion.added("legal", draft)
    check_required(governance, "legal", [version])
    bare = NextVersion.added("legal", msgspec.structs.replace(draft, **{field.value: None}))
    with pytest.raises(InvalidRequestError, match=rf"^{field.value} is missing.*'legal'") as refused:
        check_required(governance, "legal", [version, bare])
    assert (refused.value.field, refused.value.details["missing"]) == (field.value, [field.value])
    check_required(governance, "free", [bare])

    changed = NextVersion.changed(version.edit, EditPatch(target_new="Bo"))
    retired = NextVersion.retired(version.edit)
    bare_gone = NextVersion.retired(bare.edit)
    if field.is_of_content:
        check_required(governance, "legal", [changed, retired, bare_gone])
    else:
        for silent in (changed, retired):
            with pytest.raises(InvalidRequestError, match=f"^{field.value} is missing"):
                check_required(governance, "legal", [silent])
