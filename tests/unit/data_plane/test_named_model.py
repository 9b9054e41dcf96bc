"""The model that a request names, found in paths, forms and JSON of any kind, in pieces of any size."""

from __future__ import annotations

import json
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given

from serac_gateway.data_plane.upstream.named_model import JsonModelScanner, model_in_path, scanner_of

JSON_TYPE = [(b"content-type", b"application/json")]


def scanned(body: bytes, content_type: bytes = b"application/json", *, step: int = 1 << 20) -> str | None:
    scanner = scanner_of([(b"content-type", content_type)])
    for start in range(0, len(body), step):
        scanner.feed(body[start : start + step])
    return scanner.model


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"m"}', "m"),
        (b' \n{ "messages" : [ {"model": "no"} ] , "model" : "m" }', "m"),
        (b'{"input":[[1,2],[3,{"model":"no"}]],"model":"m"', "m"),
        (b'{"x":"\\"model\\":\\"no\\"","model":"m"}', "m"),
        (b'{"x":"\\\\","model":"m"}', "m"),
        (b'{"x":"model","model":"m"}', "m"),
        (b'{"x":["model","no"],"model":"m"}', "m"),
        (b'{"mod\\u0065l":"\\u006d"}', "m"),
        (b'{"model":"a","model":"b"}', "b"),
        (b'{"model":"a","x":[{"model":"no"}],"mod\\u0065l":"b","y":1}', "b"),
        (b'{"model":null,"model":"m"}', "m"),
        (b'{"model":"no","model":null}', None),
        (b'{"model":"no","model":{"model":"no"}}', None),
        (b'{"model":"no","model":["no"],"x":"model"}', None),
        (b'{"model":"no","model":7,"x":1}', None),
        (b'{"model":"m","x":"model"}', "m"),
        (b'{"model":"m","model","x":1}', "m"),
        (b'{"model":{"model":"no"},"a":1}', None),
        (b'{"model":7}', None),
        (b'{"model"', None),
        (b'{"model":"m', None),
        (b'[{"model":"no"}]', None),
        (b'"model"', None),
        (b'{} {"model":"no"}', None),
        (b'{"x":NaN,"y":Infinity,"model":"m"}', "m"),
        (b'{"x":"\\ud800","model":"m"}', "m"),
        (b'{"x":"caf\xe9","model":"m"}', "m"),
        (b'{"x":"a\tb\x00","model":"m"}', "m"),
        (b'{"x":"' + b"y" * 5_000 + b'","model":"m"}', "m"),
        (b'{"model":"' + b"y" * 5_000 + b'","model":"m"}', "m"),
        (b'{"model":"no","model":"' + b"y" * 5_000 + b'"}', None),
        (b"\xef\xbb\xbf" + b'{"model":"m"}', "m"),
        ('{"x":"é","model":"m"}'.encode("utf-16"), "m"),
        ('{"x":"é","model":"m"}'.encode("utf-32-be"), "m"),
        (b"not json", None),
        (b"", None),
    ],
)
def test_the_model_of_json(body: bytes, model: str | None, step: int) -> None:
    assert scanned(body, step=step) == model


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just("model"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.just("model"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    members=st.dictionaries(st.text(max_size=4) | st.just("model"), VALUES, max_size=5),
    earlier=st.none() | st.text(max_size=3) | st.lists(st.integers()),
    ascii_only=st.booleans(),
    step=st.integers(1, 9),
)
def test_it_is_the_last_that_a_parser_finds(
    members: dict[str, object], earlier: object, ascii_only: bool, step: int
) -> None:
    model = members.get("model")
    if earlier is not None:
        members = {"model\0": earlier, **members}
    body = json.dumps(members, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    if earlier is not None:  # json.dumps writes no member twice
        body = body.replace(json.dumps("model\0").encode(), b'"model"', 1)
        model = json.loads(body)["model"]
    assert scanned(body, step=step) == (model if isinstance(model, str) else None)


def form(*parts: tuple[str, bytes], boundary: str = "b", tail: bytes = b"--\r\n") -> bytes:
    delimiter = b"--" + boundary.encode()
    body = b"".join(
        delimiter + b"\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts
    )
    return body + delimiter + tail


FILE = (
    'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav',
    b"RIFF\r\n--x" * 999,
)
FORM = b"multipart/form-data; boundary=b"
NAMED = 'Content-Disposition: form-data; name="model"'
UNQUOTED = "content-disposition:form-data;name=model"
OTHER = 'x: y\r\nContent-Disposition: form-data; filename="model"; name="file"'
MODEL = (NAMED, b"whisper-1")


@pytest.mark.parametrize("step", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    ("body", "content_type", "model"),
    [
        (form(MODEL, FILE), FORM, "whisper-1"),
        (form(FILE, MODEL), FORM, "whisper-1"),
        (form(FILE, (UNQUOTED, b" m ")), b'Multipart/Form-Data; Boundary="b"', "m"),
        (form((OTHER, b"no"), MODEL), FORM, "whisper-1"),
        (b"preamble\r\n" + form(MODEL), b"multipart/form-data; charset=x; boundary=b", "whisper-1"),
        (form((NAMED, b"")), FORM, ""),
        (form((NAMED, b"no"), FILE, MODEL), FORM, "whisper-1"),
        (form(FILE), FORM, None),
        (form() + form(MODEL), FORM, None),
        (form(MODEL)[:60], FORM, None),
        (form(MODEL, boundary="c"), FORM, None),
        (form(MODEL), b"multipart/form-data", None),
        (form((NAMED, b"x" * 5_000)), FORM, None),
    ],
)  # fmt: skip
def test_the_model_of_a_form(body: bytes, content_type: bytes, model: str | None, step: int) -> None:
    assert scanned(body, content_type, step=step) == model


@pytest.mark.parametrize(
    ("target", "model"),
    [
        (b"/models/gpt-4o", "gpt-4o"),
        (b"/models/org%2Fname?x=/models/no", "org/name"),
        (b"/deployments/whisper-1/audio/transcriptions?api-version=1", "whisper-1"),
        (b"/v1/engines/m/completions", "m"),
        (b"/Deployments/caf%C3%A9/embeddings", "café"),
        (b"/models", None),
        (b"/models/", None),
        (b"/chat/completions?models/x", None),
    ],
)
def test_the_model_of_a_path(target: bytes, model: str | None) -> None:
    assert model_in_path(target) == model


@pytest.mark.parametrize(
    "part",
    [b"[", b"[],", b'{"a":', b'"a",', b'"\\', b'\\"', b'"', b"{},", b"1,", b" ", b'{"model":', b"\\u0022"],
)
def test_the_search_takes_linear_time_and_little_memory(part: bytes) -> None:
    scanner = JsonModelScanner()
    chunk = (part * 65_536)[:65_536]
    begun = time.thread_time()
    scanner.feed(b"{")
    for _ in range(100):
        scanner.feed(chunk)
    assert time.thread_time() - begun < 10
    held = [scanner._left, scanner._text or b"", scanner._between, scanner._name or b""]
    assert max(map(len, held)) <= 65_536 + 1_024


def test_the_model_is_known_before_the_body_ends() -> None:
    scanner = JsonModelScanner()
    scanner.feed(b'{"model":"m","messages":[')
    assert (scanner.model, scanner.is_known, scanner.is_done) == ("m", True, False)
    scanner.feed(b']}{"model":"no"}')
    assert (scanner.model, scanner.is_done) == ("m", True)
