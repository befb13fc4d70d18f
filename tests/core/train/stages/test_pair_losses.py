"""Losses of pairs that compare with no reference."""

import pytest
import torch
from torch.nn.functional import logsigmoid

from core.train.stages.pair_losses import odds_ratio_losses, simple_losses, smoothing


def test_the_odds_ratio_is_exact_from_unlikely_answers_to_nearly_certain_ones() -> None:
    chosen = torch.tensor([-30.0, -8.0, -1.0, -0.5, -1e-3, -1e-5])
    rejected = chosen.flip(0)
    found = odds_ratio_losses(chosen, rejected, 0.7)
    c, r = chosen.double(), rejected.double()
    odds = (c - torch.log(-torch.expm1(c))) - (r - torch.log(-torch.expm1(r)))
    assert torch.allclose(found.double(), -c - 0.7 * logsigmoid(odds), rtol=1e-4)


@pytest.mark.parametrize("certain", [0.0, -1e-12, -1e-7])
def test_an_answer_that_is_certain_has_a_finite_loss_and_gradient(certain: float) -> None:
    chosen = torch.tensor([certain, -1.0], requires_grad=True)
    rejected = torch.tensor([-1.0, certain], requires_grad=True)
    loss = odds_ratio_losses(chosen, rejected, 1.0).sum()
    loss.backward()
    for tensor in (loss, chosen.grad, rejected.grad):
        assert tensor is not None and torch.isfinite(tensor).all()


def test_what_is_no_number_stays_so() -> None:
    nan = torch.tensor([float("nan")])
    assert odds_ratio_losses(nan, -torch.ones(1), 1.0).isnan().all()
    assert simple_losses(nan, -torch.ones(1), 1.0, 0.5).isnan().all()


def test_simpo_wants_its_margin() -> None:
    chosen, rejected = torch.tensor([-1.0]), torch.tensor([-1.5])
    # β × 0.5 is just the margin.
    assert float(simple_losses(chosen, rejected, 2.0, 1.0)) == pytest.approx(0.6931, abs=1e-4)
    assert float(simple_losses(chosen, rejected, 2.0, 0.0)) < 0.6931


def test_smoothing_makes_sigmoid_dpo_conservative() -> None:
    margins = torch.tensor([1.5, -0.3, 0.0])
    plain = -logsigmoid(0.4 * margins).mean()
    both = -(0.8 * logsigmoid(0.4 * margins) + 0.2 * logsigmoid(-0.4 * margins)).mean()
    assert torch.allclose(plain + smoothing(margins, 0.4, 0.2), both)
