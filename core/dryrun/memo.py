"""Operations on fake tensors that were seen before, answered at once.

A step of a language model is a few dozen operations, repeated for each layer and each pass on tensors of the same
forms. FakeTensorMode finds out anew each time what comes of one, or looks it up under a key that takes as long. Here
what it once found out is remembered by the operation and the forms of its arguments alone, which is all that the result
depends on when an argument holds no known numbers.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._pytree import tree_leaves

_CPU = torch.device("cpu")
_SCALARS = (int, float, bool, str, torch.dtype, torch.device, torch.layout, torch.memory_format)


_UNFIT = (
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
)

_UNSAFE_VIEW = torch.ops.aten._unsafe_view.default
"""A view in all but name."""

_Sized = tuple[Any, Any, Any]
"""A tensor's size, stride and type."""


class _Unknown(Exception):  # noqa: N818
    """An argument that a key cannot be made of."""


@dataclass(frozen=True, slots=True)
class _Form:
    """What comes of an operation."""

    way: Literal["new", "first", "nothing", "other"]
    """New tensors; the first argument; None; what is not remembered."""
    kind: Any = None
    """list or tuple; None for one tensor alone."""
    tensors: tuple[_Sized | None, ...] = ()


class Memo:
    """Runs operations in a fake mode; remembers the forms of their results."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._forms: dict[Any, _Form] = {}

    def run(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """What `operation` returns."""
        try:
            key = (operation, _key(args), _key(kwargs.items()) if kwargs else None)
        except _Unknown:
            return operation(*args, **kwargs)
        if operation.is_view or operation is _UNSAFE_VIEW:
            return self._view(operation, args, kwargs)
        form = self._forms.get(key)
        if form is None:
            result = operation(*args, **kwargs)
            self._forms[key] = _form(operation, args, kwargs, result)
            return result
        if form.way == "new":
            return self._make(form)
        if form.way == "first":
            return args[0]
        return None if form.way == "nothing" else operation(*args, **kwargs)

    def _view(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """What PyTorch's own kernel makes of the tensors' forms: it takes no time, and gives dimensions of one the
        strides that it always gives them."""
        with in_kernel_invocation_manager(self._mode):
            result = operation(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            return FakeTensor(self._mode, result, _CPU)
        return [FakeTensor(self._mode, each, _CPU) for each in result]

    def _make(self, form: _Form) -> Any:
        with in_kernel_invocation_manager(self._mode):
            made = [
                sized and torch.empty_strided(sized[0], sized[1], dtype=sized[2], device="meta")
                for sized in form.tensors
            ]
        fakes = [None if each is None else FakeTensor(self._mode, each, _CPU) for each in made]
        return fakes[0] if form.kind is None else form.kind(fakes)


def _key(args: Any) -> tuple[Any, ...]:
    """The forms of arguments.

    Raises:
        _Unknown: one of them is a real tensor, holds known numbers, or is of another type.
    """
    parts: list[Any] = []
    for each in args:
        kind = type(each)
        if kind is FakeTensor:
            if each.constant is not None:
                raise _Unknown
            parts.append((each.shape, each.stride(), each.dtype))
        elif each is None:
            parts.append(None)
        elif kind is list or kind is tuple:
            parts.append(_key(each))
        elif isinstance(each, _SCALARS):
            parts.append((kind, each))
        else:
            raise _Unknown
    return tuple(parts)


def _form(operation: Any, args: Any, kwargs: Any, result: Any) -> _Form:
    """What to remember of a result; "other" where it depends on more than its key."""
    if operation.namespace not in ("aten", "bitsandbytes"):
        return _Form("other")
    if any(tag in operation.tags for tag in _UNFIT):
        return _Form("other")
    if result is None:
        return _Form("nothing")
    if args and result is args[0]:
        return _Form("first")
    single = isinstance(result, torch.Tensor)
    if not single and type(result) not in (list, tuple):
        return _Form("other")
    results = [result] if single else list(result)
    tensors = [each for each in results if each is not None]
    if any(type(each) is not FakeTensor or each.constant is not None for each in tensors):
        return _Form("other")
    if any(each.fake_device != _CPU for each in tensors):
        return _Form("other")
    if _share((args, kwargs), tensors):
        return _Form("other")
    sizes = tuple(each if each is None else _size(each) for each in results)
    return _Form("new", None if single else type(result), sizes)


def _size(tensor: Any) -> _Sized:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype


def _share(args: Any, results: list[Any]) -> bool:
    """Whether results share memory with the arguments or with each other."""
    given = [a for a in tree_leaves(args) if isinstance(a, torch.Tensor)]
    storages = [t.untyped_storage()._cdata for t in (*given, *results)]
    return len(set(storages[len(given) :]) - set(storages[: len(given)])) < len(results)
