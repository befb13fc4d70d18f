"""What a GPU need not hold all the time, held in the host's memory: the optimizer's states, and saved activations."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from core.train.optimizers import Optimizer, Rates, parameter_groups

BUCKET = 64 * 2**20
"""Weights that are updated at once, in numbers: enough to keep the bus busy, few enough to need little memory."""
LEAST = 2**20
"""Activations below this many bytes stay: they free next to nothing, and each transfer takes its time."""


class OffloadedOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """An optimizer whose states and update are in the host's memory.

    The host holds a copy of the weights (of their own type), and the states on it. An update takes a bucket of
    gradients at a time to the host, updates there and sends the weights back. Its groups are the device's weights with
    their gradients, so that clipping, loss scaling and schedules work on it as on any other; its state is that of the
    optimizer inside of it, so that a checkpoint made with it can be taken up without it and the other way around.

    The device holds nothing for it. The host holds the weights, the states and a bucket of gradients.
    """

    def __init__(self, optimizer: Optimizer, model: Any, rates: Rates) -> None:
        """`optimizer` is built on copies of the weights of `model` that train; it has to run on the CPU."""
        groups = parameter_groups(model, rates)
        self._host: dict[Any, Any] = {
            weight: torch.nn.Parameter(torch.empty_like(weight, device="cpu"))
            for group in groups
            for weight in group["params"]
        }
        self._inner = optimizer.kind(
            [group | {"params": [self._host[w] for w in group["params"]]} for group in groups],
            **optimizer.arguments,
        )
        super().__init__(groups, self._inner.defaults)
        self._stale = True
        """Whether the host's copies are still to be made: the weights may be loaded after the optimizer is built."""

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> Any:
        """One update of the weights that have gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._tell_settings()
        moving = [w for group in self.param_groups for w in group["params"] if w.grad is not None]
        if self._stale:
            for weight, copy in self._host.items():
                copy.copy_(weight)
            self._stale = False
        for bucket in _buckets(moving):
            self._update(bucket)
        return loss

    def _update(self, weights: list[Any]) -> None:
        """Update some weights: their gradients come, the weights go back through the same pinned memory."""
        buffers = [_landing(weight) for weight in weights]
        for weight, buffer in zip(weights, buffers, strict=True):
            buffer.copy_(weight.grad, non_blocking=True)
        _wait(weights[0].device)
        for weight, buffer in zip(weights, buffers, strict=True):
            self._host[weight].grad = buffer
        self._inner.step()
        for weight, buffer in zip(weights, buffers, strict=True):
            copy = self._host[weight]
            copy.grad = None
            weight.copy_(buffer.copy_(copy), non_blocking=True)
        _wait(weights[0].device)

    def _tell_settings(self) -> None:
        """The rate and whatever else a schedule has changed, to the groups of the optimizer inside."""
        for outer, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            inner.update({k: v for k, v in outer.items() if k != "params"})

    def state_dict(self) -> dict[str, Any]:
        """As of the optimizer inside."""
        self._tell_settings()
        return dict(self._inner.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the states of a checkpoint, made with offload or without; they go to the host's memory."""
        self._inner.load_state_dict(state_dict)
        for outer, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            outer.update({k: v for k, v in inner.items() if k != "params"})
        self._stale = True


def _buckets(weights: list[Any]) -> Iterator[list[Any]]:
    """The weights in runs of at most BUCKET numbers; one that is larger is alone."""
    bucket: list[Any] = []
    size = 0
    for weight in weights:
        if bucket and size + weight.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(weight)
        size += weight.numel()
    if bucket:
        yield bucket


def _landing(tensor: Any) -> Any:
    """Host memory of a tensor's form, pinned where that makes the way to and from a GPU faster."""
    return torch.empty_like(tensor, device="cpu", requires_grad=False, pin_memory=_pins(tensor))


def _pins(tensor: Any) -> bool:
    return bool(tensor.device.type == "cuda" and torch.cuda.is_available())


def _wait(device: Any) -> None:
    """Wait until the copies that were ordered have been made."""
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.current_stream(device).synchronize()


def offload_activations(model: Any, *, from_host: bool = False) -> None:
    """Let what the decoder of `model` saves for the backward pass go to the host's memory and come back when it is
    needed: activations of LEAST bytes and more, not the weights (their 16-bit copies that mixed precision makes of
    weights that train do go). With gradient checkpointing, that is what is kept between the checkpoints.

    The scores and the loss, which the backward pass begins with, stay. So does what is in the host's memory already;
    `from_host` copies it all the same.
    """

    def hooks() -> AbstractContextManager[None]:
        weights = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
        moves = _Offload(frozenset(weights), from_host)
        saving: AbstractContextManager[None] = torch.autograd.graph.saved_tensors_hooks(
            moves.pack, moves.unpack
        )
        return saving

    around_decoder(model, hooks)


def around_decoder(model: Any, hooks: Callable[[], AbstractContextManager[None]]) -> None:
    """Let each forward of the decoder of `model` (without adapters around it yet) run within `hooks()`, unless no
    gradients are wanted."""
    decoder = model.get_decoder()
    forward = decoder.forward

    def within(*inputs: Any, **settings: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **settings)
        with hooks():
            return forward(*inputs, **settings)

    decoder.forward = within


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Away:
    """A tensor that is in the host's memory."""

    copy: Any
    """Of what is in memory: a tensor that repeats itself is copied once."""
    shape: Any
    device: Any
    storage: StorageWeakRef
    """Of the tensor that was copied. While it is referred to, its address is no other storage's."""


class _Offload:
    """The two ways of what a forward pass saves. A tensor that several operations save is copied once."""

    def __init__(self, weights: frozenset[int], from_host: bool) -> None:
        self._weights = weights
        self._from_host = from_host
        self._away: WeakValueDictionary[tuple[Any, ...], _Away] = WeakValueDictionary()

    def pack(self, tensor: Any) -> Any:
        if not self._goes(tensor):
            return tensor
        storage = tensor.untyped_storage()
        key = (
            storage._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor._version,
        )  # fmt: skip
        away = self._away.get(key)
        if away is None:
            once = _once(tensor.detach())
            copy = _landing(once).copy_(once, non_blocking=_pins(tensor))
            away = _Away(copy, tensor.shape, tensor.device, StorageWeakRef(storage))
            self._away[key] = away
        return away

    def unpack(self, saved: Any) -> Any:
        if not isinstance(saved, _Away):
            return saved
        back = saved.copy.to(saved.device, non_blocking=True, copy=self._from_host)
        return back.expand(saved.shape)

    def _goes(self, tensor: Any) -> bool:
        if tensor.device.type == "cpu" and not self._from_host:
            return False
        return (
            tensor.layout == torch.strided
            and _once(tensor).numel() * tensor.element_size() >= LEAST
            and tensor.untyped_storage()._cdata not in self._weights
        )


def _once(tensor: Any) -> Any:
    """A tensor without its repetitions, as an attention mask has that is expanded to every head."""
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor
