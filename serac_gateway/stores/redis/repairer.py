"""Finds what is damaged of a namespace in Redis, and mends it from what is stored a second time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from importlib import resources

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditState, is_edit_id
from serac_gateway.errors import DamagedRecordError
from serac_gateway.stores.checked_records import checked_edit, vectors_fault
from serac_gateway.stores.damage import Damage, NamespaceRepairer, Remedy
from serac_gateway.stores.log_chain import LogHead, VersionRecord, chained, empty_head, fields_digest
from serac_gateway.stores.records import LOG_START, log_id_order
from serac_gateway.stores.redis.connection import RedisConnection, Word
from serac_gateway.stores.redis.keys import NamespaceKeys
from serac_gateway.stores.redis.records import (
    form_vectors,
    log_evidence,
    log_head,
    packed_version,
    record_bytes,
    version_record,
)

_PAGE = 256
_STATES = tuple(EditState)
_SCRIPTED = frozenset({Remedy.REWRITE_RECORD, Remedy.REWRITE_VERSION, Remedy.REWRITE_LISTS, Remedy.REMOVE})


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """All that is stored of one edit, as it is, and what of it can be read."""

    edit_id: str
    record: bytes | None
    elements: list[bytes]
    vectors: bytes | None
    listed: tuple[EditState, ...]
    current: Edit | None
    versions: list[Edit | None]
    faults: dict[str, str]
    """Why something cannot be read, by its place."""

    @property
    def newest(self) -> Edit | None:
        return self.versions[-1] if self.versions else None

    @property
    def bytes_by_place(self) -> dict[str, bytes]:
        places = {f"version {number}": element for number, element in enumerate(self.elements, 1)}
        if self.record is not None:
            places["current"] = self.record
        if self.vectors is not None:
            places["vectors"] = self.vectors
        return places


class RedisNamespaceRepairer(NamespaceRepairer):
    """Borrows the connection of the store."""

    def __init__(self, connection: RedisConnection, namespace: str) -> None:
        """Raises InvalidRequestError if the namespace breaks the rules."""
        self._connection = connection
        self._namespace = namespace
        self._keys = NamespaceKeys(namespace)
        self._script = connection.script(_script_text("repair.lua"))
        self._head_script = connection.script(_script_text("repair_head.lua"))
        self._digests: dict[str, tuple[int, str]] = {}
        """Of each edit the newest version that the log names, and the digest of its content."""
        self._end: LogHead | None = None
        """Where the log ends; None: its chain is not sound."""

    @override
    async def damages(self) -> AsyncIterator[Damage]:
        if of_another_type := await self._keys_of_another_type():
            for damage in of_another_type:
                yield damage
            return  # what lies in them can be judged once they are gone
        async for damage in self._damages_of_the_log():
            yield damage
        ids, foreign = await self._ids()
        for raw_id in foreign:
            yield Damage(
                fault="an id in the lists cannot be that of an edit",
                remedy=Remedy.REMOVE,
                edit_id=None,
                stored={"id": raw_id},
            )
        for start in range(0, len(ids), _PAGE):
            for stored in await self._stored(ids[start : start + _PAGE]):
                for damage in self._damages_of(stored):
                    yield damage

    @override
    async def mend(self, damage: Damage) -> bool:
        keys = self._keys
        if damage.remedy is Remedy.REWRITE_HEAD:
            assert self._end is not None
            end = self._end
            head: list[Word] = [end.log_id, end.digest, end.length]
            return bool(await self._connection.run(self._head_script(keys=[keys.log, keys.head], args=head)))
        if damage.remedy is Remedy.DELETE_KEY:
            await self._connection.write("DEL", *damage.stored, repeatable=True)
            return True
        if damage.edit_id is None and damage.remedy is Remedy.REMOVE:
            raw_id = damage.stored["id"]
            lists = (keys.ids, *map(keys.ids_in, EditState))
            hashes: list[Sequence[Word]] = [("HDEL", name, raw_id) for name in (keys.current, keys.vectors)]
            await self._connection.write_all(
                [*hashes, *(("ZREM", name, raw_id) for name in lists)], repeatable=True
            )
            return True
        if damage.remedy not in _SCRIPTED or damage.edit_id is None:
            return False
        record = damage.stored.get("current")
        state = 0 if damage.readable is None else _STATES.index(damage.readable.state) + 1
        arguments: list[Word] = [
            damage.remedy, damage.edit_id, 0 if record is None else 1, record or b"", damage.versions,
            state, damage.mended,
        ]  # fmt: skip
        script_keys = [keys.current, keys.vectors, keys.versions(damage.edit_id), keys.ids]
        script_keys += map(keys.ids_in, EditState)
        return bool(await self._connection.run(self._script(keys=script_keys, args=arguments)))

    async def _keys_of_another_type(self) -> list[Damage]:
        keys = self._keys
        expected = {
            keys.log: b"stream",
            keys.head: b"hash",
            keys.current: b"hash",
            keys.vectors: b"hash",
            keys.ids: b"zset",
            **{keys.ids_in(state): b"zset" for state in EditState},
        }
        types = await self._connection.read_all(("TYPE", name) for name in expected)
        foreign = [
            (name, kind)
            for (name, wanted), kind in zip(expected.items(), types, strict=True)
            if kind not in (wanted, b"none")
        ]
        return [
            Damage(
                fault=f"{name!r} is of type {kind.decode()!r}",
                remedy=Remedy.NONE if name == keys.log else Remedy.DELETE_KEY,
                stored={name: await self._connection.read("DUMP", name)},
            )
            for name, kind in foreign
        ]

    async def _damages_of_the_log(self) -> AsyncIterator[Damage]:
        """The chain of the entries, and whether the head is its end; remembers the digests of contents."""
        head, after = empty_head(self._namespace), LOG_START
        broken: str | None = None
        while entries := await self._connection.read(
            "XRANGE", self._keys.log, f"({after}", "+", "COUNT", _PAGE
        ):
            for raw_id, fields in entries:
                entry = log_evidence(raw_id, fields)
                self._digests[entry.edit_id] = (entry.version, entry.content_digest)
                own = fields_digest(
                    action=entry.action,
                    edit_id=entry.edit_id,
                    version=entry.version,
                    content_digest=entry.content_digest,
                    author=entry.author,
                    approval=entry.approval,
                )
                follows = entry.previous_digest == head.digest and log_id_order(entry.log_id) > log_id_order(
                    head.log_id
                )
                if broken is None and not (
                    follows and chained(head.digest, own, entry.log_id) == entry.digest
                ):
                    broken = entry.log_id
                head = LogHead(log_id=entry.log_id, digest=entry.digest, length=head.length + 1)
                after = entry.log_id
        if broken is not None:
            yield Damage(
                fault=f"its log is not sound from entry {broken} on; see `serac log verify`, and restore the"
                " namespace from a backup",
                remedy=Remedy.NONE,
                stored={},
            )
            return
        self._end = head
        fields = await self._connection.read("HMGET", self._keys.head, "log_id", "digest", "length")
        try:
            is_sound = log_head(self._namespace, fields) == head
        except DamagedRecordError:
            is_sound = False
        if not is_sound:
            words = {f"head {number}": word for number, word in enumerate(fields) if word is not None}
            yield Damage(
                fault="the head of its log is not where the log ends",
                remedy=Remedy.REWRITE_HEAD,
                stored=words,
            )

    async def _ids(self) -> tuple[list[str], list[bytes]]:
        """The ids that lists and log name, sorted, and what in the lists is none."""
        raw: set[bytes] = set()
        for name in (self._keys.ids, *map(self._keys.ids_in, EditState)):
            raw.update(await self._connection.read("ZRANGE", name, 0, -1))
        texts = {raw_id.decode("utf-8", "replace"): raw_id for raw_id in raw}
        foreign = [raw_id for text, raw_id in texts.items() if not is_edit_id(text)]
        named = {edit_id for edit_id in (*texts, *self._digests) if is_edit_id(edit_id)}
        return sorted(named), foreign

    async def _stored(self, ids: Sequence[str]) -> list[_Stored]:
        keys = self._keys
        commands: list[Sequence[Word]] = []
        for edit_id in ids:
            commands += [
                ("HGET", keys.current, edit_id),
                ("LRANGE", keys.versions(edit_id), 0, -1),
                ("HGET", keys.vectors, edit_id),
                *(("ZSCORE", keys.ids_in(state), edit_id) for state in EditState),
            ]
        replies = await self._connection.read_all(commands, transaction=True)
        width = 3 + len(_STATES)
        rows = [replies[start : start + width] for start in range(0, len(replies), width)]
        return [
            self._read(edit_id, row[0], row[1], row[2], row[3:])
            for edit_id, row in zip(ids, rows, strict=True)
        ]

    def _read(
        self,
        edit_id: str,
        record: bytes | None,
        elements: list[bytes],
        vectors: bytes | None,
        memberships: Sequence[object],
    ) -> _Stored:
        faults: dict[str, str] = {}

        def edit_in(place: str, text: bytes, version: int | None) -> Edit | None:
            try:
                return checked_edit(text, namespace=self._namespace, edit_id=edit_id, version=version)
            except ValueError as exc:
                faults[place] = str(exc)
                return None

        current = None if record is None else edit_in("current", record, None)
        if record is None:
            faults["current"] = "it is missing"
        versions = [
            edit_in(f"version {number}", record_bytes(element), number)
            for number, element in enumerate(elements, 1)
        ]
        listed = tuple(state for state, held in zip(_STATES, memberships, strict=True) if held is not None)
        return _Stored(
            edit_id=edit_id, record=record, elements=elements, vectors=vectors, listed=listed,
            current=current, versions=versions, faults=faults,
        )  # fmt: skip

    def _damages_of(self, stored: _Stored) -> list[Damage]:
        damages = [
            self._damage(
                stored, f"version {number}, which is not current: {stored.faults[place]}", Remedy.NONE
            )
            for number in range(1, len(stored.elements))
            if (place := f"version {number}") in stored.faults
        ]
        edit = stored.current
        if stored.current is None or stored.current != stored.newest:
            damage, edit = self._damage_of_the_record(stored)
            if damage.remedy in (Remedy.REPLACE, Remedy.PURGE):
                return [damage]  # which also ends what is wrong with older versions
            damages.append(damage)
        if edit is None:
            return damages
        rewritten = any(damage.remedy is Remedy.REWRITE_RECORD for damage in damages)
        if stored.listed != (edit.state,) and not rewritten:
            fault = f"it is {edit.state.value} and not listed as that alone"
            damages.append(self._damage(stored, fault, Remedy.REWRITE_LISTS, readable=edit))
        if edit.state is not EditState.PURGED and (vector_fault := _vector_fault(stored.vectors, edit)):
            damages.append(self._damage(stored, vector_fault, Remedy.ENCODE, readable=edit))
        return damages

    def _damage_of_the_record(self, stored: _Stored) -> tuple[Damage, Edit | None]:
        """What is wrong with the current record or the newest version, and the edit that is then current."""
        current, newest, count = stored.current, stored.newest, len(stored.elements)
        last = f"version {count}"
        if newest is not None and (current is None or self._is_logged(stored, count)):
            fault = stored.faults.get("current", f"it is not that of {last}")
            mended = record_bytes(stored.elements[-1])
            fault = f"its current record: {fault}"
            return (
                self._damage(stored, fault, Remedy.REWRITE_RECORD, readable=newest, mended=mended), newest
            )  # fmt: skip
        if current is not None:
            element = self._proven_version(stored)
            fault = f"{last}: {stored.faults.get(last, 'it is not the current record')}"
            if element is None:
                return self._damage(stored, fault, Remedy.NONE), current
            return (
                self._damage(stored, fault, Remedy.REWRITE_VERSION, readable=current, mended=element),
                current,
            )
        fault = f"its current record: {stored.faults['current']}"
        if not count:
            return self._damage(stored, fault, Remedy.REMOVE), None
        older = next((edit for edit in reversed(stored.versions) if edit is not None), None)
        was_active = older is not None and older.state in ACTIVE_STATES
        is_active = any(state in ACTIVE_STATES for state in stored.listed)
        remedy = Remedy.REPLACE if was_active and is_active else Remedy.PURGE
        return self._damage(stored, fault, remedy, readable=older), None

    def _is_logged(self, stored: _Stored, count: int) -> bool:
        """Whether the log proves the newest version."""
        logged = self._digests.get(stored.edit_id)
        return logged == (count, version_record(stored.elements[-1]).content_digest)

    def _proven_version(self, stored: _Stored) -> bytes | None:
        """The newest version out of the current record and what is left of the salt, if the log proves it."""
        version, digest = self._digests.get(stored.edit_id, (0, ""))
        if not stored.elements or stored.record is None or version != len(stored.elements):
            return None
        salt = version_record(stored.elements[-1]).salt
        whole = VersionRecord(salt=salt, record=stored.record.decode())
        return packed_version(whole) if whole.content_digest == digest else None

    def _damage(
        self,
        stored: _Stored,
        fault: str,
        remedy: Remedy,
        *,
        readable: Edit | None = None,
        mended: bytes = b"",
    ) -> Damage:
        return Damage(
            fault=fault,
            remedy=remedy,
            edit_id=stored.edit_id,
            versions=len(stored.elements),
            readable=readable,
            mended=mended,
            stored=stored.bytes_by_place,
        )


def _vector_fault(packed: bytes | None, edit: Edit) -> str | None:
    try:
        return vectors_fault(form_vectors(packed), edit)
    except ValueError as exc:
        return f"its vectors are torn: {exc}"


def _script_text(name: str) -> str:
    return resources.files(__package__).joinpath("scripts", name).read_text("utf-8")
