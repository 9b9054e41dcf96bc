"""Answers that are generated at once take turns, token by token."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from serac_gateway.models.language_models.turns import Turn, Turns


def run(turns: Turns, lengths: list[int]) -> list[int]:
    """Answers of these lengths, all begun before the first token: their numbers, token by token."""
    order: list[int] = []
    begun = threading.Barrier(len(lengths))

    def answer(number: int) -> None:
        turn = Turn(turns)
        begun.wait(10)
        try:
            for _ in range(lengths[number]):
                turn.next()
                order.append(number)
        finally:
            turn.end()

    with ThreadPoolExecutor(len(lengths)) as pool:
        list(pool.map(answer, range(len(lengths))))
    return order


def test_no_answer_is_two_tokens_ahead_of_another_that_waits() -> None:
    turns = Turns(1)
    turns.take()  # nobody computes until all wait
    held = threading.Timer(0.3, turns.give)
    held.start()
    order = run(turns, [20, 20, 20, 20])
    for end in range(len(order)):
        counts = [order[: end + 1].count(number) for number in range(4)]
        assert max(counts) - min(counts) <= 1


def test_a_short_answer_ends_before_a_long_one_that_began_with_it() -> None:
    order = run(Turns(1), [200, 3])
    assert order.count(1) == 3
    assert order.index(1) < 200


def test_no_more_turns_are_taken_than_there_are() -> None:
    turns, now, most = Turns(2), 0, 0
    counting = threading.Lock()

    def answer(_: int) -> None:
        nonlocal now, most
        for _ in range(50):
            turns.take()
            with counting:
                now += 1
                most = max(most, now)
            with counting:
                now -= 1
            turns.give()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(answer, range(6)))
    assert most <= 2


def test_an_answer_that_ends_twice_gives_one_turn_back() -> None:
    turns = Turns(1)
    turn = Turn(turns)
    turn.next()
    turn.end()
    turn.end()
    turns.take()
    waiting = threading.Thread(target=turns.take, daemon=True)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()  # there is one turn, and it is taken
    turns.give()
    waiting.join(10)
    assert not waiting.is_alive()
