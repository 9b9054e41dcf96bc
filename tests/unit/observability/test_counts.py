"""Counts of routes, kept apart by namespace."""

from __future__ import annotations

from serac_gateway.observability.counts import RouteCount, RouteCounts


def test_counts_are_kept_by_namespace_and_summed_for_who_may_see_all() -> None:
    counts = RouteCounts()
    for namespace, times in (("acme", 2), ("umbra", 3), (None, 1)):
        for _ in range(times):
            counts.add("base", "no edits", namespace)
    assert counts.snapshot(["acme"]) == [RouteCount(route="base", reason="no edits", count=2)]
    assert counts.snapshot(["acme", "umbra"]) == [RouteCount(route="base", reason="no edits", count=5)]
    assert counts.snapshot(["none"]) == []
    assert counts.snapshot() == [RouteCount(route="base", reason="no edits", count=6)]


def test_a_client_that_invents_namespaces_does_not_fill_the_memory() -> None:
    counts = RouteCounts()
    for number in range(20_000):
        counts.add("base", "no edits", f"n{number}")
    seen = sum(bool(counts.snapshot([f"n{number}"])) for number in range(0, 20_000, 500))
    assert seen == 20
    assert counts.snapshot() == [RouteCount(route="base", reason="no edits", count=20_000)]
