"""Roles, namespaces and rates; what a key looks like, and which key fits."""

from __future__ import annotations

import hmac
import string
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.auth.api_keys import (
    KEY_PREFIX,
    ApiKeyDraft,
    NewApiKey,
    PresentedKey,
    check_key_id,
    checked_pepper,
    fits,
    new_api_key,
    pepper_id,
    presented_key,
    redacted,
)
from serac_gateway.auth.principals import ANYONE, Allowance, Principal, Role, allowance
from serac_gateway.errors import ConfigError, InvalidRequestError, PermissionDeniedError

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PEPPER = b"p" * 32


def new_key(pepper: bytes = PEPPER, **changes: object) -> NewApiKey:
    draft = msgspec.structs.replace(ApiKeyDraft(name="CI", role=Role.EDIT), **changes)
    return new_api_key(draft, pepper=pepper, created_by=None, now=NOW)


def presented(text: str) -> PresentedKey:
    presented = presented_key(text.encode())
    assert presented is not None
    return presented


def bound_to(*namespaces: str, role: Role = Role.EDIT) -> Principal:
    return Principal(key_id="k" * 12, name="CI", role=role, namespaces=namespaces)


def test_each_role_allows_itself_and_those_below() -> None:
    allowed = {(role, needed) for role in Role for needed in Role if role.allows(needed)}
    roles = [Role.CHAT, Role.EDIT, Role.APPROVE, Role.ADMIN]
    assert allowed == {(role, below) for place, role in enumerate(roles) for below in roles[: place + 1]}
    bound_to("a", role=Role.EDIT).require(Role.CHAT)
    with pytest.raises(PermissionDeniedError, match=r"'admin'.*'edit'"):
        bound_to("a", role=Role.EDIT).require(Role.ADMIN)


def test_a_key_of_one_namespace_sets_it_and_has_no_other() -> None:
    assert bound_to("acme").namespace(None) == bound_to("acme").namespace("acme") == "acme"
    with pytest.raises(PermissionDeniedError, match=r"'default'.*acme"):
        bound_to("acme").namespace("default")


def test_a_key_of_several_namespaces_needs_one_of_them_named() -> None:
    key = bound_to("acme", "umbra")
    assert key.namespace("umbra") == "umbra"
    with pytest.raises(InvalidRequestError, match="acme, umbra"):
        key.namespace(None)
    with pytest.raises(PermissionDeniedError):
        key.namespace("acme2")


def test_a_key_of_every_namespace_has_the_default_one_unless_it_names_another() -> None:
    for anyone in (ANYONE, bound_to("*")):
        assert anyone.namespace(None) == "default"
        assert anyone.namespace("acme") == "acme"
        with pytest.raises(InvalidRequestError):
            anyone.namespace("*")


def test_the_author_names_the_key_and_nobody_without_one() -> None:
    assert bound_to("a").author == "CI (key kkkkkkkkkkkk)"
    assert ANYONE.author is None


def test_a_key_has_the_documented_form_and_fits_its_record_alone() -> None:
    key, other = new_key(), new_key()
    assert key.text.startswith(KEY_PREFIX + key.stored.key.id + "-")
    assert len(key.text) == len(KEY_PREFIX) + 12 + 1 + 43
    assert key.text != other.text
    assert fits(presented(key.text), key.stored, PEPPER)
    assert not fits(presented(key.text), other.stored, PEPPER)
    assert not fits(presented(key.text), None, PEPPER)


def test_a_digest_made_under_another_pepper_fits_nothing() -> None:
    key = new_key(b"")
    assert fits(presented(key.text), key.stored, b"")
    assert not fits(presented(key.text), key.stored, PEPPER)
    assert key.stored.pepper_id == pepper_id(b"") != pepper_id(PEPPER)


def test_the_digest_is_an_hmac_of_the_whole_key_under_the_pepper() -> None:
    key = new_key()
    assert key.stored.digest == hmac.new(PEPPER, key.text.encode(), "sha256").hexdigest()


def test_nothing_of_the_secret_stands_in_what_is_stored() -> None:
    key = new_key()
    secret = key.text.rpartition("-")[2]
    stored = msgspec.json.encode(key.stored).decode()
    assert not [secret[i : i + 6] for i in range(38) if secret[i : i + 6] in stored]


@given(st.data())
def test_any_changed_character_of_a_key_makes_it_another(data: st.DataObject) -> None:
    key = new_key()
    position = data.draw(st.integers(0, len(key.text) - 1))
    changed = data.draw(st.sampled_from(string.printable).filter(lambda char: char != key.text[position]))
    text = key.text[:position] + changed + key.text[position + 1 :]
    presented = presented_key(text.encode())
    assert presented is None or not fits(presented, key.stored, PEPPER)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_key_are_none(value: bytes) -> None:
    assert presented_key(value) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text + "a",
        lambda text: text[:-1],
        lambda text: " " + text,
        lambda text: text + "\r\nx: y",
        lambda text: text.upper(),
        lambda text: text[:-1] + "é",
        lambda text: text[:-1] + "٣",  # a digit, elsewhere
        lambda text: text * 200,
        lambda text: text + "\0",
        lambda text: text + ", Bearer " + text,
    ],
)
def test_what_is_nearly_a_key_is_none(change: object) -> None:
    assert presented_key(change(new_key().text).encode()) is None  # type: ignore[operator]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " x"}, "name"),
        ({"name": "x\r\nx-evil: 1"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"namespaces": ()}, "namespaces"),
        ({"namespaces": ("Bad",)}, "namespaces"),
        ({"namespaces": ("acme", "*")}, "namespaces"),
        ({"namespaces": ("../x",)}, "namespaces"),
        ({"namespaces": tuple(f"n{i}" for i in range(65))}, "namespaces"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"requests_per_minute": 10**7}, "requests_per_minute"),
        ({"expires_at": NOW}, "expires_at"),
    ],
)
def test_a_draft_that_breaks_a_rule_is_refused_by_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        new_key(**changes)
    assert caught.value.field == field
    assert "give" in caught.value.message or "use" in caught.value.message


def test_without_namespaces_an_admin_has_all_and_others_the_default_one() -> None:
    assert new_key(role=Role.ADMIN).stored.key.namespaces == ("*",)
    assert new_key(role=Role.CHAT).stored.key.namespaces == ("default",)
    assert new_key(role=Role.CHAT, namespaces=("*",)).stored.key.namespaces == ("*",)


def test_a_key_is_active_until_it_expires_or_is_revoked() -> None:
    key = new_key(expires_at=NOW + timedelta(seconds=1)).stored.key
    assert key.is_active(NOW)
    assert not key.is_active(NOW + timedelta(seconds=1))
    assert not msgspec.structs.replace(key, revoked_at=NOW).is_active(NOW)


@pytest.mark.parametrize("bad", ["", "x" * 11, "x" * 13, "x" * 11 + "-", "ä" * 12])
def test_an_id_that_cannot_be_one_is_refused(bad: str) -> None:
    with pytest.raises(InvalidRequestError, match="12 letters and digits"):
        check_key_id(bad)


def test_a_whole_key_given_for_an_id_is_not_repeated() -> None:
    key = new_key()
    with pytest.raises(InvalidRequestError) as caught:
        check_key_id(key.text)
    assert key.text not in caught.value.message
    assert key.stored.key.id in caught.value.message


def test_a_pepper_that_is_too_short_is_refused_without_showing_it() -> None:
    assert checked_pepper(None) == checked_pepper("") == b""
    assert checked_pepper("s" * 32) == b"s" * 32
    with pytest.raises(ConfigError, match="6 characters") as caught:
        checked_pepper("hunter")
    assert "hunter" not in caught.value.message


@given(st.text(max_size=30), st.text(max_size=30))
def test_text_with_a_key_in_it_loses_the_secret_and_keeps_the_id(before: str, after: str) -> None:
    key = new_key()
    redacted_text = redacted(f"{before}{key.text} {after}")
    assert key.text.rpartition("-")[2] not in redacted_text
    assert key.stored.key.id in redacted_text
    assert redacted(before) == before or KEY_PREFIX in before


def test_a_rate_allows_a_minutes_requests_at_once_and_then_one_at_a_time() -> None:
    bucket: Allowance | None = None
    for _ in range(60):
        bucket = allowance(bucket, requests_per_minute=60, now_s=0.0)
        assert bucket.wait_s == 0
    refused = allowance(bucket, requests_per_minute=60, now_s=0.25)
    assert refused.wait_s == pytest.approx(0.75)
    allowed = allowance(refused, requests_per_minute=60, now_s=1.0)
    assert allowed.wait_s == 0
    assert allowance(allowed, requests_per_minute=60, now_s=1.5).wait_s == pytest.approx(0.5)


@given(
    st.integers(1, 1_000),
    st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
)
def test_no_one_gets_more_than_their_rate_whenever_they_ask(rate: int, pauses_s: list[float]) -> None:
    bucket: Allowance | None = None
    now_s, granted = 0.0, 0
    for pause_s in pauses_s:
        now_s += pause_s
        bucket = allowance(bucket, requests_per_minute=rate, now_s=now_s)
        granted += bucket.wait_s == 0
        assert 0 <= bucket.tokens <= rate
        if bucket.wait_s:
            later = allowance(bucket, requests_per_minute=rate, now_s=now_s + bucket.wait_s + 1e-6)
            assert later.wait_s == 0
    assert granted <= rate + now_s * rate / 60 + 1e-6
