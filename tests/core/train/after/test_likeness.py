"""How far two models are from saying the same."""

from pathlib import Path

import pytest
import torch

from core.study.after import Check, partial_of
from core.train.after import likeness


def test_the_error_is_relative_and_blind_to_what_softmax_does_not_see() -> None:
    torch.manual_seed(0)
    rows = torch.randn(10, 50)
    one = likeness.Logits(rows, "model")
    assert likeness.difference(one, likeness.Logits(rows + 3.0, "model"))[0] < 1e-6
    error, largest = likeness.difference(one, likeness.Logits(rows * 1.1, "model"))
    assert error == pytest.approx(0.1, rel=1e-3) and largest > error
    assert likeness.difference(one, likeness.Logits(rows[:5], "model"))[0] != 0.0


def test_a_comparison_with_no_numbers_in_it_never_passes() -> None:
    rows = torch.ones(2, 3)
    nothing = likeness.Logits(rows * float("nan"), "model")
    check = likeness.compare("merged", likeness.Logits(torch.randn(2, 3), "model"), nothing, "fp32")
    assert not check.passed
    assert not Check("merged", float("nan"), 0.0, 1.0, 1.0, 1).passed


def test_the_partial_folder_stands_beside_the_model(tmp_path: Path) -> None:
    assert partial_of(tmp_path / "model").parent == tmp_path
    assert partial_of(Path("/")).parent == Path("/"), (
        "a folder without a name is refused, and has one"
    )
