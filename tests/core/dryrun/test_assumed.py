"""What is assumed of data that fake tensors have not."""

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from core.dryrun.assumed import Assumed
from core.dryrun.memo import Memo
from core.dryrun.prove import fake_mode
from core.dryrun.tracker import Tracker

ROWS, WIDTH, ANSWERS = 4, 10, 3


@pytest.fixture
def assumed() -> Iterator[Assumed]:
    """Within a fake mode whose operations it carries out."""
    with fake_mode() as mode:
        made = Assumed(ANSWERS, Memo(mode).run)
        with Tracker(run=made.run):
            yield made


def test_a_number_that_is_read_is_one(assumed: Assumed) -> None:
    assert torch.ones(3).sum().item() == 1.0
    assert torch.ones(3, dtype=torch.int64).sum().item() == 1
    assert torch.ones(3).sum() > 0


def test_a_mask_of_tokens_chooses_the_answers(assumed: Assumed) -> None:
    hidden, mask = torch.ones(ROWS, WIDTH, 8), torch.ones(ROWS, WIDTH) > 0
    assert hidden[mask].shape == (ROWS * ANSWERS, 8)
    assert torch.masked_select(torch.ones(ROWS, WIDTH), mask).shape == (ROWS * ANSWERS,)
    narrow = torch.ones(ROWS, 2) > 0
    assert torch.ones(ROWS, 2)[narrow].shape == (ROWS * 2,)


def test_half_of_all_rows_are_good(assumed: Assumed) -> None:
    good = torch.ones(5) > 0
    assert torch.nonzero(good).shape == (3, 1)
    assert torch.ones(5)[good].shape == (3,)


def test_gradients_flow_back_through_a_mask(assumed: Assumed) -> None:
    hidden = torch.ones(ROWS, WIDTH, 8, requires_grad=True)
    mask = torch.ones(ROWS, WIDTH) > 0
    chosen = hidden[mask].sum(-1)
    spread = torch.zeros(ROWS, WIDTH).masked_scatter(mask, chosen)
    spread.sum().backward()
    assert hidden.grad is not None and hidden.grad.shape == hidden.shape


def test_places_that_are_known_are_no_assumption(assumed: Assumed) -> None:
    rows = torch.ones(ROWS, WIDTH)
    assert rows[torch.arange(2), torch.arange(2)].shape == (2,)


def test_nothing_is_assumed_while_it_is_paused(assumed: Assumed) -> None:
    total = torch.ones(3).sum()
    with assumed.paused(), pytest.raises(DataDependentOutputException):
        total.item()
    assert total.item() == 1.0
