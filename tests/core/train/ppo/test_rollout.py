"""What is learnt from the answers of a round, and what a checkpoint keeps of them."""

import statistics
from pathlib import Path

import pytest
import torch

from core.params import AlignmentTable
from core.train.ppo.rollout import (
    Drawn,
    ScoreScale,
    batch_of,
    judge,
    kept,
    scale_kept,
    taken_up,
)


def drawn(length: int, score: float, prompt: int = 2) -> Drawn:
    numbers = torch.arange(1.0, length + 1)
    return Drawn(
        torch.arange(prompt) + 50, torch.arange(length) + 5, -numbers, numbers / 10, numbers * 0,
        score,
    )  # fmt: skip


def test_returns_without_discount_are_the_score_less_the_penalty_of_what_follows() -> None:
    table = AlignmentTable(ppo_lambda=1.0)
    (one, _) = judge([drawn(3, 4.0), drawn(1, 0.0)], table, kl_coef=0.5, scale=2.0)
    # Penalties are 0.05, 0.1, 0.15, and the score 4 / 2.
    assert one.returns.tolist() == pytest.approx([2 - 0.3, 2 - 0.25, 2 - 0.15])
    assert len(one.advantages) == len(one.answer) == 3


def test_advantages_are_whitened_over_the_round() -> None:
    found = judge([drawn(3, 1.0), drawn(2, -1.0), drawn(4, 5.0)], AlignmentTable(), 0.1, 1.0)
    every = torch.cat([answer.advantages for answer in found])
    assert float(every.mean()) == pytest.approx(0, abs=1e-6)
    assert float(every.std(correction=0)) == pytest.approx(1, rel=1e-4)


def test_whitened_rewards_around_zero_do_not_depend_on_the_scale_of_scores() -> None:
    table = AlignmentTable(ppo_whiten_rewards=True)
    plain = judge([drawn(2, 1.0), drawn(2, -1.0)], table, 0.0, 1.0)
    large = judge([drawn(2, 100.0), drawn(2, -100.0)], table, 0.0, 1.0)
    for one, other in zip(plain, large, strict=True):
        assert other.returns.tolist() == pytest.approx(one.returns.tolist(), rel=1e-5)


def test_answers_begin_in_one_column_and_are_padded_to_a_multiple() -> None:
    answers = judge([drawn(3, 1.0, prompt=1), drawn(1, 0.0, prompt=4)], AlignmentTable(), 0.1, 1.0)
    batch = batch_of(answers, pad=9, multiple=8)
    assert batch["prompts"].tolist() == [[9, 9, 9, 9, 50], [9, 50, 51, 52, 53]]
    assert batch["prompt_mask"].tolist() == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1]]
    assert batch["answers"].tolist() == [[5, 6, 7], [5, 9, 9]]
    assert batch["mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["logprobs"].shape == batch["returns"].shape == (2, 3)


def test_a_checkpoint_keeps_the_answers_bit_for_bit(tmp_path: Path) -> None:
    answers = dict(enumerate(judge([drawn(3, 1.0), drawn(2, 7.0)], AlignmentTable(), 0.3, 1.0)))
    torch.save(kept(answers), tmp_path / "answers.pt")
    again = taken_up(torch.load(tmp_path / "answers.pt", weights_only=True))
    assert list(again) == [0, 1]
    for row, answer in answers.items():
        for name in ("prompt", "answer", "logprobs", "values", "advantages", "returns"):
            assert torch.equal(getattr(again[row], name), getattr(answer, name))
    # A part of a tensor would be saved with all of it.
    assert (tmp_path / "answers.pt").stat().st_size < 20_000


def test_the_running_deviation_is_that_of_all_scores() -> None:
    scale, scores = ScoreScale(), [1.0, 4.0, -2.0, 8.5, 3.0, 3.0]
    assert scale.deviation == 1
    scale.add(scores[:2])
    scale.add(scores[2:])
    assert scale.deviation == pytest.approx(statistics.pstdev(scores))
    assert ScoreScale(**scale_kept(scale)) == scale


def test_scores_that_are_all_the_same_are_not_divided_by_zero() -> None:
    scale = ScoreScale()
    scale.add([2.0, 2.0, 2.0])
    assert scale.deviation == 1
