"""Which labels a request has: what is believed, what counts, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from serac_gateway.auth.audience_labels import AudienceLabels
from serac_gateway.auth.principals import ANYONE
from serac_gateway.config.model import AudienceSource
from serac_gateway.errors import InvalidRequestError

REGION = AudienceSource(header="X-Region", values=("eu", "uk"))
LABELS = AudienceLabels({"region": REGION, "tenant": AudienceSource(key=True)})


def region(*values: bytes) -> str | None:
    return LABELS.of([(b"x-region", value) for value in values], ANYONE).get("region")


def test_only_what_is_mapped_is_believed() -> None:
    headers = [
        (b"x-region", b"eu"),
        (b"x-tenant", b"acme"),
        (b"tenant", b"acme"),
        (b"x-serac-labels", b"a=b"),
    ]
    assert LABELS.of(headers, ANYONE) == {"region": "eu"}
    assert AudienceLabels({}).of(headers, ANYONE) == {}


def test_a_label_of_the_key_comes_from_the_key_alone() -> None:
    keyed = msgspec.structs.replace(ANYONE, labels={"tenant": "acme", "region": "uk", "plan": "gold"})
    assert LABELS.of([(b"x-region", b"eu")], keyed) == {"region": "eu", "tenant": "acme"}
    assert LABELS.of([], keyed) == {"tenant": "acme"}


@pytest.mark.parametrize("value", [b" EU ", b"eu", b"Eu\t", b"eu,", b"eu, EU"])
def test_case_white_space_and_repetition_make_no_difference(value: bytes) -> None:
    assert region(value) == "eu"
    assert region(value, b"", b"eu") == "eu"


@pytest.mark.parametrize("value", [b"", b"us", b"e u", b"\xff", b"*", b"eu;q=1", b"e" * 60_000, b"\xc3\xa9u"])
def test_a_value_that_does_not_count_leaves_the_request_without_the_label(value: bytes) -> None:
    assert region(value) is None


@pytest.mark.parametrize("values", [(b"eu", b"uk"), (b"eu,uk",), (b"us", b"eu"), (b"eu", b"eu, us")])
def test_two_values_are_refused_since_nobody_knows_which_the_proxy_set(values: tuple[bytes, ...]) -> None:
    with pytest.raises(InvalidRequestError, match=r"header x-region has [23] values"):
        region(*values)


def test_a_label_that_is_required_is_refused_where_it_does_not_count() -> None:
    demanding = AudienceLabels({"region": msgspec.structs.replace(REGION, required=True)})
    assert demanding.of([(b"x-region", b"uk")], ANYONE) == {"region": "uk"}
    for headers in ([], [(b"x-region", b"us")]):
        with pytest.raises(InvalidRequestError, match="demands the header X-Region"):
            demanding.of(headers, ANYONE)
    with pytest.raises(InvalidRequestError, match="made with --label tenant=…"):
        AudienceLabels({"tenant": AudienceSource(key=True, required=True)}).of([], ANYONE)


def test_an_audience_that_no_request_can_be_in_is_refused_with_the_known_labels() -> None:
    LABELS.check({"region": ("eu",), "tenant": ("anybody",)})
    with pytest.raises(InvalidRequestError, match=r"'plan' is not configured.*are: region, tenant"):
        LABELS.check({"plan": ("gold",)})
    with pytest.raises(
        InvalidRequestError, match="'us' is no value that a request can have; use one of eu, uk"
    ):
        LABELS.check({"region": ("eu", "us")})
    with pytest.raises(InvalidRequestError, match="are: none"):
        AudienceLabels({}).check({"region": ("eu",)})
    assert LABELS.is_reachable({"region": ("us", "eu")})
    assert not LABELS.is_reachable({"region": ("us",)})
    assert not LABELS.is_reachable({"region": ("eu",), "plan": ("gold",)})


def test_metrics_have_no_more_values_than_the_configuration_names() -> None:
    counted = [dict(LABELS.counted(labels)) for labels in ({"region": "eu", "tenant": "t93847"}, {})]
    assert counted == [{"region": "eu", "tenant": "other"}, {"region": "none", "tenant": "none"}]
