"""What a worker and the model process share: errors that cross over, and the table of namespaces."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from serac_gateway import errors
from serac_gateway.data_plane.engine import NeedsDecision
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.domain.edits import (
    DecidedState,
    EditDraft,
    EditKind,
    EditPatch,
    first_version,
    patched,
    retired,
)
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import GatewayError, RateLimitedError
from serac_gateway.models.language_models.base import Piece
from serac_gateway.server.workers.namespace_bitmap import NamespaceBitmap, NamespaceBitmapWriter
from serac_gateway.server.workers.rpc_messages import AnswerFrame, RemoteError, read_frames
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import WordEncoder, stored_edit

EVERY_ERROR = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GatewayError)
]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_is_raised_on_the_other_side_as_it_was(kind: type[GatewayError]) -> None:
    error = kind("the value 'x' is not allowed", field="value", details={"retry_after_s": 2, "of": ["x"]})
    sent = msgspec.msgpack.encode(RemoteError.from_error(error))
    raised = msgspec.msgpack.decode(sent, type=RemoteError).to_error()
    assert type(raised) is kind
    assert (raised.message, raised.field, raised.details) == (error.message, error.field, error.details)


def test_an_error_of_another_version_is_still_an_error() -> None:
    error = msgspec.structs.replace(RemoteError.from_error(RateLimitedError("slow down")), kind="NewError")
    assert type(error.to_error()) is GatewayError


async def read(data: bytes) -> list[AnswerFrame]:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return [frame async for frame in read_frames(reader.readexactly)]


async def test_frames_are_read_up_to_the_end_and_a_break_is_no_end() -> None:
    frame = AnswerFrame(piece=ChoicePiece(choice=0, piece=Piece(text="é", tokens=1), prompt_tokens=3))
    whole = frame.encode() + frame.encode() + AnswerFrame().encode()
    assert await read(whole) == [frame, frame]
    for length in range(len(whole)):
        with pytest.raises(asyncio.IncompleteReadError):
            await read(whole[:length])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "namespaces"


def test_a_namespace_is_of_concern_in_every_process_as_soon_as_it_is_marked(path: Path) -> None:
    written = NamespaceBitmap.create(path)
    read_elsewhere = NamespaceBitmap.open(path)
    assert read_elsewhere.needs_decision("a") is NeedsDecision.UNKNOWN
    written.write(["a"])
    assert [read_elsewhere.needs_decision(name) for name in "ab"] == [NeedsDecision.SOME, NeedsDecision.NONE]
    written.mark("b")
    assert read_elsewhere.needs_decision("b") is NeedsDecision.SOME
    written.write(["b"])
    assert [read_elsewhere.needs_decision(name) for name in "ab"] == [NeedsDecision.NONE, NeedsDecision.SOME]
    written.write([], every=True)
    assert read_elsewhere.needs_decision("c") is NeedsDecision.SOME


def test_a_worker_cannot_write_the_table(path: Path) -> None:
    NamespaceBitmap.create(path)
    with pytest.raises(TypeError):
        NamespaceBitmap.open(path).mark("a")


def test_two_namespaces_in_one_slot_cost_a_question_and_hide_nothing(path: Path) -> None:
    table = NamespaceBitmap.create(path)
    table.write([f"namespace-{number}" for number in range(200_000)])
    assert table.needs_decision("another") is NeedsDecision.SOME


async def test_the_table_is_true_to_the_edits_in_force(path: Path) -> None:
    table = NamespaceBitmap.create(path)
    recorded: list[str] = []
    encoder = WordEncoder()
    active_edits = ActiveEdits(
        store=InMemoryEditStore(), encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width)
    )
    writer = NamespaceBitmapWriter(table, active_edits, lambda: recorded)
    edit = first_version(EditDraft(prompt="Who?", target_new="Lisa"), namespace="edited")
    assert table.needs_decision("edited") is NeedsDecision.UNKNOWN
    await active_edits.load()
    assert table.needs_decision("edited") is NeedsDecision.NONE
    await active_edits.apply("edited", [stored_edit(edit, encoder)])
    assert table.needs_decision("edited") is NeedsDecision.SOME
    await active_edits.apply("edited", [stored_edit(retired(edit, now=datetime.now(UTC)), encoder)])
    assert table.needs_decision("edited") is NeedsDecision.NONE
    recorded.append("recorded")
    writer.note(None)
    assert table.needs_decision("recorded") is NeedsDecision.SOME


async def test_the_table_marks_the_namespaces_with_suppressions_in_force(path: Path) -> None:
    table, encoder = NamespaceBitmap.create(path), WordEncoder()
    active_edits = ActiveEdits(
        store=InMemoryEditStore(), encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width)
    )
    NamespaceBitmapWriter(table, active_edits, tuple)
    await active_edits.load()
    fact = first_version(EditDraft(prompt="Who?", target_new="Lisa"), namespace="edited")
    hidden = first_version(
        EditDraft(prompt="What is hidden?", target_new="No.", kind=EditKind.SUPPRESSION), namespace="edited"
    )
    for edit, need in (
        (fact, NeedsDecision.SOME),
        (hidden, NeedsDecision.SUPPRESSIONS),
        (retired(fact, now=datetime.now(UTC)), NeedsDecision.SUPPRESSIONS),
        (patched(hidden, EditPatch(state=DecidedState.SHADOW)), NeedsDecision.SOME),
    ):
        await active_edits.apply("edited", [stored_edit(edit, encoder)])
        assert table.needs_decision("edited") is need


async def test_the_table_has_workers_ask_about_a_namespace_that_is_quarantined(path: Path) -> None:
    table, encoder = NamespaceBitmap.create(path), WordEncoder()
    active_edits = ActiveEdits(
        store=InMemoryEditStore(), encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width)
    )
    NamespaceBitmapWriter(table, active_edits, tuple)
    active_edits.note_damaged("early", fault="its head is damaged")
    await active_edits.load()
    active_edits.note_damaged("late", fault="its head is damaged")
    for namespace in ("early", "late"):
        assert not active_edits.is_loaded(namespace)
        assert table.needs_decision(namespace) is NeedsDecision.SUPPRESSIONS
        await active_edits.reload(namespace)
        assert active_edits.is_loaded(namespace)
        assert table.needs_decision(namespace) is NeedsDecision.NONE
