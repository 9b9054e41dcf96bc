"""A request body keeps its bytes, and is read in whatever form a server would read it."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from contextlib import suppress

import brotli
import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from serac_gateway.data_plane.encodings import MAX_RATIO
from serac_gateway.data_plane.lenient_json import (
    MAX_ELEMENTS,
    MAX_VALUES,
    UNDECODABLE,
    as_strict_json,
    check_size,
    read_json,
)
from serac_gateway.data_plane.protocols.body import BodyForm, RequestBody
from serac_gateway.errors import (
    TooLongToReadError,
    UnreadableError,
    UnsupportedCharacterSetError,
    UnsupportedEncodingError,
)

DATA = b'{ "seed":1e-7, "input" : [ {"role":"user"} ] }'
WANTED = frozenset({"input", "messages"})


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


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 50_000, b"'text'", b"\xfe\xff"])
@pytest.mark.parametrize("wanted", [None, WANTED])
def test_a_body_that_is_no_json_says_so(data: bytes, wanted: frozenset[str] | None) -> None:
    with pytest.raises(UnreadableError, match="not valid JSON") as caught:
        RequestBody(data).read(wanted)
    assert (caught.value.status, caught.value.details["reason"]) == (400, "malformed request")
    with pytest.raises(UNDECODABLE):
        _ = RequestBody(data).members


def test_a_body_that_is_no_object_has_no_members() -> None:
    assert RequestBody(b"[]").read().value == []
    with pytest.raises(msgspec.ValidationError):
        _ = RequestBody(b"[]").members


TEXT = '{"a":[1,"é"],"messages":"Who?"}'
VALUE = {"a": [1, "é"], "messages": "Who?"}


@pytest.mark.parametrize("wanted", [None, WANTED])
@pytest.mark.parametrize(
    ("data", "value"),
    [
        (TEXT.encode("utf-8-sig"), VALUE),
        (b'\n {"a":1e400,"b":-Infinity}', {"a": float("inf"), "b": float("-inf")}),
        (b'{"a":"\\ud800","b":"\t\x01"}', {"a": "\ud800", "b": "\t\x01"}),
        (b'{"a":"\xe9"}', {"a": "\N{REPLACEMENT CHARACTER}"}),
        (b'{"a":1} {"a":2}', {"a": 1}),
        (b'{"a":1,"\\u0061":2}', {"a": 2}),
        (b'{"a":' + b"9" * 5_000 + b"}", {"a": float("inf")}),
    ],
)
def test_json_is_read_as_lenient_servers_read_it(
    data: bytes, value: object, wanted: frozenset[str] | None
) -> None:
    assert RequestBody(data).read(wanted).value == value


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-32-be"])
@pytest.mark.parametrize("wanted", [None, WANTED])
def test_json_in_another_character_set_is_to_be_sent_in_utf_8(
    charset: str, wanted: frozenset[str] | None
) -> None:
    with pytest.raises(UnsupportedCharacterSetError, match="send JSON in UTF-8") as caught:
        RequestBody(TEXT.encode(charset)).read(wanted)
    assert (caught.value.status, caught.value.details["reason"]) == (415, "character set")


def test_members_that_others_override_are_kept_apart() -> None:
    reading = read_json(b'{"m":"first","m":[{"c":1,"c":2,"c":3}],"m":null}')
    assert reading.value == {"m": None}
    assert reading.overridden == (1, 2, "first", [{"c": 3}])


def test_long_members_that_nobody_reads_are_not_built() -> None:
    data = b'{"x":[' + b"[]," * 900_000 + b'[]],"messages":[1]}'
    begun = time.process_time()
    assert RequestBody(data).read(WANTED).value == {"messages": [1]}
    assert time.process_time() - begun < 0.1


@pytest.mark.parametrize("wanted", [None, WANTED])
def test_a_body_of_too_many_values_is_too_long_to_read(wanted: frozenset[str] | None) -> None:
    data = b'{"messages":[' + b"{}," * MAX_VALUES + b"{}]}"
    with pytest.raises(TooLongToReadError, match="at most 100,000 are read") as caught:
        RequestBody(data).read(wanted)
    assert (caught.value.status, caught.value.details["reason"]) == (413, "body too long")


NUMBERS = b"1," * MAX_ELEMENTS + b"1"


@pytest.mark.parametrize(
    "data",
    [
        b'{"messages":[' + NUMBERS + b"]}",
        b'{"messages":[' + b'"a",' * MAX_ELEMENTS + b"1]}",
        b'{"messages":[{"x":"' + b"y" * 70_000 + b'"},' + NUMBERS + b"]}",
        b'{"messages":{' + b'"a":1,' * MAX_ELEMENTS + b'"b":1}}',
        b'{"messages":['
        + NUMBERS[:399_000]
        + b'"a"'
        + b'""' * 3 * MAX_ELEMENTS
        + b"," * MAX_ELEMENTS
        + b"]}",
        b"{" + b",".join(b'"%x":1' % number for number in range(MAX_ELEMENTS + 2)) + b"}",
        b'\xef\xbb\xbf{"messages":[' + NUMBERS + b"]}",
    ],
    ids=["numbers", "texts", "after a text", "an object", "texts side by side", "members", "lenient"],
)
@pytest.mark.parametrize("wanted", [None, WANTED])
def test_elements_count_too(data: bytes, wanted: frozenset[str] | None) -> None:
    """A million numbers take no brackets, but memory and time all the same."""
    with pytest.raises(TooLongToReadError, match="or more values, and at most 200,000 are read"):
        RequestBody(data).read(wanted)


def test_commas_and_brackets_in_texts_are_no_elements() -> None:
    """A table or source code in a message is one value."""
    text = "1,2,[3],{4}\n" * 90_000
    message = {"role": "user", "content": text + '"\\'}
    data = json.dumps({"messages": [message]}).encode()
    assert RequestBody(data).read(WANTED).value == {"messages": [message]}


@pytest.mark.parametrize("part", [b'"', b'\\"', b"\\", b'"\\', b'",', b'"a",', b",", b'"\\\\",'])
def test_elements_are_counted_in_linear_work(part: bytes) -> None:
    """However quotes and backslashes lie, each byte is gone over once."""
    steps: list[int] = []
    for count in (20_000, 80_000):
        data = b"," * (MAX_ELEMENTS + 1 - 4 * count) + part * count
        begun = time.thread_time()
        with suppress(TooLongToReadError):
            check_size(data)
        steps.append(int((time.thread_time() - begun) * 1e6))
    assert steps[1] < 10 * max(steps[0], 20_000)


def test_many_short_members_are_not_all_built() -> None:
    member = b"[" + b"1," * 20_000 + b"1]"
    names = [b"x%d" % number for number in range(100)]
    data = b"{" + b"".join(b'"%b":%b,' % (name, member) for name in names) + b'"messages":[1]}'
    value = RequestBody(data).read(WANTED).value
    assert isinstance(value, dict)
    assert value["messages"] == [1]
    assert len(value) < 40


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)  # a busy machine is no failure
@given(value=json_values, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_what_is_read_is_what_pythons_json_reads(value: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps({"messages": value}, ensure_ascii=ascii_only, indent=indent)
    data = text.encode("utf-8", "surrogatepass")
    expected = json.dumps(json.loads(data, strict=False))
    assert json.dumps(RequestBody(data).read().value) == expected
    assert json.dumps(RequestBody(data).read(WANTED).value) == expected


@settings(deadline=None)
@given(value=json_values)
def test_the_strict_form_of_any_value_is_idempotent_and_read_by_every_parser(value: object) -> None:
    strict = as_strict_json(value)
    assert as_strict_json(msgspec.json.decode(strict)) == strict
    assert json.loads(strict) == msgspec.json.decode(strict)


def without_header(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


ENCODED = {
    "gzip": gzip.compress(TEXT[:9].encode(), mtime=0) + gzip.compress(TEXT[9:].encode(), mtime=0),
    "X-GZip": gzip.compress(TEXT.encode(), mtime=0),
    "deflate": zlib.compress(TEXT.encode()),
    "Deflate": without_header(TEXT.encode()),
    "br": brotli.compress(TEXT.encode()),
    "zstd": zstandard.compress(TEXT.encode()),
    "identity, gzip , br": brotli.compress(gzip.compress(TEXT.encode(), mtime=0)),
    "identity": TEXT.encode(),
    "made-up": TEXT.encode(),
    "gzip ": TEXT.encode(),
}


@pytest.mark.parametrize(("encoding", "data"), ENCODED.items())
def test_a_body_is_read_by_its_encoding_or_as_it_is(encoding: str, data: bytes) -> None:
    body = RequestBody(data, form=BodyForm(content_encoding=encoding))
    assert body.read().value == VALUE
    assert body.read(WANTED).value == VALUE
    assert body.data is data


@pytest.mark.parametrize(
    ("encoding", "data", "error"),
    [
        ("made-up", ENCODED["br"], UnsupportedEncodingError),
        ("gzip,gzip,gzip,gzip", ENCODED["X-GZip"], UnsupportedEncodingError),
        ("br", ENCODED["X-GZip"], UnreadableError),
        ("gzip", ENCODED["X-GZip"][:-9], UnreadableError),
        ("br", ENCODED["br"][:-3], UnreadableError),
        ("zstd", ENCODED["zstd"][:-5], UnreadableError),
        ("deflate", ENCODED["deflate"][:-9], UnreadableError),
        ("gzip", gzip.compress(b"", mtime=0) * 200, UnreadableError),
        ("gzip", b"", UnreadableError),
    ],
)
def test_a_body_that_is_not_in_its_encoding_says_so(
    encoding: str, data: bytes, error: type[UnreadableError]
) -> None:
    with pytest.raises(error):
        RequestBody(data, form=BodyForm(content_encoding=encoding)).read()


BOMB = b" " * 10_000_000


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(BOMB, mtime=0)),
        ("deflate", without_header(BOMB)),
        ("br", brotli.compress(BOMB)),
        ("zstd", zstandard.compress(BOMB)),
    ],
)
def test_a_body_that_explodes_is_too_long_to_read(encoding: str, data: bytes) -> None:
    assert len(data) * MAX_RATIO < len(BOMB)
    with pytest.raises(TooLongToReadError, match="becomes longer than") as caught:
        RequestBody(data, form=BodyForm(content_encoding=encoding)).read()
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("content_type", "is_read"),
    [
        ("application/json", True),
        ("application/json; charset=UTF-8", True),
        ('text/plain; charset="latin-1"', True),
        ("application/json; charset=utf-7", False),
        ("application/json; charset=cp037", False),
        ("application/json; charset", False),
    ],
)
def test_a_character_set_in_which_json_looks_otherwise_is_not_read(content_type: str, is_read: bool) -> None:
    body = RequestBody(TEXT.encode(), form=BodyForm(content_type=content_type))
    if is_read:
        assert body.read().value == VALUE
        return
    with pytest.raises(UnsupportedCharacterSetError, match="send JSON in UTF-8"):
        body.read()


def test_the_strict_members_of_a_lenient_body_are_its_values() -> None:
    body = RequestBody(
        gzip.compress(b'{"a":NaN,"b":"\\ud800"}', mtime=0), form=BodyForm(content_encoding="gzip")
    )
    assert {name: bytes(raw) for name, raw in body.strict_members().items()} == {"a": b"null", "b": b'"?"'}
