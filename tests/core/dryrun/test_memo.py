"""What is remembered of an operation is what the fake mode would say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from core.dryrun.memo import Memo

ATEN = torch.ops.aten

CASES: dict[str, Callable[[Any, Any], tuple[Any, tuple[Any, ...], dict[str, Any]]]] = {
    "mm": lambda a, b: (ATEN.mm.default, (a, b), {}),
    "mul": lambda a, b: (ATEN.mul.Tensor, (a, 2.0), {}),
    "to": lambda a, b: (ATEN._to_copy.default, (a,), {"dtype": torch.bfloat16}),
    "sum": lambda a, b: (ATEN.sum.dim_IntList, (a, [0], True), {}),
    "topk": lambda a, b: (ATEN.topk.default, (a, 2), {}),
    "layer norm": lambda a, b: (ATEN.native_layer_norm.default, (a, [8], None, None, 1e-5), {}),
    "zeros": lambda a, b: (ATEN.new_zeros.default, (a, [3, 3]), {}),
    "foreach": lambda a, b: (ATEN._foreach_sqrt.default, ([a, b],), {}),
}


def forms(result: Any) -> list[Any]:
    each = [result] if isinstance(result, torch.Tensor) else list(result)
    return [(type(t), t.shape, t.stride(), t.dtype, t.device) for t in each]


@pytest.mark.parametrize("name", CASES)
def test_a_remembered_result_has_the_same_form_and_memory_of_its_own(name: str) -> None:
    with FakeTensorMode() as mode:
        left, right = torch.empty(4, 8), torch.empty(8, 2)
        operation, args, kwargs = CASES[name](left, right)
        memo = Memo(mode)
        first, second = memo.run(operation, args, kwargs), memo.run(operation, args, kwargs)
        assert forms(first) == forms(second) == forms(operation(*args, **kwargs))
        assert type(first) is type(second)
        firsts = [first] if isinstance(first, torch.Tensor) else first
        seconds = [second] if isinstance(second, torch.Tensor) else second
        for one, other in zip(firsts, seconds, strict=True):
            assert one.untyped_storage()._cdata != other.untyped_storage()._cdata


def test_other_forms_are_another_matter() -> None:
    with FakeTensorMode() as mode:
        memo = Memo(mode)
        assert memo.run(ATEN.mul.Tensor, (torch.empty(2), 2), {}).shape == (2,)
        assert memo.run(ATEN.mul.Tensor, (torch.empty(3), 2), {}).shape == (3,)
        whole = memo.run(ATEN.mul.Tensor, (torch.empty(3, dtype=torch.int64), 2), {})
        broken = memo.run(ATEN.mul.Tensor, (torch.empty(3, dtype=torch.int64), 2.0), {})
        assert (whole.dtype, broken.dtype) == (torch.int64, torch.float32)


def test_views_share_their_memory_and_updates_return_their_target() -> None:
    with FakeTensorMode() as mode:
        memo, base = Memo(mode), torch.empty(4, 8)
        for _ in range(2):
            view = memo.run(ATEN.t.default, (base,), {})
            assert view.shape == (8, 4)
            assert view.untyped_storage()._cdata == base.untyped_storage()._cdata
            assert memo.run(ATEN.add_.Tensor, (base, 1.0), {}) is base


def test_a_result_that_is_given_is_no_new_memory() -> None:
    with FakeTensorMode() as mode:
        memo, left, right = Memo(mode), torch.empty(4, 8), torch.empty(8, 2)
        room = torch.empty(4, 16)
        for _ in range(2):
            out = room[:, :2]
            made = memo.run(ATEN.mm.out, (left, right), {"out": out})
            assert made.untyped_storage()._cdata == room.untyped_storage()._cdata


def test_known_numbers_are_looked_at_each_time() -> None:
    with FakeTensorMode() as mode:
        memo = Memo(mode)
        item = ATEN._local_scalar_dense.default
        assert [memo.run(item, (torch.tensor(n),), {}) for n in (3, 5)] == [3, 5]
