"""Which attention kernel CUDA takes, and what it allocates."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from core.dryrun.attention import Call, attend, choose
from core.dryrun.cuda import cuda_semantics
from core.dryrun.tracker import Tracker

PLAIN = Call(torch.bfloat16, 64, 64, masked=False, grouped=False)


@pytest.mark.parametrize(
    ("capability", "changes", "kernel"),
    [
        ((8, 0), {}, "flash"),
        ((8, 0), {"masked": True}, "efficient"),
        ((8, 0), {"dtype": torch.float32}, "efficient"),
        ((8, 0), {"head_dim": 100, "value_dim": 100}, "flash"),
        ((8, 0), {"head_dim": 320, "value_dim": 320}, "efficient"),
        ((8, 0), {"grouped": True}, "flash"),
        ((8, 0), {"grouped": True, "dtype": torch.float32}, "math"),
        ((8, 6), {"head_dim": 200, "value_dim": 200}, "efficient"),
        ((8, 6), {"head_dim": 200, "value_dim": 200, "trains": False}, "flash"),
        ((9, 0), {}, "cudnn"),
        ((9, 0), {"masked": True}, "cudnn"),
        ((9, 0), {"dtype": torch.float32}, "efficient"),
        ((7, 5), {"dtype": torch.float16}, "efficient"),
        ((7, 5), {"dtype": torch.float16, "grouped": True}, "math"),
        ((7, 5), {}, "math"),
    ],
)
def test_the_kernel_that_is_chosen(
    capability: tuple[int, int], changes: dict[str, Any], kernel: str
) -> None:
    assert choose(capability, replace(PLAIN, **changes)) == kernel


def allocated(capability: tuple[int, int], mask: bool) -> int:
    """Bytes that an attention's forward leaves besides its inputs."""
    with FakeTensorMode():
        tokens = torch.empty(2, 4, 256, 64, dtype=torch.bfloat16, requires_grad=True)
        hidden = torch.empty(2, 1, 256, 256, dtype=torch.bool) if mask else None
        tracker = Tracker()
        with tracker:
            out = attend(capability, tokens, tokens, tokens, hidden, is_causal=not mask)
        live = {n: s for kind, n, s in tracker.events if kind}
        for kind, number, _ in tracker.events:
            if not kind:
                live.pop(number, None)
        assert out.shape == tokens.shape
        return sum(live.values())


def test_flash_attention_keeps_its_result_and_a_number_for_each_row() -> None:
    out, rows = 2 * 4 * 256 * 64 * 2, 2 * 4 * 256 * 4
    assert allocated((8, 0), mask=False) == pytest.approx(out + rows, abs=64)


def test_a_mask_is_kept_in_the_type_of_the_queries() -> None:
    bias = 2 * 256 * 256 * 2
    assert allocated((8, 0), mask=True) == pytest.approx(
        allocated((8, 0), mask=False) + bias, abs=64
    )


def test_without_a_fused_kernel_all_scores_are_kept() -> None:
    assert allocated((7, 5), mask=False) > 2 * 4 * 256 * 256 * 4


def test_autocast_is_cudas_within_and_the_cpus_after() -> None:
    norm, tokens = torch.nn.LayerNorm(8), torch.ones(2, 8, dtype=torch.bfloat16)

    def kinds() -> tuple[Any, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return norm(tokens).dtype, tokens.pow(2).dtype, torch.is_autocast_enabled()

    before = kinds()
    with cuda_semantics((8, 0)):
        assert kinds() == (torch.float32, torch.float32, True)
    assert kinds() == before
