"""A request body is decoded once and keeps its bytes."""

from __future__ import annotations

import msgspec
import pytest

from serac_gateway.data_plane.protocols.body import UNDECODABLE, RequestBody

DATA = b'{ "seed":1e-7, "input" : [ {"role":"user"} ] }'


def test_members_keep_the_bytes_of_the_client_and_are_split_once() -> None:
    body = RequestBody(DATA)
    assert {name: bytes(value) for name, value in body.members.items()} == {
        "seed": b"1e-7", "input": b'[ {"role":"user"} ]'
    }  # fmt: skip
    assert body.members is body.members
    assert body.data is DATA


def test_a_body_of_members_is_not_split_again() -> None:
    members = RequestBody(DATA).members
    body = RequestBody.of_members(members)
    assert body.data == b'{"seed":1e-7,"input":[ {"role":"user"} ]}'
    assert body.members is members


@pytest.mark.parametrize("data", [b"", b"{", b'{"a":nan}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_raises_what_is_listed(data: bytes) -> None:
    with pytest.raises(UNDECODABLE):
        RequestBody(data).decode()
    with pytest.raises(UNDECODABLE):
        _ = RequestBody(data).members


def test_a_body_that_is_no_object_has_no_members() -> None:
    assert RequestBody(b"[]").decode() == []
    with pytest.raises(msgspec.ValidationError):
        _ = RequestBody(b"[]").members
