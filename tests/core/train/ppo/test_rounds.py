"""Which prompts are answered when."""

from collections import Counter

import pytest

from core.train.data.order import epoch_order
from core.train.ppo.rounds import Rounds


def fresh(rounds: Rounds, count: int) -> list[int]:
    return [row for number in range(count) for row in rounds.prompts(number)]


@pytest.mark.parametrize(
    ("batch", "buffer", "passes"), [(4, 1, 1), (4, 2, 3), (2, 4, 4), (8, 1, 2), (3, 1, 2)]
)
def test_prompts_come_in_the_order_of_every_stage_whatever_the_batch(
    batch: int, buffer: int, passes: int
) -> None:
    rounds = Rounds(20, batch, buffer, passes, 7)
    per_epoch = -(-20 // (batch * buffer))
    assert fresh(rounds, 2 * per_epoch) == [*epoch_order(20, 7, 0), *epoch_order(20, 7, 1)]


@pytest.mark.parametrize(
    ("rows", "batch", "buffer", "passes"),
    [(20, 4, 2, 3), (21, 4, 2, 3), (5, 8, 2, 4), (16, 4, 1, 1)],
)
def test_each_update_learns_from_its_round_alone_and_each_answer_is_gone_over_as_often(
    rows: int, batch: int, buffer: int, passes: int
) -> None:
    rounds = Rounds(rows, batch, buffer, passes, 3)
    for epoch in range(2):
        order = list(rounds.order(epoch))
        assert Counter(order) == Counter(dict.fromkeys(range(rows), passes))
        updates = [order[at : at + batch] for at in range(0, len(order), batch)]
        assert len(updates) == rounds.updates_per_epoch
        for place, update in enumerate(updates):
            number = rounds.number(epoch * rounds.updates_per_epoch + place)
            assert set(update) <= set(rounds.prompts(number))


def test_a_round_has_buffer_times_passes_updates() -> None:
    rounds = Rounds(64, 8, 2, 3, 0)
    assert [rounds.number(update) for update in range(13)] == [0] * 6 + [1] * 6 + [2]


def test_later_passes_go_in_other_orders_that_are_always_the_same() -> None:
    rounds = Rounds(32, 4, 8, 3, 0)
    order = list(rounds.order(0))
    passes = [order[at : at + 32] for at in (0, 32, 64)]
    assert passes[0] == rounds.prompts(0)
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert order == list(Rounds(32, 4, 8, 3, 0).order(0))
