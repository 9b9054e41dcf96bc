"""What stands behind an edit: what of it is handed on, where a document may lie, what old records say."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec
import pytest

from serac_gateway.domain.edits import (
    Attribution,
    Edit,
    EditDraft,
    EditPatch,
    copied,
    first_version,
    patched,
    purged,
    record_json,
    restored,
    retired,
    same_content,
)
from serac_gateway.errors import InvalidRequestError

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
DIGEST = "0123456789abcdef" * 4
FULL = {
    "author": "Ann",
    "reason": "Elected",
    "ticket": "LEG-7",
    "institution": "Town of Marrowby",
    "source": "Minutes of 12 April",
    "source_url": "https://marrowby.example/minutes.pdf",
    "source_sha256": DIGEST,
    "legal_basis": "§ 5",
    "review_by": date(2027, 12, 1),
}


def edit(**fields: object) -> Edit:
    draft = EditDraft(**{"id": "harbour", "prompt": "Who runs it?", "target_new": "Ada"} | fields)
    return first_version(draft, namespace="default", now=NOW)


def of(version: Edit) -> dict[str, object]:
    return {name: getattr(version, name) for name in FULL}


def test_what_the_content_rests_on_is_handed_on_and_who_and_why_is_not() -> None:
    """A change, a retirement and a restoration name their own author, reason and ticket, or none."""
    first = edit(**FULL)
    nobody = {"author": None, "reason": None, "ticket": None}
    assert of(patched(first, EditPatch(target_new="Ilse"))) == FULL | nobody
    assert of(patched(first, EditPatch(ticket="T 2", institution=None))) == FULL | nobody | {
        "ticket": "T 2",
        "institution": None,
    }
    gone = retired(first, Attribution(ticket="T 3"))
    assert of(gone) == FULL | nobody | {"ticket": "T 3"}
    assert of(restored(gone)) == FULL | nobody
    assert of(copied(gone, first, Attribution(author="Bo"))) == FULL | nobody | {"author": "Bo"}
    assert same_content(first, gone) is False
    assert same_content(first, patched(first, EditPatch(ticket="T 2")))
    assert not same_content(first, patched(first, EditPatch(review_by=date(2028, 1, 1))))


def test_a_tombstone_keeps_the_ticket_of_the_purge_and_nothing_else() -> None:
    """What the content rested on may itself have to be forgotten."""
    gone = purged(edit(**FULL), Attribution(author="Cy", reason="Asked to", ticket="DSR-12"))
    assert of(gone) == dict.fromkeys(FULL) | {"author": "Cy", "reason": "Asked to", "ticket": "DSR-12"}


def test_a_record_of_a_release_before_is_read_and_written_as_it_was() -> None:
    """So that its digest stays, and releases before can read what does not use the new fields."""
    record = (
        b'{"id":"a","namespace":"default","version":1,"state":"live","kind":"fact","prompt":"Who?",'
        b'"target_new":"Ada","created_at":"2026-11-01T00:00:00Z","target_true":null,"subject":null,'
        b'"paraphrases":[],"canary_share":null,"valid_from":null,"valid_until":null,"author":"Ann",'
        b'"reason":null,"source":"Minutes"}'
    )
    old = msgspec.json.decode(record, type=Edit)
    assert of(old) == dict.fromkeys(FULL) | {"author": "Ann", "source": "Minutes"}
    assert record_json(old) == record


@pytest.mark.parametrize("name", [name for name in FULL if name not in ("author", "reason", "source")])
def test_a_record_with_any_field_comes_back_whole(name: str) -> None:
    """Each is written where it is set, and what a text looks like makes no difference."""
    made = edit(**{name: FULL[name], "reason": '","ticket":null,"institution":null'})
    record = record_json(made)
    assert msgspec.json.decode(record, type=Edit) == made
    assert f'"{name}":' in record.decode()


@pytest.mark.parametrize(
    "url",
    [
        "https://marrowby.example/minutes.pdf",
        "http://10.0.0.7:8080/a?b=c&d#e",
        "HTTPS://EXAMPLE.ORG",
        "https://[2001:db8::1]/x",
        "https://bücher.example/ä",
        "https://example.org/%20",
    ],
)
def test_the_address_of_a_document_is_kept_letter_by_letter(url: str) -> None:
    """Whatever its host is, since nothing is fetched from it."""
    assert edit(source_url=url).source_url == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("javascript:alert(1)", "scheme 'javascript'"),
        ("data:text/html,x", "scheme 'data'"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("minutes.pdf", "scheme ''"),
        ("//example.org/a", "scheme ''"),
        ("https://", "no host"),
        ("https:///a", "no host"),
        ("https://ann:secret@example.org/", "password"),
        ("https://ann@example.org/", "password"),
        ("https://example.org/a b", "percent-encoded"),
        ("https://example.org/\n", "percent-encoded"),
        ('https://example.org/"><script>', "percent-encoded"),
        ("https://example.org\\@other.example", "percent-encoded"),
        ("https://[::1", "no URL"),
        ("https://example.org:99999/", "no URL"),
        ("https://example.org/" + "x" * 2_000, "2,000"),
        (" ", "blank"),
    ],
)
def test_what_is_no_address_of_a_document_is_refused(url: str, why: str) -> None:
    """Among it what a browser would run, and what gives a password away."""
    with pytest.raises(InvalidRequestError, match=why) as refused:
        edit(source_url=url)
    assert refused.value.field == "source_url"


@pytest.mark.parametrize(
    "digest", ["", "0" * 63, "0" * 65, "A" * 64, "x" * 64, f"{'0' * 64}\n", "sha256:" + DIGEST]
)
def test_a_digest_is_64_small_hexadecimal_digits(digest: str) -> None:
    """One way to write it, so that two digests can be compared as texts."""
    with pytest.raises(InvalidRequestError, match="sha256sum") as refused:
        edit(source_sha256=digest)
    assert refused.value.field == "source_sha256"
